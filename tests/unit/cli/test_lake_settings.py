"""What `[lake]` sets holds for the projector and for maintenance, unless the command line says otherwise."""

import argparse

import pytest
from support.lake import make_journal
from support.lake import project as project_lake

from holdfast.cli.lake import maintain, project
from holdfast.cli.main import main
from holdfast.config import LakeConfig
from holdfast.core.errors import ConfigError
from holdfast.lake.projector import REMOTE
from holdfast.lake.repair import Guard
from holdfast.lake.store import store_of


def words(**given):
    return argparse.Namespace(**({"rows": None, "age": None, "memory": None} | given))


@pytest.mark.contract("B7")
def test_the_projector_commits_as_the_configuration_says(tmp_path):
    """Rows, age and memory come from the command line, else from [lake], else from where the lake lies."""
    local = store_of(str(tmp_path))
    own = LakeConfig(commit_rows=100, commit_secs=0.5, memory_mb=300)
    policy = project._policy(words(), local, own)
    assert (policy.rows, policy.age_secs, policy.memory_bytes) == (100, 0.5, 300 << 20)
    policy = project._policy(words(rows=7, age=3.0, memory=0), local, own)
    assert (policy.rows, policy.age_secs, policy.memory_bytes) == (7, 3.0, 0)
    usual = project._policy(words(), local, LakeConfig())
    assert (usual.rows, usual.age_secs) == (5_000, 1.0)
    remote = project._policy(words(), store_of("s3://desk/lake"), LakeConfig())
    assert remote.age_secs == REMOTE.age_secs == 10.0
    with pytest.raises(ConfigError, match="memory_bytes -1"):
        project._policy(words(memory=-1), local, own)


def test_vacuum_that_keeps_nothing_stays_away_from_a_projector(tmp_path, capsys):
    """Files of a commit on its way belong to no version yet: what would remove them at once wants the lake alone."""
    lake = project_lake(tmp_path / "lake", make_journal(tmp_path / "log", days=1, events=10))
    words = ["lake", "maintain", "--lake", lake.uri, "--table", "fills", "--retention-days"]
    guard = Guard(lake.path)
    guard.share()
    assert main([*words, "0.05"]) == 0
    assert main([*words, "0"]) == 1
    assert "a projector works in it" in capsys.readouterr().err
    guard.release()
    assert main([*words, "0"]) == 0


def test_maintenance_keeps_old_files_as_long_as_the_configuration_says(tmp_path, monkeypatch):
    """[lake] retention_days is what maintenance takes; the command line wins."""
    (tmp_path / "holdfast.toml").write_text("[lake]\nretention_days = 2\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(maintain.os, "nice", lambda _by: 0)
    kept: list[int] = []

    class Seen:
        def __init__(self, _store, *, policy, **_rest):
            kept.append(policy.retention_secs)

    monkeypatch.setattr("holdfast.lake.maintenance.Maintainer", Seen)
    monkeypatch.setattr(maintain, "_tables", lambda _args, _store: [])
    for days in (None, 5.0):
        args = argparse.Namespace(
            lake="lake", retention_days=days, day=None, table=[], everything=False, json=True
        )
        maintain._maintain(args)
    assert kept == [2 * 86_400, 5 * 86_400]
