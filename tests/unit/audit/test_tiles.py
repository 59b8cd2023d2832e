"""Tiles, written and read; published values are in tests/contract/test_merkle_vectors.py."""

import os
from hashlib import sha256
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.audit.storage import LocalStorage
from holdfast.audit.tiles import (
    TilePlace,
    TileStore,
    parse_tile_path,
    partial_width,
    tile_path,
    tile_reader,
    tile_root,
    write_tiles,
)
from holdfast.audit.tree import Frontier, check_inclusion, inclusion_proof, tree_root
from holdfast.core.errors import AuditCorruption

MOST = 66_300  # one full tile on level 1, and more
LEAVES = [sha256(b"\0leaf %d" % n).digest() for n in range(MOST)]


class Source:
    """Leaf hashes, and which of them were asked for."""

    def __init__(self):
        self.asked = []

    def __call__(self, begin, end):
        self.asked.append((begin, end))
        return iter(LEAVES[begin:end])


def no_leaves(begin, end):
    raise AssertionError(f"asked for leaves {begin} to {end}")


@pytest.fixture(autouse=True)
def no_disk(monkeypatch):
    """Syncing hundreds of small files is slow; one test below looks at the syncs themselves."""
    monkeypatch.setattr("holdfast.audit.storage._sync_all", lambda _: None)


@pytest.fixture
def store(tmp_path):
    directory = LocalStorage().directory(tmp_path / "log", create=True)
    with TileStore(directory) as tiles:
        yield tiles
    directory.close()


def again(store):
    """The same tiles, with nothing remembered."""
    return TileStore(store._log)


def root_of(size):
    frontier = Frontier()
    frontier.extend(LEAVES[:size])
    return frontier.root()


def by_definition(level, number, width):
    """A tile's bytes word by word: the MTH of each run of 256**level leaves."""
    each = 256**level
    tile = b""
    for entry in range(number * 256, number * 256 + width):
        frontier = Frontier()
        frontier.extend(LEAVES[entry * each : (entry + 1) * each])
        tile += frontier.root()
    return tile


def expected_paths(size):
    paths, level = [], 0
    while size >> 8 * level:
        paths += [tile_path(level, number) for number in range(size >> 8 * (level + 1))]
        width = (size >> 8 * level) % 256
        paths += [tile_path(level, size >> 8 * (level + 1), width)] if width else []
        level += 1
    return sorted(paths)


@pytest.mark.parametrize("size", [0, 1, 255, 256, 257, 700, 66_300])
def test_the_tiles_of_a_size_are_exactly_those_of_the_format(store, size):
    """All full tiles and the unfinished one of each level are written, with the bytes of the definition."""
    write_tiles(store, size, Source(), partial=True)
    assert not store._unsynced
    assert again(store).names() == expected_paths(size)
    for path in expected_paths(size):
        place = parse_tile_path(path)
        assert store.read(*place) == by_definition(*place)


def test_without_partial_only_full_tiles_are_written(store):
    """A sealed segment's tiles are the full ones."""
    write_tiles(store, 700, Source(), partial=False)
    assert store.names() == ["tile/0/000", "tile/0/001"]


@given(sizes=st.lists(st.integers(0, 1500), min_size=1, max_size=4), partial=st.booleans())
def test_a_growing_log_has_the_tiles_of_its_last_size(tmp_path_factory, sizes, partial):
    """However a log grew, its tiles are those of its last size: older unfinished ones are gone."""
    directory = LocalStorage().directory(tmp_path_factory.mktemp("log"), create=True)
    with TileStore(directory) as store:
        before = 0
        for size in sorted(sizes):
            write_tiles(store, size, Source(), start=before, partial=partial)
            before = size
        kept = [path for path in expected_paths(before) if partial or ".p/" not in path]
        assert store.names() == TileStore(directory).names() == kept
    directory.close()


def test_few_folders_are_open_at_a_time(store, monkeypatch):
    """However many folders the tiles lie in, the store holds a bounded number of them open."""
    monkeypatch.setattr("holdfast.audit.tiles._OPEN_FOLDERS", 3)
    write_tiles(store, 700, Source(), partial=True)
    store.write(0, 1_234_567, bytes(32))
    store.sync()
    assert store.read(0, 1_234_567, 1) == bytes(32)
    assert len(store._folders) <= 3
    assert store.names() == sorted([*expected_paths(700), "tile/0/x001/x234/567.p/1"])
    read = tile_reader(store, 700, no_leaves)
    assert tree_root(700, read) == root_of(700)
    store.close()
    assert not store._folders
    descriptors = len(list(Path("/proc/self/fd").iterdir()))
    write_tiles(store, 900, Source(), partial=True)
    store.close()
    assert len(list(Path("/proc/self/fd").iterdir())) == descriptors


