from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.audit.tree import EMPTY_ROOT, Frontier


def by_definition(entries: list[bytes]) -> bytes:
    """MTH of RFC 9162, 2.1.1, word by word."""
    if not entries:
        return sha256(b"").digest()
    if len(entries) == 1:
        return sha256(b"\0" + entries[0]).digest()
    split = 1
    while split * 2 < len(entries):
        split *= 2
    return sha256(b"\1" + by_definition(entries[:split]) + by_definition(entries[split:])).digest()


# Roots of the trees over the first n of these entries, as certificate transparency implementations publish them.
ENTRIES = [
    bytes.fromhex(text)
    for text in (
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    )
]
ROOTS = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]


@pytest.mark.parametrize("size", range(9))
def test_root_is_the_published_one(size):
    """The roots of sizes 0 to 8 are the published ones."""
    frontier = Frontier()
    for entry in ENTRIES[:size]:
        frontier.append(sha256(b"\0" + entry).digest())
    assert frontier.root().hex() == ROOTS[size]


@given(batches=st.lists(st.integers(0, 40), max_size=8))
def test_root_is_the_same_however_the_leaves_came(batches):
    """Appending one by one, in batches and by the definition gives one root."""
    entries = [bytes([number % 251]) * 3 for number in range(sum(batches))]
    single, many = Frontier(), Frontier()
    taken = 0
    for batch in batches:
        leaves = [sha256(b"\0" + entry).digest() for entry in entries[taken : taken + batch]]
        many.extend(leaves)
        for leaf in leaves:
            single.append(leaf)
        taken += batch
    assert single.size == many.size == len(entries)
    assert single.root() == many.root() == by_definition(entries)


def test_empty_tree_has_the_hash_of_nothing():
    """The root over no leaves is SHA-256 of nothing."""
    assert Frontier().root() == EMPTY_ROOT == sha256(b"").digest()


def test_copy_is_independent():
    """A copy does not change with its original."""
    frontier = Frontier()
    frontier.extend([bytes([n]) * 32 for n in range(5)])
    twin = frontier.copy()
    before = twin.root()
    frontier.append(b"\5" * 32)
    assert (twin.size, twin.root()) == (5, before)
