from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.audit.tree import (
    EMPTY_ROOT,
    Frontier,
    Span,
    check_consistency,
    check_inclusion,
    consistency_proof,
    inclusion_proof,
    node_hash,
    peak_places,
    tree_root,
)
from holdfast.core.errors import BadInput


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


# -- spans, peaks and proofs: an independent reading of RFC 9162 stands beside ours -----------------------------

MOST = 70
LEAVES = [sha256(b"\0leaf %d" % n).digest() for n in range(MOST)]


def mth(start: int, end: int) -> bytes:
    """MTH(D[start:end]) over LEAVES, word by word."""
    if end - start == 1:
        return LEAVES[start]
    split = 1
    while split * 2 < end - start:
        split *= 2
    return sha256(b"\1" + mth(start, start + split) + mth(start + split, end)).digest()


def read(level: int, index: int) -> bytes:
    """The perfect subtree at a place, by the definition."""
    return mth(index << level, (index + 1) << level)


ROOTS_OF_LEAVES = [EMPTY_ROOT, *(mth(0, size) for size in range(1, MOST + 1))]


def frontier_of(size: int) -> Frontier:
    frontier = Frontier()
    frontier.extend(LEAVES[:size])
    return frontier


def test_every_span_joins_to_the_same_tree():
    """Leaves that were hashed apart, from any start to any end, give the same tree as leaves hashed in a row."""
    for size in range(MOST + 1):
        for start in range(size + 1):
            span = Span(start)
            span.extend(LEAVES[start:size])
            frontier = frontier_of(start)
            frontier.join(span.nodes())
            assert (frontier.size, frontier.root()) == (size, ROOTS_OF_LEAVES[size]), (start, size)
            assert len(span.nodes()) <= 2 * max(1, size.bit_length())


@given(start=st.integers(0, 20), batches=st.lists(st.integers(0, 17), max_size=6))
def test_a_span_is_the_same_however_its_leaves_came(start, batches):
    """A span holds exactly the perfect subtrees that its leaves fill, whatever the batches."""
    span, once, end = Span(start), Span(start), min(MOST, start + sum(batches))
    at = start
    for batch in batches:
        span.extend(LEAVES[at : min(MOST, at + batch)])
        at += batch
    once.extend(LEAVES[start:end])
    assert (span.start, span.size, span.nodes()) == (start, end - start, once.nodes())
    assert all(subtree == read(level, index) for level, index, subtree in span.nodes())
    edges = [start, *((index + 1) << level for level, index, _ in span.nodes())]
    assert edges[:-1] == [index << level for level, index, _ in span.nodes()]
    assert edges[-1] == end


def test_a_span_that_begins_elsewhere_is_refused():
    """A span joins only where the frontier ends."""
    span = Span(3)
    span.extend(LEAVES[3:9])
    for size in (2, 4):
        with pytest.raises(BadInput, match=f"at leaf 3, not at {size}"):
            frontier_of(size).join(span.nodes())


def test_a_frontier_is_taken_up_from_its_peaks():
    """A frontier made of another's size and peaks goes on like it; other counts and lengths are refused."""
    for size in range(MOST):
        peaks = [read(level, index) for level, index in peak_places(size)]
        assert frontier_of(size).peaks() == peaks
        frontier = Frontier.of(size, peaks)
        assert frontier.root() == ROOTS_OF_LEAVES[size]
        frontier.append(LEAVES[size])
        assert frontier.root() == ROOTS_OF_LEAVES[size + 1]
    for size, peaks in ((0, [b"\0" * 32]), (3, [b"\0" * 32]), (2, [b"\0" * 31]), (-1, [b"\0" * 32])):
        with pytest.raises(BadInput):
            Frontier.of(size, peaks)


def test_the_peaks_given_away_are_a_copy():
    """What a caller does to the peaks it got does not change the frontier."""
    frontier = frontier_of(5)
    frontier.peaks().clear()
    assert frontier.root() == ROOTS_OF_LEAVES[5]


def test_every_inclusion_proof_holds_for_its_leaf_and_place_alone():
    """A leaf's proof is as long as RFC 9162 says, holds, and holds for no other leaf, place, size or root."""
    for size in range(1, MOST + 1):
        assert tree_root(size, read) == ROOTS_OF_LEAVES[size]
        for index in range(size):
            path = inclusion_proof(index, size, read)
            check_inclusion(LEAVES[index], index, size, path, ROOTS_OF_LEAVES[size])
            others = {(index + 1, size), (index - 1, size), (index ^ 1, size), (-1, size), (index, index)}
            for place, length in others:
                with pytest.raises(BadInput):
                    check_inclusion(LEAVES[index], place, length, path, ROOTS_OF_LEAVES[size])
            for bad in (path[1:], path[:-1], [*path, LEAVES[0]], [LEAVES[0], *path], path[::-1]):
                if bad != path:
                    with pytest.raises(BadInput):
                        check_inclusion(LEAVES[index], index, size, bad, ROOTS_OF_LEAVES[size])


