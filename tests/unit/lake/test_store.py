"""Where a lake lies, and which stores it refuses to lie in."""

import os
import re

import pyarrow as pa
import pytest
from deltalake import write_deltalake
from support.s3 import Fault, FaultProxy, Store, moto_store

from holdfast.core.errors import ArchiveRefused, BadInput, LakeDamaged, LakeRefused, LakeUnreachable
from holdfast.lake.store import SELF_TEST, store_of


@pytest.fixture(scope="module")
def s3():
    with moto_store() as store:
        yield store


@pytest.fixture
def proxy(s3):
    with FaultProxy(s3) as proxy:
        yield proxy


def _through(proxy: FaultProxy, s3: Store) -> dict[str, str]:
    return {**s3.environ, "AWS_ENDPOINT_URL": proxy.endpoint}


def _write(store, name="risk_events", **more):
    write_deltalake(
        store.table_uri(name),
        pa.table({"n": [1, 2, 3]}),
        mode="append",
        storage_options=store.options or None,
        **more,
    )


@pytest.mark.contract("B8")
def test_directory_is_proven_and_nothing_of_the_test_stays(tmp_path):
    """A directory that links and syncs is a store; the self-test leaves no file."""
    store = store_of(str(tmp_path / "lake"))
    store.prove()
    store.prove()
    assert list((tmp_path / "lake").iterdir()) == []


def test_volume_without_links_is_refused(tmp_path, monkeypatch):
    """A volume that knows no hard links cannot hold Delta's commits, and is told so."""

    def no_links(*_):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_links)
    with pytest.raises(LakeRefused, match=r"cannot hold a Delta table: operation not permitted"):
        store_of(str(tmp_path)).prove()


def test_directory_whose_second_link_wins_is_refused(tmp_path, monkeypatch):
    """A file system on which a name can be taken twice is refused."""
    link = os.link

    def careless(one, other):
        other.unlink(missing_ok=True)
        link(one, other)

    monkeypatch.setattr(os, "link", careless)
    with pytest.raises(LakeRefused, match="ignores put-if-absent"):
        store_of(str(tmp_path)).prove()


def test_directory_that_nobody_may_make_is_refused(tmp_path):
    """A lake below a file is refused by name."""
    (tmp_path / "file").write_text("x")
    with pytest.raises(LakeRefused, match="the directory cannot be made: not a directory"):
        store_of(str(tmp_path / "file" / "lake")).prove()


@pytest.mark.contract("X7")
def test_bucket_is_proven_read_and_written(s3):
    """A store that keeps to put-if-absent is accepted, left clean, and holds a table."""
    store = store_of(f"s3://{s3.make(lock=False)}/desk/lake", s3.environ)
    store.prove()
    assert store.listed(SELF_TEST) == (0, 0, 0, 0)
    assert not store.has("risk_events")
    _write(store)
    assert store.has("risk_events")
    assert store.open("risk_events").count() == 3
    listed = store.listed("risk_events")
    assert (listed.log_files, listed.data_files) == (1, 1)
    assert min(listed) > 0


def test_object_is_created_once_and_never_replaced(s3, proxy):
    """`put_new` creates; the same bytes again are fine after a lost answer, other bytes are refused."""
    store = store_of(f"s3://{s3.make(lock=False)}/lake", _through(proxy, s3))
    proxy.faults.append(Fault("lose", times=1))
    store.put_new("fills/x.parquet", b"one")
    assert [method for method, _, _ in proxy.requests].count("PUT") == 2
    with pytest.raises(LakeRefused, match="exists already"):
        store.put_new("fills/x.parquet", b"two")
    assert store.listed("fills").data_bytes == 3


@pytest.mark.contract("X7")
def test_store_that_overwrites_in_spite_of_the_condition_is_refused(s3, proxy):
    """A server that takes If-None-Match and overwrites anyway, as rclone and s3rver do, is refused."""
    proxy.faults.append(Fault("overwrite"))
    url = f"s3://{s3.make(lock=False)}/lake"
    with pytest.raises(LakeRefused, match="ignores put-if-absent and overwrites") as refused:
        store_of(url, _through(proxy, s3)).prove()
    assert refused.value.exit_code == 1


def test_store_that_overwrites_only_where_writers_meet_is_refused(s3, proxy):
    """A server that checks and then writes, without a lock between, is refused by the race."""
    proxy.faults.append(Fault("overwrite", containing="-race"))
    url = f"s3://{s3.make(lock=False)}/lake"
    with pytest.raises(LakeRefused, match="ignores put-if-absent"):
        store_of(url, _through(proxy, s3)).prove()


