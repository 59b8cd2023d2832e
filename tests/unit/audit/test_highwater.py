from pathlib import Path
from random import Random

import pytest

from holdfast.audit.highwater import (
    SLOT_BYTES,
    HighWater,
    decode_page,
    decode_slot,
    encode_slot,
    read_high_water,
)
from holdfast.audit.note import Checkpoint, SigningKey, sign_note
from holdfast.audit.storage import LocalStorage
from holdfast.audit.tree import Frontier
from holdfast.core.errors import BadInput
from holdfast.testing.storage import SimulatedStorage

KEY = SigningKey("holdfast/" + "ab" * 16, bytes(32))


def at(size: int) -> tuple[bytes, Frontier]:
    frontier = Frontier()
    for number in range(size):
        frontier.append(number.to_bytes(32, "big"))
    return sign_note(Checkpoint(KEY.name, size, frontier.root()).text(), KEY), frontier


def test_mark_is_read_back_with_its_bookmark():
    """What was written is read back: note, checkpoint, offset, and a tree with the checkpoint's root."""
    note, frontier = at(1000)
    mark = decode_slot(encode_slot(7, note, 4711, frontier.peaks()))
    assert (mark.writes, mark.note, mark.checkpoint.size, mark.end_offset) == (7, note, 1000, 4711)
    assert mark.frontier.root() == mark.checkpoint.root == frontier.root()


@pytest.mark.parametrize("position", range(0, SLOT_BYTES, 7))
def test_changed_byte_makes_a_slot_invalid(position):
    """One changed byte anywhere in a slot, its filling included, and the slot says nothing."""
    slot = bytearray(encode_slot(1, *at(5)[:1], 100, at(5)[1].peaks()))
    slot[position] ^= 1
    assert decode_slot(bytes(slot)) is None


def test_peaks_that_do_not_give_the_root_are_no_bookmark():
    """A mark whose peaks belong to another tree still counts, but nobody starts from it."""
    note, _ = at(6)
    _, other = at(12)
    mark = decode_slot(encode_slot(1, note, 100, other.peaks()))
    assert (mark.checkpoint.size, mark.end_offset, mark.frontier) == (6, 0, None)


def test_the_deepest_tree_still_fits():
    """The peaks of a tree with 2**30 - 1 records fit beside a note with two signatures and a long name."""
    name = "x" * 64 + "/" + "ab" * 16
    keys = [SigningKey(name, bytes([number]) * 32) for number in range(2)]
    note = sign_note(Checkpoint(name, 2**30 - 1, bytes(32)).text(), *keys)
    assert len(encode_slot(1, note, 2**40, [bytes(32)] * 30)) == SLOT_BYTES
    with pytest.raises(BadInput, match="too long for the high-water mark"):
        encode_slot(1, note * 4, 1, [bytes(32)] * 30)


@pytest.mark.invariant("I8")
def test_a_crash_leaves_the_mark_before_or_the_one_after():
    """Whatever a power cut leaves of a write, the page says the old or the new mark, never less and never else."""
    disk, random = SimulatedStorage(), Random(3)
    directory = disk.directory(Path("/keys"), create=True)
    page = HighWater(directory)
    page.write(at(3)[0], 1, at(3)[1])
    states = []
    disk.on_call = lambda *_: states.extend(disk.after_power_cut(random) for _ in range(40))
    page.write(at(9)[0], 2, at(9)[1])
    disk.on_call = None
    sizes = set()
    for state in [*states, disk.after_power_cut(random)]:
        content = bytes(state.content(Path("/keys"))["high-water"])
        sizes.add(decode_page(content).checkpoint.size)
    assert sizes == {3, 9}


def test_reader_takes_the_newest_valid_slot(tmp_path):
    """The newest checkpoint is the one of the slot written last; with that slot damaged, the one before."""
    directory = LocalStorage().directory(tmp_path / "keys", create=True)
    path = tmp_path / "keys" / "high-water"
    assert read_high_water(path) is None
    page = HighWater(directory)
    assert read_high_water(path) is None
    for size in (3, 9, 10):
        page.write(at(size)[0], 1, at(size)[1])
    page.close()
    assert read_high_water(path) == at(10)[0]
    again = HighWater(directory)
    assert again.found.checkpoint.size == 10
    again.write(at(11)[0], 1, at(11)[1])
    content = bytearray(path.read_bytes())
    content[5] ^= 1  # writes 1 and 3 went to the second slot, 2 and 4 to the first
    path.write_bytes(content)
    assert read_high_water(path) == at(10)[0]
