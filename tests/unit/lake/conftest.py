"""A journal and the lake that was projected from it, made once; each test gets a copy of both."""

import shutil

import pytest
from support.lake import make_journal, project

from holdfast.lake.store import store_of


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    """Where the journal `log` and its `lake` lie."""
    home = tmp_path_factory.mktemp("made")
    project(home / "lake", make_journal(home / "log", events=60))
    return home


@pytest.fixture
def log(tmp_path, made):
    """A copy of the journal, for this test alone."""
    return shutil.copytree(made / "log", tmp_path / "log")


@pytest.fixture
def lake(tmp_path, made):
    """A copy of its lake, for this test alone."""
    return store_of(str(shutil.copytree(made / "lake", tmp_path / "lake")))
