"""docs/archive.md is followed literally: every command runs, and prints what the page says it prints."""

import pytest
from support.pages import follow, page, surroundings
from support.s3 import moto_store

PAGE = page("archive.md")


@pytest.mark.slow
@pytest.mark.contract("A19")
def test_the_page_can_be_followed(tmp_path):
    """Archiving, repeating, pruning, restoring and holding go as the page says."""
    with moto_store() as store:
        store.boto().create_bucket(Bucket="audit-archive", ObjectLockEnabledForBucket=True)
        assert len(follow(PAGE, tmp_path, surroundings(tmp_path, **store.environ))) >= 12
