"""docs/anchors.md is followed literally: every command runs, and prints what the page says it prints."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from docs.test_compliance import commands, pattern

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "anchors.md").read_text(encoding="utf-8")
TRY, WHAT_FOLLOWS = PAGE.split("The sinks are named once")


@pytest.mark.slow
@pytest.mark.contract("X2")
def test_the_page_can_be_followed(tmp_path):
    """The log, the witness, the anchors, the rollback and its refusal go as the page says."""
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "HOLDFAST_HOME": str(tmp_path / "home"),
    }

    def follow(section):
        for command in commands(section):
            done = subprocess.run(
                ["bash", "-c", f"set -o pipefail; {command.text}"],
                cwd=tmp_path,
                env=environment,
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
            told = "\n".join(" ".join(line.split()) for line in done.stdout.splitlines())
            told += "\n" if told else ""
            assert re.fullmatch(pattern(command.printed), told), (command, done)

    follow(TRY)
    (start,) = re.findall(r"```sh\n(.*?)\n```", PAGE)
    witness = subprocess.Popen(
        ["bash", "-c", f"exec {start} --port 0 --json"],
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        ready = json.loads(witness.stdout.readline())
        environment["WITNESS"] = f"witness:{ready['url']} {ready['vkey']}"
        follow(WHAT_FOLLOWS)
    finally:
        witness.send_signal(signal.SIGINT)
        witness.communicate(timeout=20)
    assert witness.returncode == 0


def test_the_page_names_every_kind_of_sink():
    """The table has a row for each kind that can be configured."""
    from holdfast.anchors.spec import _SHAPES

    assert all(f"`{kind}:" in PAGE for kind in _SHAPES)


def test_openssl_is_asked_as_the_receipts_lie():
    """The page's openssl line names files as `receipts` names them."""
    from holdfast.anchors.receipts import _NAME, AUTHORITY

    (line,) = re.findall(r"openssl ts .*", PAGE)
    assert AUTHORITY in line
    assert len(_NAME.findall(line)) == 2
    assert shutil.which("openssl") is None or "-verify" in line
