"""Tree, proofs, notes, checkpoints and tiles against values that other projects published.

Left out, and said so by the first test: subtree inclusion (204 vectors) and subtree consistency (118); the log
has no use for proofs about subtrees.
"""

import json
from base64 import b64decode
from contextlib import nullcontext
from functools import cache
from hashlib import sha256

import pytest
from support.data import require

from holdfast.audit.note import (
    Checkpoint,
    SigningKey,
    VerifierKey,
    open_note,
    parse_checkpoint,
    sign_note,
)
from holdfast.audit.storage import LocalStorage
from holdfast.audit.tiles import (
    TileStore,
    parse_tile_path,
    partial_width,
    tile_path,
    tile_reader,
    write_tiles,
)
from holdfast.audit.tree import (
    Frontier,
    check_consistency,
    check_inclusion,
    consistency_proof,
    inclusion_proof,
    node_hash,
    tree_root,
)
from holdfast.core.errors import BadInput

pytestmark = pytest.mark.data

LEFT_OUT = {"transparency_dev_subtreeinclusion.json": 204, "transparency_dev_subtreeconsistency.json": 118}
USED = {
    "transparency_dev_inclusion.json",
    "transparency_dev_consistency.json",
    "transparency_dev_tree8.json",
    "go_tlog_leaf_i.json",
    "signed_note.json",
    "checkpoint_cosig_proof.json",
    "tiles_and_tree_notes.json",
    "tessera_log15.json",
    "sigstore_inclusion.json",
}


@cache
def vectors(name):
    return json.loads(require("merkle", name).read_text())


def raw(text):
    return b64decode(text or "")


def hashes(texts):
    return [raw(text) for text in texts or []]


def refused(unless):
    return nullcontext() if unless else pytest.raises(BadInput)


def test_every_file_of_vectors_is_used_or_named(capsys):
    """No file of vectors is passed over without a word."""
    files = {path.name for path in require("merkle").glob("*.json")} - {"INDEX.json"}
    assert files == USED | LEFT_OUT.keys()
    for name, count in LEFT_OUT.items():
        assert len(vectors(name)["vectors"]) == count
        with capsys.disabled():
            print(f"\nleft out: {name}, {count} vectors: the log has no use for proofs about subtrees")


# -- proofs ------------------------------------------------------------------------------------------------


@pytest.mark.contract("X2")
def test_inclusion_proofs_are_judged_as_published():
    """98 inclusion proofs are accepted or refused as transparency-dev says, the empty leaf and root refused."""
    seen = {True: 0, False: 0}
    for vector in vectors("transparency_dev_inclusion.json")["vectors"]:
        with refused(unless=not vector["wantErr"]):
            check_inclusion(
                raw(vector["leafHash"]),
                vector["leafIdx"],
                vector["treeSize"],
                hashes(vector["proof"]),
                raw(vector["root"]),
            )
        seen[vector["wantErr"]] += 1
    assert seen == {False: 6, True: 92}


@pytest.mark.contract("X2")
def test_consistency_proofs_are_judged_as_published():
    """98 consistency proofs are accepted or refused as transparency-dev says, old size 0 refused."""
    seen = {True: 0, False: 0}
    for vector in vectors("transparency_dev_consistency.json")["vectors"]:
        with refused(unless=not vector["wantErr"]):
            check_consistency(
                vector["size1"],
                raw(vector["root1"]),
                vector["size2"],
                raw(vector["root2"]),
                hashes(vector["proof"]),
            )
        seen[vector["wantErr"]] += 1
    assert seen == {False: 6, True: 92}


def test_the_tree_of_eight_leaves_is_the_published_one():
    """Every node and every root of the classic tree is the published one; no last node is ever doubled."""
    tree = vectors("transparency_dev_tree8.json")
    leaves = [sha256(b"\0" + bytes.fromhex(text)).digest() for text in tree["leaf_inputs_hex"]]
    levels = levels_over(leaves)
    assert [[node.hex() for node in level] for level in levels] == tree["node_hashes_hex_by_level"]
    for size, root in enumerate(tree["root_hashes_hex_by_size"]):
        frontier = Frontier()
        frontier.extend(leaves[:size])
        assert frontier.root().hex() == root == tree_root(size, reader_of(levels)).hex()


@pytest.mark.parametrize("vector", range(17))
def test_rekor_proofs_hold(vector):
    """A proof that Sigstore's public logs gave holds, and does not for another leaf."""
    case = vectors("sigstore_inclusion.json")["vectors"][vector]
    leaf = sha256(b"\0" + raw(case["canonicalized_body_b64"])).digest()
    path, root = hashes(case["hashes_b64"]), raw(case["root_b64"])
    check_inclusion(leaf, case["log_index"], case["tree_size"], path, root)
    if case["checkpoint"]:
        text = case["checkpoint"].encode().partition(b"\n\n")[0] + b"\n"
        assert parse_checkpoint(text)[1:3] == (case["tree_size"], root)
    with pytest.raises(BadInput, match="leads to root"):
        check_inclusion(sha256(leaf).digest(), case["log_index"], case["tree_size"], path, root)


