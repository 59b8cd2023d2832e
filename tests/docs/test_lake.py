"""docs/lake.md is followed literally: every command runs, and prints what the page says it prints."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from docs.test_compliance import commands, pattern
from support.s3 import moto_store

from holdfast.lake.saved import SAVED
from holdfast.lake.tables import TABLES

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "lake.md").read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.contract("B14")
@pytest.mark.contract("B8")
def test_the_page_can_be_followed(tmp_path):
    """Projecting, comparing, asking, drawing, maintaining and rebuilding go as the page says, on disk and on S3."""
    with moto_store() as store:
        store.boto().create_bucket(Bucket="risk")
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
    assert (tmp_path / "events.png").read_bytes().startswith(b"\x89PNG")
    assert b"<svg" in (tmp_path / "stop.svg").read_bytes()


def test_the_page_names_every_table_and_saved_question():
    """Each table and each saved question stands on the page, with the question as the code has it."""
    for table in TABLES:
        assert f"| `{table.name}` |" in PAGE
    for query in SAVED.values():
        assert f"| `{query.name}` | {query.question}" in PAGE
