"""docs/archive.md is followed literally: every command runs, and prints what the page says it prints."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from docs.test_compliance import commands, pattern
from support.s3 import moto_store

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "archive.md").read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.contract("A19")
def test_the_page_can_be_followed(tmp_path):
    """Archiving, repeating, pruning, restoring and holding go as the page says."""
    with moto_store() as store:
        store.boto().create_bucket(Bucket="audit-archive", ObjectLockEnabledForBucket=True)
        environment = {
            **os.environ,
            **store.environ,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "HOLDFAST_HOME": str(tmp_path / "home"),
        }
        for command in commands(PAGE):
            done = subprocess.run(
                ["bash", "-c", f"set -o pipefail; {command.text}"],
                cwd=tmp_path,
                env=environment,
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
            assert done.returncode == 0, (command, done)
            told = "\n".join(" ".join(line.split()) for line in done.stdout.splitlines())
            told += "\n" if told else ""
            assert re.fullmatch(pattern(command.printed), told), (command, done)