def test_store_that_returns_other_bytes_is_refused(s3, proxy):
    """A store that returns other bytes than it was given is refused."""
    proxy.faults.append(Fault("flip", "GET", "_selftest/"))
    with pytest.raises(LakeRefused, match="did not return what it was given"):
        store_of(f"s3://{s3.make(lock=False)}/lake", _through(proxy, s3)).prove()


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ("PUT http://s/b/_delta_log/00000000000000000403.json - error sending request", LakeUnreachable),
        (
            "PUT http://s/b/part-1a-4011f.parquet, after 4 retries - status code: 503 Slow Down",
            LakeUnreachable,
        ),
        ("GET http://s/b/x - Server returned non-2xx status code: 403 Forbidden", LakeRefused),
    ],
)
def test_name_of_an_object_is_no_refusal(said, kind):
    """A store that is away is waited for, also where version 403 or a file of that number could not be written."""
    store = store_of("s3://lake/x", {})
    with pytest.raises(kind), store.failures("commit"):
        raise OSError(said)


@pytest.mark.parametrize(("kind", "kept"), [("denied", "access denied"), ("no bucket", "no such bucket")])
def test_store_that_says_no_is_quoted(s3, proxy, kind, kept):
    """What the store refuses is told with its own code."""
    proxy.faults.append(Fault(kind))
    with pytest.raises(LakeRefused, match=f"lake s3://.*{kept}"):
        store_of(f"s3://{s3.make(lock=False)}/lake", _through(proxy, s3)).prove()


def test_store_that_is_away_is_unreachable(s3):
    """Nobody at the endpoint is no refusal: exit code 5, for the self-test and for a table alike."""
    away = {**s3.environ, "AWS_ENDPOINT_URL": "http://127.0.0.1:9"}
    store = store_of("s3://lake/x", away)
    store.options["max_retries"] = "0"
    for ask in (store.prove, lambda: store.open("risk_events"), lambda: store.has("risk_events")):
        with pytest.raises(LakeUnreachable, match="lake s3://lake/x: no usable answer") as why:
            ask()
        assert why.value.exit_code == 5
        assert "\x1b" not in str(why.value)


def test_no_message_and_no_repr_holds_a_secret(s3):
    """The keys stand in no message and no repr."""
    store = store_of("s3://lake/x", {**s3.environ, "AWS_ENDPOINT_URL": "http://127.0.0.1:9"})
    store.options["max_retries"] = "0"
    with pytest.raises(LakeUnreachable) as why:
        store.open("fills")
    assert "testtest" not in f"{why.value}{why.value.hint}{store}{store!r}"


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("", "no lake is named"),
        ("s3://", "is not an address"),
        ("gs://bucket/lake", "is not an address"),
        ("s3://bucket/../x", "unusable prefix"),
        ("data/a%20b", "'%' in its path"),
        ("data/a\nb", r"in its path"),
    ],
)
def test_what_is_no_place_is_refused(uri, said):
    """An address that names no place is refused, and says so of a lake."""
    with pytest.raises(BadInput, match=said) as why:
        store_of(uri, {})
    assert "archive" not in f"{why.value}{why.value.hint}"


def test_endpoint_without_encryption_is_for_this_machine_alone():
    """Plain http to another machine is refused."""
    with pytest.raises(BadInput, match="is not encrypted"):
        store_of("s3://bucket/lake", {"AWS_ENDPOINT_URL": "http://store.example.com"})


def test_file_is_no_lake(tmp_path):
    """A file in the place of the lake is named."""
    (tmp_path / "x").write_text("")
    with pytest.raises(BadInput, match="is not a directory"):
        store_of(str(tmp_path / "x"))


def test_place_without_a_table_is_named(tmp_path):
    """A directory without Delta's log is no table, and the hint says what is expected."""
    (tmp_path / "fills").mkdir()
    for name in ("fills", "orders"):
        with pytest.raises(BadInput, match="there is no Delta table") as why:
            store_of(str(tmp_path)).open(name)
        assert "risk_events" in why.value.hint
        assert str(why.value).endswith("the directory holds none")
    with pytest.raises(BadInput, match=r"\(open 'fills'\): the directory does not exist"):
        store_of(str(tmp_path / "nowhere")).open("fills")


@pytest.mark.parametrize("archives", ["make the bucket with object lock", "give it s3:PutObjectRetention"])
def test_a_lake_asks_for_no_lock(tmp_path, archives):
    """What the archive's client advises is said without locks and retention, which no lake has."""
    with pytest.raises(LakeRefused) as why, store_of(str(tmp_path))._as_lake():
        raise ArchiveRefused("the store refused", hint=archives)
    assert why.value.hint
    assert not re.search("lock|Retention", why.value.hint)


@pytest.mark.contract("B8")
def test_torn_log_is_damage(tmp_path):
    """A commit cut in the middle is damage, with exit code 3, and the hint says how to come back."""
    store = store_of(f"file://{tmp_path}")
    _write(store)
    commit = tmp_path / "risk_events" / "_delta_log" / "00000000000000000000.json"
    commit.write_bytes(commit.read_bytes()[:-40])
    with pytest.raises(LakeDamaged, match="damaged") as why:
        store.open("risk_events")
    assert why.value.exit_code == 3
    assert "rebuild" in why.value.hint