def test_tiles_that_are_there_are_not_made_again(store):
    """Only the leaves of missing tiles are asked for, in one go where they stand side by side."""
    write_tiles(store, 2000, Source(), partial=True)
    source = Source()
    write_tiles(again(store), 2000, source, partial=True)
    assert source.asked == []
    for number in (2, 3, 5):
        (store._log.path / tile_path(0, number)).unlink()
    write_tiles(again(store), 2100, source, partial=True)
    assert source.asked == [(512, 1024), (1280, 1536), (1792, 2048), (2048, 2100)]
    assert again(store).names() == expected_paths(2100)
    source = Source()
    write_tiles(again(store), 2400, source, start=2100, partial=False)
    assert source.asked == [(2048, 2304)]


def test_an_unfinished_tile_goes_when_it_is_finished(store):
    """An unfinished tile as wide as the new last one is removed all the same when its own place is full."""
    write_tiles(store, 300, Source(), partial=True)
    assert store.has(0, 1, 44)
    write_tiles(store, 556, Source(), start=300, partial=True)
    assert store.names() == again(store).names() == expected_paths(556)


def test_a_killed_writer_leaves_nothing_in_the_way(store):
    """A temporary file of a writer that was killed is replaced, in the place of a full and of a partial tile."""
    write_tiles(store, 300, Source(), partial=True)
    for path in ("tile/0/001.tmp", "tile/0/001.p/77.tmp", "tile/1/000.p/2.tmp"):
        (store._log.path / path).write_bytes(b"half")
    assert len(again(store).names()) == 6
    write_tiles(again(store), 600, Source(), start=300, partial=True)
    assert again(store).names() == expected_paths(600)


def test_temporary_files_are_removed_wherever_they_lie(store):
    """What a killed writer left goes, beside full tiles and partial ones; tiles and foreign files stay."""
    write_tiles(store, 300, Source(), partial=True)
    left = ["tile/0/001.tmp", "tile/0/001.p/77.tmp", "tile/1/000.p/2.tmp", "tile/x.tmp"]
    for path in [*left, "tile/foreign"]:
        (store._log.path / path).write_bytes(b"half")
    tiles = again(store)
    tiles.remove_temporary()
    tiles.sync()
    assert tiles.names() == again(store).names() == sorted([*expected_paths(300), "tile/foreign"])
    tiles.remove_temporary()


def test_a_tile_is_synced_before_it_has_its_name(store, monkeypatch):
    """A tile gets its name after its content is on the disk, and its folder is synced afterwards."""
    calls = []
    monkeypatch.setattr(os, "rename", lambda old, new, **_: calls.append(("rename", new)))

    def fsync(fd):
        calls.append(("sync", str(Path(f"/proc/self/fd/{fd}").readlink()).rpartition("/log/")[2]))

    monkeypatch.setattr("holdfast.audit.storage._sync_all", fsync)
    store.write(0, 0, bytes(8192))
    store.sync()
    assert calls[-3:] == [("sync", "tile/0/000.tmp"), ("rename", "000"), ("sync", "tile/0")]


def test_reading_creates_nothing(store):
    """A reader of a log without tiles leaves no folder behind."""
    assert store.names() == []
    assert store.read(0, 0) is None
    assert not store.has(3, 1_000_000, 7)
    store.remove_partial(0, 0)
    read = tile_reader(store, 300, Source())
    assert tree_root(300, read) == root_of(300)
    assert list(store._log.path.iterdir()) == []


@pytest.mark.parametrize("length", [0, 1, 8191, 8193])
def test_a_tile_of_another_length_is_named(store, length):
    """A tile that is not as long as it must be is damage, named by file and offset."""
    write_tiles(store, 256, Source(), partial=False)
    (store._log.path / "tile/0/000").write_bytes(b"x" * length)
    with pytest.raises(AuditCorruption, match="'tile/0/000'") as error:
        store.read(0, 0)
    assert (error.value.file, error.value.offset) == ("tile/0/000", min(length, 8192))


def test_every_proof_from_tiles_is_the_one_from_records(store):
    """With all tiles, with some and with none, a proof is the same; with all of them no record is read."""
    rng = Random(3)
    print("seed 3")
    write_tiles(store, MOST, Source(), partial=True)
    places = [(rng.randrange(size), size) for size in (MOST, MOST, 65_536, 65_537, 40_000, 256, 255, 1)]
    whole = tile_reader(store, MOST, no_leaves)
    assert tree_root(MOST, whole) == root_of(MOST)
    for removed in ((), ("tile/1",), ("tile/0",), ("tile/0", "tile/1", "tile/2")):
        for level in removed:
            for path in sorted((store._log.path / level).rglob("*"), reverse=True):
                path.rmdir() if path.is_dir() else path.unlink()
        for index, size in places:
            read = tile_reader(again(store), size, Source() if removed or size < MOST else no_leaves)
            path = inclusion_proof(index, size, read)
            check_inclusion(LEAVES[index], index, size, path, root_of(size))


