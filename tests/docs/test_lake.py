"""docs/lake.md is followed literally: every command runs, and prints what the page says it prints."""

import pytest
from support.pages import follow, page, surroundings
from support.s3 import moto_store

from holdfast.lake.saved import SAVED
from holdfast.lake.tables import TABLES

PAGE = page("lake.md")


@pytest.mark.slow
@pytest.mark.contract("B14")
@pytest.mark.contract("B8")
def test_the_page_can_be_followed(tmp_path):
    """Projecting, comparing, asking, drawing, maintaining and rebuilding go as the page says, on disk and on S3."""
    with moto_store() as store:
        store.boto().create_bucket(Bucket="risk")
        assert len(follow(PAGE, tmp_path, surroundings(tmp_path, **store.environ))) >= 18
    assert (tmp_path / "events.png").read_bytes().startswith(b"\x89PNG")
    assert b"<svg" in (tmp_path / "stop.svg").read_bytes()


def test_the_page_names_every_table_and_saved_question():
    """Each table and each saved question stands on the page, with the question as the code has it."""
    for table in TABLES:
        assert f"| `{table.name}` |" in PAGE
    for query in SAVED.values():
        assert f"| `{query.name}` | {query.question}" in PAGE
