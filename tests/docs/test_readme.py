"""The README's blocks run as written, and what they print is what it says."""

import contextlib
import io
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from support.exchange import as_process

from holdfast.config import load_config

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def said(block):
    """What the comments after each print say it prints."""
    return re.findall(r"print\(.*\)\s*(?:\n\s*)?# (.+)", block)


@pytest.mark.parametrize("name", ["RiskManager", "TrailingStop"])
def test_a_short_block_runs_offline_and_prints_what_it_says(name, tmp_path, monkeypatch):
    """The block has under 15 lines, needs no network, and prints what its comments say."""
    block = next(block for block in blocks("python") if f"import {name}" in block)
    assert len(block.splitlines()) < 15
    monkeypatch.chdir(tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", block], capture_output=True, text=True, timeout=60, check=True, cwd=tmp_path
    )
    printed = done.stdout.splitlines()
    for line, comment in zip(printed, said(block), strict=True):
        assert line.startswith(comment.removesuffix("(...)").strip()), (line, comment)


@pytest.mark.slow
@pytest.mark.contract("A7", "A21")
def test_a_python_bot_and_a_bot_in_any_language_trade_on_the_exchange(tmp_path):
    """Both ways of the second screen work as written against `holdfast exchange`."""
    with as_process("--speed", "1", "--seconds", "60") as exchange:
        endpoints = exchange.endpoints
        environment = os.environ | {
            "KALSHI_API_KEY_ID": endpoints.key_id,
            "KALSHI_PRIVATE_KEY_PATH": str(endpoints.pem_path),
            "KALSHI_BASE_URL": endpoints.rest,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        }
        bot = next(block for block in blocks("python") if "OrderRouter" in block)
        done = subprocess.run(
            [sys.executable, "-c", bot],
            env=environment,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        first, second = done.stdout.splitlines()
        assert first.startswith("{'status': 'submitted', 'response': {")
        assert second == "{'status': 'rejected', 'reason': 'risk_check_failed'}"

        line = next(line for line in README.splitlines() if line.startswith("$ echo"))
        command = line.removeprefix("$ ").replace(
            "holdfast submit", f"{shlex.quote(sys.executable)} -m holdfast submit"
        )
        for _again in range(2):
            done = subprocess.run(
                ["bash", "-c", command],
                env=environment,
                cwd=tmp_path,
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
            assert done.returncode == 0, done.stderr + done.stdout
            assert re.fullmatch(
                r'\{"intent":"rain-1","client_order_id":"hf-[a-z2-7]{26}","outcome":"filled","reason":"",'
                r'"order_id":"[^"]+","filled":"5.00"\}\n',
                done.stdout,
            )


def test_the_configuration_it_shows_is_valid(tmp_path):
    """The TOML block loads and sets the limits it names."""
    path = tmp_path / "holdfast.toml"
    path.write_text(blocks("toml")[0], encoding="utf-8")
    assert load_config(path, environ={}).explicit_limits


def test_every_command_it_names_exists():
    """Each `holdfast VERB` of the README is a verb, each option one of that verb's."""
    from holdfast.cli.main import VERBS, main

    for verb, words in re.findall(r"holdfast (\w+)([^`\n|#]*)", README):
        if verb not in VERBS:
            continue
        asked = [verb, words.split()[0]] if verb in {"audit", "lake"} else [verb]
        shown = io.StringIO()
        with contextlib.redirect_stdout(shown):
            assert main([*asked, "--help"]) == 0
        for option in re.findall(r"--[a-z-]+", words):
            assert option in shown.getvalue(), (asked, option)


def test_every_file_it_names_exists():
    """A guarantee names a test that is there."""
    for path in re.findall(r"`(tests/[^`]+)`", README):
        assert (ROOT / path).exists(), path
