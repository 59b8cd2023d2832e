"""docs/anchors.md is followed literally: every command runs, and prints what the page says it prints."""

import json
import re
import shutil
import signal
import subprocess

import pytest
from support.pages import follow, page, surroundings

PAGE = page("anchors.md")
TRY, WHAT_FOLLOWS = PAGE.split("The sinks are named once")


@pytest.mark.slow
@pytest.mark.contract("X2")
def test_the_page_can_be_followed(tmp_path):
    """The log, the witness, the anchors, the rollback and its refusal go as the page says."""
    environment = surroundings(tmp_path)
    follow(TRY, tmp_path, environment)
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
        follow(WHAT_FOLLOWS, tmp_path, environment)
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
