"""`[anchors]` in holdfast.toml, and what it does to a writer."""

import pytest

from holdfast.anchors.opening import anchor_by
from holdfast.audit.keys import KeyHome
from holdfast.audit.wal import Level, WriteAheadLog
from holdfast.cli.audit.writing import open_log
from holdfast.config import load_config
from holdfast.core.clock import ManualClock, SystemClock
from holdfast.core.errors import AnchorUnreachable, BadInput, ConfigError


def written(tmp_path, text):
    path = tmp_path / "holdfast.toml"
    path.write_text(text)
    return path


def test_sinks_and_their_pace_are_read(tmp_path):
    """The list of sinks and the seconds between two submissions arrive as written; none is the default."""
    path = written(
        tmp_path, '[anchors]\nevery_secs = 5\nsinks = [\n  "file:/mnt/b",\n  "s3://bucket/x",\n]\n'
    )
    anchors = load_config(path, environ={}).anchors
    assert (anchors.sinks, anchors.every_secs) == (("file:/mnt/b", "s3://bucket/x"), 5)
    assert load_config(written(tmp_path, ""), environ={}).anchors.sinks == ()


def test_all_problems_are_told_at_once(tmp_path):
    """A wrong kind, a wrong pace and an unknown key are listed together, with lines and suggestions."""
    path = written(tmp_path, '[anchors]\nsinks = ["files:/mnt/b"]\nevery_secs = 0\nsink = "x"\n')
    with pytest.raises(ConfigError) as refused:
        load_config(path, environ={})
    said = str(refused.value)
    assert "3 problems" in said
    assert "line 2    anchors.sinks" in said
    assert "expected file:DIRECTORY" in said
    assert "line 3    anchors.every_secs = 0" in said
    assert "Did you mean anchors.sinks?" in said


@pytest.mark.parametrize(
    ("sinks", "named"),
    [
        ('"file:/mnt/b"', "expected a list"),
        ("[]", "expected a list"),
        ("[1]", "expected text"),
        ('["witness:http://w"]', "expected witness:URL VKEY"),
        ('["file:/a", "file:/a"]', "named twice"),
    ],
)
def test_sinks_that_are_none_are_named(tmp_path, sinks, named):
    """What is no list of names is refused with what is expected."""
    with pytest.raises(ConfigError, match=named):
        load_config(written(tmp_path, f"[anchors]\nsinks = {sinks}\n"), environ={})


def test_a_writer_does_not_start_without_its_second_volume(tmp_path, monkeypatch):
    """A file sink that is not there keeps the writer from opening: unknown is a no. Once it is there, it opens."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOLDFAST_HOME", str(tmp_path / "home"))
    with open_log(tmp_path / "log") as log:
        log.append("NOTE", {"n": 1})
    written(tmp_path, '[anchors]\nsinks = ["file:volume"]\n')
    with pytest.raises(AnchorUnreachable, match="not there") as refused:
        open_log(tmp_path / "log").open()
    assert refused.value.exit_code == 5
    assert "mount" in refused.value.hint
    (tmp_path / "volume").mkdir(mode=0o700)
    with open_log(tmp_path / "log") as log:
        assert log.append("NOTE", {"n": 2}) > 3


def test_an_anchored_record_waits_for_its_sink(tmp_path):
    """An ANCHORED append returns once a sink has a checkpoint that covers it, and fails where none is reached."""
    home, volume = KeyHome(tmp_path / "home"), tmp_path / "volume"
    volume.mkdir(mode=0o700)
    confirm = anchor_by(tmp_path / "log", home, [f"file:{volume}"], SystemClock())
    with WriteAheadLog(tmp_path / "log", clock=ManualClock(), keys=home, anchor=confirm) as log:
        sequence = log.append("NOTE", {"n": 1}, level=Level.ANCHORED)
        (kept,) = volume.iterdir()
        assert int(kept.read_text().split("\n")[1]) >= sequence
        kept.rename(tmp_path / "away")
        volume.rmdir()
        with pytest.raises(AnchorUnreachable, match="not anchored"):
            log.append("NOTE", {"n": 2}, level=Level.ANCHORED)
        assert log.append("NOTE", {"n": 3}) == sequence + 2, "the record was durable, and the log goes on"


def test_no_sink_is_no_anchor(tmp_path):
    """Without sinks nothing confirms, and the log refuses ANCHORED records by name."""
    home = KeyHome(tmp_path / "home")
    assert anchor_by(tmp_path / "log", home, [], SystemClock()) is None
    log = WriteAheadLog(tmp_path / "log", clock=ManualClock(), keys=home)
    with log, pytest.raises(BadInput, match="ANCHORED"):
        log.append("NOTE", {}, level=Level.ANCHORED)