def levels_over(leaves):
    """Every perfect subtree over *leaves*: by level, then by index."""
    levels = [leaves]
    while len(levels[-1]) > 1:
        below = levels[-1]
        levels.append([node_hash(left, right) for left, right in zip(below[::2], below[1::2], strict=False)])
    return levels


def reader_of(levels):
    return lambda level, index: levels[level][index]


@cache
def go_levels():
    return levels_over([sha256(b"\0leaf %d" % index).digest() for index in range(70_000)])


@pytest.mark.contract("X2")
def test_roots_are_those_of_go():
    """318 roots of trees up to 70,000 leaves are the ones that Go's tlog computes."""
    roots = vectors("go_tlog_leaf_i.json")["roots_b64_by_size"]
    assert len(roots) == 318
    frontier, leaves = Frontier(), go_levels()[0]
    for size in sorted(map(int, roots)):
        frontier.extend(leaves[frontier.size : size])
        assert frontier.root() == raw(roots[str(size)]) == tree_root(size, reader_of(go_levels()))


@pytest.mark.contract("X2")
def test_proofs_are_those_of_go():
    """120 inclusion and 120 consistency proofs are the ones that Go's tlog makes, and hold."""
    given, read = vectors("go_tlog_leaf_i.json"), reader_of(go_levels())
    assert len(given["record_proofs"]) == len(given["tree_proofs"]) == 120
    for case in given["record_proofs"]:
        path = inclusion_proof(case["index"], case["size"], read)
        assert path == hashes(case["proof_b64"])
        check_inclusion(read(0, case["index"]), case["index"], case["size"], path, raw(case["root_b64"]))
    for case in given["tree_proofs"]:
        path = consistency_proof(case["size1"], case["size2"], read)
        assert path == hashes(case["proof_b64"])
        check_consistency(case["size1"], raw(case["root1_b64"]), case["size2"], raw(case["root2_b64"]), path)


# -- notes -------------------------------------------------------------------------------------------------


@pytest.mark.contract("X2")
def test_notes_are_opened_as_published():
    """14 notes are opened or refused as Go and C2SP say, each signature counted once."""
    cases = vectors("signed_note.json")["note_open"]
    assert len(cases) == 14
    for case in cases:
        keys = [VerifierKey.parse(text) for text in case["keys"]]
        with refused(unless=case["want"] == "ok"):
            opened = open_note(raw(case["note_b64"]), keys)
            assert [key.name for key in opened.verified] == case["verified"], case["desc"]
            assert [signature.name for signature in opened.unknown] == case["unverified"], case["desc"]


def test_verifier_keys_are_read_as_published():
    """Good verifier keys are read and written back; cut or changed by one byte anywhere they are refused."""
    given = vectors("signed_note.json")
    for text in given["vkeys_good"]:
        assert str(VerifierKey.parse(text)) == text
        cuts = {text[start:end] for start in range(len(text)) for end in range(start, len(text) + 1)}
        changed = {text[:at] + chr(ord(text[at]) + 1) + text[at + 1 :] for at in range(len(text))}
        for bad in (cuts | changed) - {text}:
            with pytest.raises(BadInput):
                VerifierKey.parse(bad)
    for text in given["vkeys_bad"]:
        with pytest.raises(BadInput):
            VerifierKey.parse(text)


def test_signing_gives_the_published_note():
    """The same seed, name and text give the published note, byte for byte."""
    case = vectors("signed_note.json")["sign"]
    key = SigningKey(case["key_name"], raw(case["seed_b64"]))
    assert sign_note(raw(case["text_b64"]), key) == raw(case["want_note_b64"])


def test_a_checkpoint_of_the_go_checksum_database_is_read():
    """The checkpoint of sum.golang.org verifies and says its size."""
    case = vectors("signed_note.json")["real_checkpoint"]
    opened = open_note(raw(case["note_b64"]), [VerifierKey.parse(case["vkey"])])
    assert parse_checkpoint(opened.text)[:2] == ("go.sum database tree", 35225469)


def test_checkpoints_are_read_as_published():
    """11 checkpoint texts are read and written back, or refused, as transparency-dev says."""
    cases = vectors("checkpoint_cosig_proof.json")["checkpoint_parse"]
    assert len(cases) == 11
    for case in cases:
        with refused(unless=not case["wantErr"]):
            checkpoint = parse_checkpoint(case["text"].encode())
            want = case["want"]
            assert checkpoint == Checkpoint(
                want["origin"], want["size"], raw(want["hash_b64"]), want["rest"]
            ), case["desc"]
            assert checkpoint.text() == case["text"].encode()


def test_tree_notes_of_go_are_read_as_published():
    """Go's tree note is read; another origin, a hexadecimal size and a long root are not taken for it."""
    case = vectors("tiles_and_tree_notes.json")["tree_note"]
    checkpoint = parse_checkpoint(case["text"].encode())
    assert checkpoint.origin == "go.sum database tree"
    assert checkpoint.size == case["size"]
    assert checkpoint.root == sha256(b"\0" + case["leaf_data"].encode()).digest()
    for bad in case["bad"]:
        try:
            other = parse_checkpoint(bad.encode())
        except BadInput:
            continue
        assert other.origin != checkpoint.origin or len(other.root) != 32, bad