def test_holes_among_the_tiles_are_filled_from_records(store):
    """With tiles missing here and there on every level, the missing hashes come from the records under them."""
    write_tiles(store, MOST, Source(), partial=True)
    for place in ((0, 0), (0, 3), (0, 4), (0, 7), (0, 258, 252), (1, 0), (1, 1, 2)):
        (store._log.path / tile_path(*place)).unlink()
    source = Source()
    read = tile_reader(again(store), MOST, source)
    assert tree_root(MOST, read) == root_of(MOST)
    path = inclusion_proof(4 * 256, MOST, read)
    check_inclusion(LEAVES[4 * 256], 4 * 256, MOST, path, root_of(MOST))
    assert sorted(source.asked) == [(0, 256), (768, 1280), (1024, 1280), (1792, 2048), (66048, 66300)]
    # The tile above is made again from the same mixture, and is the one it was.
    write_tiles(again(store), MOST, Source(), partial=True)
    assert again(store).names() == expected_paths(MOST)
    assert again(store).read(1, 0) == by_definition(1, 0, 256)


def test_an_older_size_is_read_from_tiles_that_have_grown(store):
    """Of a size whose unfinished tile is superseded the full one is read."""
    write_tiles(store, 512, Source(), partial=True)
    read = tile_reader(store, 300, no_leaves)
    assert read(5, 8) == by_peak(5, 8)
    assert tree_root(300, tile_reader(store, 300, Source())) == root_of(300)


def by_peak(level, index):
    frontier = Frontier()
    frontier.extend(LEAVES[index << level : (index + 1) << level])
    return frontier.root()


def test_records_that_end_early_are_named(store):
    """Leaves that end before the asked-for end are damage at the first one missing, not a smaller tree."""

    def few(begin, end):
        return LEAVES[begin : min(end, 270)]

    with pytest.raises(AuditCorruption, match="14 records from sequence 257 on, not 44") as error:
        write_tiles(store, 300, few, partial=True)
    assert error.value.sequence == 271
    with pytest.raises(AuditCorruption):
        tree_root(600, tile_reader(store, 600, few))


def test_what_does_not_belong_is_listed_where_it_lies(store, tmp_path):
    """Foreign files, links, temporary files and wrong forms under tile/ are listed, none of them entered."""
    write_tiles(store, 300, Source(), partial=True)
    base = store._log.path / "tile"
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "000").write_bytes(b"")
    (base / "0" / "x001").symlink_to(tmp_path / "elsewhere")
    (base / "2").write_bytes(b"")
    (base / "entries").mkdir()
    (base / "entries" / "000").write_bytes(b"")
    (base / "0" / "002.tmp").write_bytes(b"")
    (base / "0" / "x000").mkdir()
    (base / "0" / "x000" / "005").write_bytes(b"")
    deep = base.joinpath("1", *["x001"] * 20)
    deep.mkdir(parents=True)
    names = again(store).names()
    assert [name for name in names if parse_tile_path(name) is None] == [
        "tile/0/002.tmp",
        "tile/0/x000/005",
        "tile/0/x001",
        "tile/1/" + "/".join(["x001"] * 8),
        "tile/2",
        "tile/entries",
    ]
    assert [name for name in names if parse_tile_path(name)] == expected_paths(300)


def test_a_link_in_the_place_of_the_tiles_is_listed(store, tmp_path):
    """A link called tile is named, not followed."""
    (tmp_path / "elsewhere").mkdir()
    (store._log.path / "tile").symlink_to(tmp_path / "elsewhere")
    assert again(store).names() == ["tile"]


@given(st.integers(0, 63), st.integers(0, 2**63 - 1), st.integers(1, 256))
def test_a_path_reads_as_it_was_written(level, number, width):
    """Every tile has one path, and that path names it."""
    assert parse_tile_path(tile_path(level, number, width)) == TilePlace(level, number, width)


@pytest.mark.parametrize(
    "text",
    [
        "tile/64/000",
        "tile/00/000",
        "tile/0/0",
        "tile/0/1000",
        "tile/0/x000/000",
        "tile/0/x001/x000/000/",
        "tile/0/000.p/0",
        "tile/0/000.p/256",
        "tile/0/000.p/01",
        "tile/0/000.p",
        "tile/0/000.tmp",
        "tile/0/\u0660\u0660\u0660",
        "tile/entries/000",
        "tile/8/0/000",
        "/tile/0/000",
        "tile/0/" + "x999/" * 7 + "999",
        "tile/0/" + "x999/" * 10_000 + "999",
        "",
    ],
)
def test_no_other_form_names_a_tile(text):
    """Numbers not padded or padded too much, widths of full tiles, and other folders name no tile."""
    assert parse_tile_path(text) is None


def test_widths_follow_the_size():
    """The unfinished tile of a level has as many hashes as the size leaves over."""
    assert [partial_width(level, 70_000) for level in range(4)] == [112, 17, 1, 0]
    assert tile_root(LEAVES[0] + LEAVES[1]) == by_peak(1, 0)
