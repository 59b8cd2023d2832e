"""One Ceph for every test of this folder."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.ceph import PACKAGES, gateway, missing
from support.s3 import Store


@pytest.fixture(scope="session")
def store() -> Iterator[Store]:
    absent = missing()
    if absent:
        pytest.skip(
            f"Ceph tests SKIPPED: not installed: {', '.join(absent)}; apt-get install {' '.join(PACKAGES)}"
        )
    # Not below pytest's directory: a socket's path has at most 107 bytes.
    root = Path(tempfile.mkdtemp(prefix="hf-ceph-"))
    try:
        with gateway(root) as endpoint:
            yield Store(endpoint)
    finally:
        shutil.rmtree(root, ignore_errors=True)