def test_cosigner_keys_are_read_as_published():
    """Cosigner keys are read or refused as published, the one whose id is not its hash refused."""
    for case in vectors("checkpoint_cosig_proof.json")["cosignature_vkeys"]:
        strict = case.get("strict_want") == "either"
        with refused(unless=not case["wantErr"] and not strict):
            assert str(VerifierKey.parse(case["vkey"])) == case["vkey"]


def test_checkpoints_of_a_tessera_log_verify_and_no_changed_byte_does():
    """All 16 checkpoints of a foreign log verify with its key; with any byte changed none does."""
    log = vectors("tessera_log15.json")
    key = VerifierKey.parse(log["vkey"])
    for size in range(16):
        note = raw(log["files_b64"][f"checkpoint.{size}"])
        assert parse_checkpoint(open_note(note, [key]).text).size == size
        for at in range(len(note)) if size == 15 else ():
            with pytest.raises(BadInput):
                open_note(note[:at] + bytes([note[at] ^ 1]) + note[at + 1 :], [key])


# -- tiles -------------------------------------------------------------------------------------------------


def test_tile_paths_are_the_published_ones(capsys):
    """Tile numbers are spelled as C2SP and Go spell them; Go's bad paths are not taken for a tile."""
    given = vectors("tiles_and_tree_notes.json")
    for case in given["c2sp_tile_index_paths"]:
        assert tile_path(0, case["index"]) == f"tile/0/{case['path']}"
    for case in given["go_tile_paths"]:
        without_height = "tile/" + case["path"].split("/", 2)[2]
        if case.get("reject"):
            assert parse_tile_path(without_height) is None
            continue
        width = case["W"] if ".p/" in case["path"] else 256
        assert tile_path(case["L"], case["N"], width) == without_height
        assert parse_tile_path(without_height) == (case["L"], case["N"], width)
    with capsys.disabled():
        print(f"\nleft out: {len(given['new_tiles_count_h10'])} counts of tiles of height 10; ours have 8")


def test_a_size_has_the_published_tiles():
    """A size implies as many full and unfinished tiles as C2SP says."""
    for case in vectors("tiles_and_tree_notes.json")["c2sp_tiles_for_size"]:
        found = [
            {
                "level": level,
                "full": case["size"] >> 8 * (level + 1),
                "partial": partial_width(level, case["size"]),
            }
            for level in range(len(case["tiles"]))
        ]
        assert found == case["tiles"]
        assert case["size"] >> 8 * len(case["tiles"]) == 0


@pytest.mark.contract("X2")
def test_tiles_are_those_of_go(tmp_path):
    """443 tiles of logs up to 70,000 records have the bytes that Go's tlog computes."""
    cases = vectors("go_tlog_leaf_i.json")["tiles_height8"]
    assert len(cases) == 443
    leaves, before = go_levels()[0], 0
    directory = LocalStorage().directory(tmp_path / "log", create=True)
    with TileStore(directory) as store:
        for size, case in sorted(
            ((case["n"] * 256 + case["w"] << 8 * case["level"], case) for case in cases),
            key=lambda pair: pair[0],
        ):
            assert size <= case["size"]  # the first size at which the log has this tile
            write_tiles(store, size, lambda start, end: leaves[start:end], start=before, partial=True)
            before = size
            tile = store.read(case["level"], case["n"], case["w"])
            assert sha256(b"\0" + tile).digest() == raw(case["sha256_of_tile"])
            assert (tile[:32], tile[-32:]) == (raw(case["first_hash_b64"]), raw(case["last_hash_b64"]))
            assert "tile/8" + tile_path(case["level"], case["n"], case["w"])[4:] == case["go_path"]
    directory.close()


def test_the_tiles_of_a_tessera_log_give_its_roots(tmp_path):
    """The tiles of a foreign log, where they lie, lead to every root that it signed."""
    log = vectors("tessera_log15.json")
    files = {name: raw(text) for name, text in log["files_b64"].items()}
    for name, content in files.items():
        if parse_tile_path(name):
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_bytes(content)
    bundle = files["tile/entries/000.p/15"]
    leaves = []
    while bundle:
        length = int.from_bytes(bundle[:2], "big")
        leaves.append(sha256(b"\0" + bundle[2 : 2 + length]).digest())
        bundle = bundle[2 + length :]
    directory = LocalStorage().directory(tmp_path, create=False)
    with TileStore(directory) as store:
        assert store.read(0, 0, 15) == b"".join(leaves)
        for size in range(16):
            checkpoint = parse_checkpoint(
                open_note(files[f"checkpoint.{size}"], [VerifierKey.parse(log["vkey"])]).text
            )
            read = tile_reader(store, size, lambda start, end: leaves[start:end])
            assert tree_root(size, read) == checkpoint.root
    directory.close()