def test_every_consistency_proof_holds_for_its_trees_alone():
    """A proof between two sizes holds, and holds for no other roots, lengths or sizes that need another one."""
    for new in range(1, MOST + 1):
        for old in range(1, new + 1):
            path = consistency_proof(old, new, read)
            roots = ROOTS_OF_LEAVES[old], ROOTS_OF_LEAVES[new]
            check_consistency(old, roots[0], new, roots[1], path)
            for bad in (path[1:], path[:-1], [*path, LEAVES[0]], [LEAVES[0], *path], path[::-1]):
                if bad != path:
                    with pytest.raises(BadInput):
                        check_consistency(old, roots[0], new, roots[1], bad)
            if old < new:
                with pytest.raises(BadInput):
                    check_consistency(old, roots[1], new, roots[1], path)
                with pytest.raises(BadInput):
                    check_consistency(old, roots[0], new, roots[0], path)
                with pytest.raises(BadInput):
                    check_consistency(new, roots[1], old, roots[0], path)


def test_a_forked_tree_has_no_consistency_proof():
    """Whatever hashes of either tree one tries, a tree that changed an old leaf does not follow from the old one."""
    forked = [*LEAVES[:3], LEAVES[0], *LEAVES[4:7]]
    frontier = Frontier()
    frontier.extend(forked)
    for path in (consistency_proof(5, 7, read), [LEAVES[4], LEAVES[5], LEAVES[6], mth(0, 4)]):
        with pytest.raises(BadInput):
            check_consistency(5, ROOTS_OF_LEAVES[5], 7, frontier.root(), path)


def test_the_empty_tree_begins_every_tree_but_proves_nothing():
    """From nothing no proof is needed and none is accepted; sizes that fall or are negative have none."""
    assert consistency_proof(0, 5, read) == []
    with pytest.raises(BadInput):
        check_consistency(0, EMPTY_ROOT, 5, ROOTS_OF_LEAVES[5], [])
    for old, new in ((6, 5), (-1, 5)):
        with pytest.raises(BadInput):
            consistency_proof(old, new, read)
    for index in (-1, 5):
        with pytest.raises(BadInput):
            inclusion_proof(index, 5, read)


def test_a_path_that_is_too_long_is_refused_whatever_it_leads_to():
    """A path with a hash too many is refused even where it leads to the root that was given."""
    leaf, other = LEAVES[:2]
    for root in (node_hash(leaf, other), node_hash(other, leaf)):
        with pytest.raises(BadInput, match="too many"):
            check_inclusion(leaf, 0, 1, [other], root)
    pair = node_hash(leaf, other)
    with pytest.raises(BadInput, match="too many"):
        check_consistency(1, node_hash(other, leaf), 2, node_hash(other, pair), [leaf, other])
    with pytest.raises(BadInput, match="too many"):
        check_consistency(1, leaf, 2, node_hash(LEAVES[2], pair), [other, LEAVES[2]])


def test_hashes_of_other_lengths_are_refused():
    """Empty, short and long hashes are refused wherever one is hashed, an empty leaf under an empty root too."""
    good = LEAVES[1]
    for bad in (b"", good[:-1], good + b"\0"):
        for leaf, path, root in (
            (bad, [], bad),
            (bad, [good], good),
            (good, [bad], good),
            (good, [good], bad),
        ):
            with pytest.raises(BadInput, match="bytes, not 32"):
                check_inclusion(leaf, 0, len(path) + 1, path, root)
            with pytest.raises(BadInput, match="bytes, not 32"):
                check_consistency(1, leaf, 2, root, path or [good])


@given(st.integers(-2, 2**70), st.integers(-2, 2**70), st.lists(st.binary(max_size=33), max_size=80))
def test_no_proof_makes_the_check_fail_otherwise(index, size, path):
    """Numbers and hashes from anywhere are accepted or refused with BadInput, nothing else."""
    for check in (
        lambda: check_inclusion(LEAVES[0], index, size, path, LEAVES[1]),
        lambda: check_consistency(index, LEAVES[0], size, LEAVES[1], path),
    ):
        with pytest.raises(BadInput):
            check()
