"""A page of documentation, followed literally: every command runs, and prints what the page says that it prints."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
COMMAND_SECS = 120


class Command(NamedTuple):
    text: str
    printed: list[str]


def page(name: str) -> str:
    """The text of docs/*name*."""
    return (ROOT / "docs" / name).read_text(encoding="utf-8")


def commands(section: str) -> list[Command]:
    """Each `$ ` line with the `> ` lines that continue it, and the lines that follow until the next."""
    found: list[Command] = []
    for block in re.findall(r"```console\n(.*?)```", section, re.DOTALL):
        for line in block.splitlines():
            if line.startswith("$ "):
                found.append(Command(line[2:], []))
            elif line.startswith("> ") and not found[-1].printed:
                found[-1] = found[-1]._replace(text=f"{found[-1].text}\n{line[2:]}")
            else:
                found[-1].printed.append(line)
    return found


def pattern(lines: list[str]) -> str:
    """What the lines of the page match: `…` anything within a line, alone in a line any lines; blanks are alike."""
    parts = []
    for line in lines:
        if line == "…":
            parts.append(r"(?:[^\n]*\n)*?")
        else:
            words = re.escape(" ".join(line.split())).replace("…", r"[^\n]*?")
            parts.append(words + r"\n")
    return "".join(parts)


def surroundings(folder: Path, **more: str) -> dict[str, str]:
    """The environment of whoever follows a page in *folder*: our commands on the path, keys of its own."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return os.environ | {"PATH": path, "HOLDFAST_HOME": str(folder / "home"), "COLUMNS": "200"} | more


def follow(section: str, folder: Path, environment: Mapping[str, str] | None = None) -> list[Command]:
    """Run every command of *section* in *folder*, one after the other; each succeeds and prints what stands there."""
    found = commands(section)
    for command in found:
        done = subprocess.run(
            ["bash", "-o", "pipefail", "-c", command.text],
            cwd=folder,
            env=surroundings(folder) if environment is None else environment,
            capture_output=True,
            text=True,
            timeout=COMMAND_SECS,
            check=False,
        )
        assert done.returncode == 0, (command.text, done.stdout, done.stderr)
        printed = "".join(" ".join(line.split()) + "\n" for line in done.stdout.splitlines())
        assert re.fullmatch(pattern(command.printed), printed), (command.text, command.printed, done.stdout)
    return found
