"""docs/proving.md is followed command by command, and prints what it shows."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "proving.md").read_text(encoding="utf-8")


def steps():
    """Each command with the lines shown below it; … stands for anything."""
    for block in re.findall(r"```console\n(.*?)```", PAGE, re.DOTALL):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, _, shown = part.partition("\n")
            yield command, shown.splitlines()


@pytest.mark.contract("X2")
@pytest.mark.slow
def test_the_page_is_followed_as_written(tmp_path):
    """Every command ends with 0, and every line shown is a beginning of a line printed."""
    (tmp_path / "tools").symlink_to(ROOT / "tools")
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    followed = list(steps())
    assert len(followed) >= 12
    for command, shown in followed:
        done = subprocess.run(
            ["bash", "-c", command], cwd=tmp_path, env=os.environ | {"PATH": path},
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == 0, (command, done.stdout, done.stderr)
        printed = done.stdout.splitlines()
        for line in shown:
            assert any(one.startswith(line.rstrip("…").rstrip()) for one in printed), (command, line, printed)
