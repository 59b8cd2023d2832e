"""One S3 server for each module, one log that each test gets a copy of."""

from __future__ import annotations

import secrets
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import pytest
from support.s3 import START_NS, MemoryBucket, make_log, moto_store

from holdfast.archive.policy import Policy
from holdfast.archive.store import Bucket
from holdfast.archive.upload import ArchiveReport, archive
from holdfast.audit.keys import KeyHome
from holdfast.core.clock import utc

NOW = utc(START_NS + 30 * 86_400 * 10**9).replace(year=datetime.now(UTC).year + 1)
"""Later than the records, and than any real clock that a store has: locks must lie ahead of it."""


class Desk(NamedTuple):
    """A log with its keys, and an archive for it."""

    log: Path
    home: Path
    memory: MemoryBucket

    @property
    def keys(self):
        return lambda log_id: KeyHome(self.home).log(log_id).pins()

    def archive(self, bucket: Bucket | None = None, policy: Policy | None = None, **how) -> ArchiveReport:
        return archive(
            self.log, bucket or self.memory, policy or Policy(), now=NOW, token=secrets.token_hex(8), **how
        )


def files_of(root: Path) -> dict[str, bytes]:
    """Every file of a log but those of its running writer."""
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file() and path.parent.name != "run"
    }


@pytest.fixture(scope="module")
def store():
    with moto_store() as running:
        yield running


@pytest.fixture
def locked(store) -> Bucket:
    """A place in a bucket with object lock."""
    return store.bucket(f"s3://{store.make()}/desk")


@pytest.fixture(scope="session")
def template(tmp_path_factory):
    """A signed log of three sealed segments and an active one, with its keys."""
    root = tmp_path_factory.mktemp("template")
    make_log(root / "log", root / "home")
    return root


@pytest.fixture(scope="session")
def small_template(tmp_path_factory):
    """A signed log of one sealed segment and an active one, with its keys."""
    root = tmp_path_factory.mktemp("small")
    make_log(root / "log", root / "home", segments=1, records=20)
    return root


def _desk(template: Path, tmp_path: Path) -> Desk:
    for part in ("log", "home"):
        shutil.copytree(template / part, tmp_path / part)
    return Desk(tmp_path / "log", tmp_path / "home", MemoryBucket())


@pytest.fixture
def desk(template, tmp_path) -> Desk:
    """A copy of the log, and an empty archive."""
    return _desk(template, tmp_path)


@pytest.fixture
def small(small_template, tmp_path) -> Desk:
    """A copy of the small log, and an empty archive."""
    return _desk(small_template, tmp_path)
