"""The one-file verifier, written from the format page, and ours say the same of every log.

The page decides where they differ. Fields compared: the verdict, the first bad thing with sequence, file and
offset, and, where no record is bad, state, log id, root and the ranges.
"""

import ast
import base64
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import time
import zlib
from pathlib import Path
from random import Random

import pytest

from holdfast.anchors.read import read_anchor
from holdfast.audit.keys import KeyHome, LogKey
from holdfast.audit.note import VerifierKey, sign_note
from holdfast.audit.prove import Prover
from holdfast.audit.schemas import KeyDetails
from holdfast.audit.signing import LogSigner
from holdfast.audit.verify import verify
from holdfast.audit.wal import WriteAheadLog
from holdfast.core.clock import ManualClock
from holdfast.core.errors import TradingError

pytestmark = [pytest.mark.contract("X2"), pytest.mark.invariant("I8")]

ROOT = Path(__file__).parents[2]
TOOL = ROOT / "tools/holdfast_verify.py"
VECTORS = ROOT / "vectors/journal"
VERDICTS = json.loads((VECTORS / "verdicts.json").read_bytes())
NOTHING = {
    "integrity_ok": False,
    "needs_recovery": False,
    "anchored_to": 0,
    "signed_to": 0,
    "unknown_key_to": 0,
    "archived_to": 0,
    "first_bad_sequence": None,
    "first_bad_file": None,
    "first_bad_offset": None,
}
VERDICT = ("integrity_ok", "needs_recovery", "first_bad_sequence", "first_bad_file", "first_bad_offset")
RANGES = ("anchored_to", "signed_to", "unknown_key_to", "archived_to")


def load(path):
    """A script of the project as a module."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


tool = load(TOOL)
make = load(VECTORS / "make.py")


def lay_down(name, home):
    """The vector *name* as a reader of verdicts.json and logs/ lays it down."""
    vector = VERDICTS[name]
    source = VECTORS / "logs" / vector.get("from", name)
    files = {
        path.relative_to(source).as_posix(): path.read_bytes() for path in source.rglob("*") if path.is_file()
    }
    for file, edit in vector.get("edits", {}).items():
        if edit is None:
            del files[file]
        else:
            offset, removed, put_in = edit
            content = files.get(file, b"")
            files[file] = content[:offset] + base64.b64decode(put_in) + content[offset + removed :]
    home.mkdir()
    make.write(files, home)
    for anchor, content in vector["anchors"].items():
        (home.parent / anchor).write_text(content)
    return vector["checks"]


def ask_tool(home, keys, anchors):
    """Exit code and report of the one-file verifier."""
    try:
        pins, kept = [tool.Key.parse(key) for key in keys], [tool.read_anchor(str(path)) for path in anchors]
        report = tool.Journal(home, pins, kept).verify()
    except tool.Refused as why:
        return 1, {"reason": str(why)}
    return (0 if report["integrity_ok"] else 3), report


def ask_ours(home, keys, anchors):
    """Exit code and report of `verify`."""
    try:
        pins = [VerifierKey.parse(key) for key in keys]
        kept = [anchor for path in anchors for anchor in read_anchor(path)]
        report = verify(home, keys=pins, anchors=kept).to_dict()
    except TradingError as why:
        return why.exit_code, {"reason": str(why)}
    return (0 if report["integrity_ok"] else 3), report


@pytest.mark.parametrize("ask", [ask_tool, ask_ours])
@pytest.mark.parametrize("name", VERDICTS)
def test_vector_gets_its_verdict(name, ask, tmp_path):
    """Every published log gets the verdict that was written down for it, with each set of keys and anchors."""
    for check in lay_down(name, tmp_path / "log"):
        anchors = [tmp_path / anchor for anchor in check["anchors"]]
        code, report = ask(tmp_path / "log", check["keys"], anchors)
        assert code == check["exit"], report
        if code == 1:
            continue
        for field, expected in (NOTHING | check["verdict"]).items():
            if field == "first_bad_file" and str(expected).startswith("anchors/"):
                assert Path(expected).name in report[field], report
            else:
                assert report[field] == expected, (field, report)


def test_vectors_are_what_their_script_makes():
    """Making the vectors again gives the same bytes."""
    for name, content in make.everything().items():
        assert (VECTORS / name).read_bytes() == content, name
    present = {path for path in (VECTORS / "logs").rglob("*") if path.is_file()}
    assert len(present) == len(make.everything()) - 1
    assert sum(path.stat().st_size for path in present) < 400 * 1024


def assert_same(home, keys, what):
    """Both say the same of the log in *home*; *what* was done to it, step by step.

    Where bytes of a compressed file were lost or put in, the page leaves open which member is named; where lines
    of checkpoints were moved about, where reading goes on.
    """
    (code, mine), (our_code, ours) = ask_tool(home, keys, []), ask_ours(home, keys, [])
    facts = f"{what}\n  one file: {mine}\n  ours:     {ours}"
    assert code == our_code, facts
    if code == 1 or any(re.match(r"(insert|swap|double|drop|blank) \S+\.gz ", one) for one in what):
        return
    fields = [field for field in VERDICT if field != "needs_recovery" or mine["integrity_ok"]]
    if mine["integrity_ok"]:
        fields += ["total_entries", "root", "log_id"]
    if mine["first_bad_file"] != "head":
        fields.append("state")
    if not mine["first_bad_sequence"] and not any(
        re.match(r"(swap|double|drop|blank) \S+\.checkpoints ", one) for one in what
    ):
        fields += RANGES
    for field in fields:
        assert mine[field] == ours[field], f"{field} differs: {facts}"


def damage(files, random):
    """Damage one of *files* in one of many ways; what was done."""
    name = random.choice(sorted(files))
    content = bytearray(files[name])
    at = random.randrange(len(content) + 1)
    way = random.choice(
        ["flip"] * 5 + ["cut", "remove", "insert", "extend", "blank", "swap", "double", "drop"]
    )
    lines = bytes(content).split(b"\n")
    one, other = random.randrange(len(lines)), random.randrange(len(lines))
    if way == "flip" and content:
        at = random.randrange(len(content))
        content[at] ^= 1 << random.randrange(8)
    elif way == "cut":
        del content[at:]
    elif way == "insert":
        content[at:at] = random.choice([b"\n", b"\0", b"x", b"\n\n"])
    elif way == "extend":
        content += random.choice([b"\n" * 9, b"\0" * 9, b'{"crc"'])
    elif way == "blank":
        end = min(len(content), at + random.randrange(1, 600))
        content[at:end] = random.choice([b"\0", b"\n"]) * (end - at)
    elif way in {"swap", "double", "drop"}:
        if way == "swap":
            lines[one], lines[other] = lines[other], lines[one]
        elif way == "double":
            lines.insert(other, lines[one])
        else:
            del lines[one]
        content = b"\n".join(lines)
    if way == "remove":
        del files[name]
    else:
        files[name] = bytes(content)
    return f"{way} {name} at {at} ({one}, {other})"


def closed_log(*, signed):
    log = make.Log(signed=signed)
    first = log.segment()
    log.notes(12)
    log.rotate()
    log.seal(first)
    log.notes(7)
    log.rotate()
    log.notes(3)
    return log.close()


def open_log(*, signed):
    log = make.Log(signed=signed)
    first = log.segment()
    log.notes(6)
    log.rotate()
    log.seal(first)
    log.notes(4)
    log.notes(2, sync=False)
    return log.finish(make.OPEN, head_at=log.synced, filler=700)


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("lay", [closed_log, open_log])
@pytest.mark.parametrize("seed", range(3))
def test_both_say_the_same_of_damaged_logs(seed, lay, signed, tmp_path):
    """A log damaged at random gets the same verdict from both."""
    random = Random(f"{seed} {lay.__name__} {signed}")
    whole = lay(signed=signed)
    keys = [make.key(1).vkey] if signed and random.random() < 0.7 else []
    for _ in range(60):
        files = dict(whole)
        what = [damage(files, random) for _ in range(random.choice([1, 1, 1, 2])) if files]
        make.write(files, tmp_path / "log")
        assert_same(tmp_path / "log", keys, what)
        shutil.rmtree(tmp_path / "log")


GOOD = [
    name
    for name, vector in VERDICTS.items()
    if all(check["exit"] == 0 for check in vector["checks"]) and "pruned" not in name
]


@pytest.mark.parametrize("name", GOOD)
def test_both_say_the_same_of_damaged_vectors(name, tmp_path):
    """Each published log that nothing is wrong with, damaged at random, gets the same verdict from both."""
    random = Random(name)
    vector = make.VECTORS[name]()
    keys = next((check.keys for check in vector.checks if check.keys), [])
    for _ in range(8):
        files = dict(vector.files)
        what = [damage(files, random)]
        (tmp_path / "log").mkdir()
        make.write(files, tmp_path / "log")
        if "head " not in what[0]:  # what a torn tail is without its head, the page leaves open
            assert_same(tmp_path / "log", keys, what)
        shutil.rmtree(tmp_path / "log")


def written_log(home, keys, random=None):
    """A log of the real writer: two rotations, one seal, an order, then closed."""
    clock = ManualClock()
    random_bytes = os.urandom if random is None else random.randbytes
    log = WriteAheadLog(home, clock=clock, keys=keys, rotate_bytes=8192, random_bytes=random_bytes)
    for n in range(60):
        log.append("NOTE", {"n": n, "order_id": f"o-{n // 5}", "text": "x" * 200}, user="ann")
        clock.advance(0.05)
    log.close()
    return log


def test_a_log_of_the_real_writer_is_intact_to_both(tmp_path):
    """What the writer leaves, sealed, indexed, with tiles and checkpoints, is intact and signed to its end."""
    keys = KeyHome(tmp_path / "home")
    log = written_log(tmp_path / "log", keys)
    code, report = ask_tool(tmp_path / "log", [], [])
    assert code == 0, report
    assert any((tmp_path / "log").glob("*.idx"))
    assert report["unknown_key_to"] == report["total_entries"] > 60
    assert_same(tmp_path / "log", [], [])
    pins = [str(pin) for pin in keys.log(report["log_id"]).pins()]
    code, report = ask_tool(tmp_path / "log", pins, [])
    assert report["signed_to"] == report["total_entries"], report
    assert_same(tmp_path / "log", pins, [])
    assert log.directory == tmp_path / "log"


def test_a_proof_of_the_real_prover_convinces_it(tmp_path):
    """Proofs that `audit prove` writes are accepted with the first epoch's key, and with no other."""
    keys = KeyHome(tmp_path / "home")
    written_log(tmp_path / "log", keys)
    report = ask_tool(tmp_path / "log", [], [])[1]
    (pin,) = keys.log(report["log_id"]).pins()
    with Prover(tmp_path / "log") as prover:
        proofs = [proof.encode() for proof in prover.prove([3, report["total_entries"]])]
    for proof, sequence in zip(proofs, [3, report["total_entries"]], strict=True):
        proven = tool.check_proof(proof, [tool.Key.parse(str(pin))])
        assert proven["record"]["seq"] == sequence
        assert proven["size"] == report["total_entries"]
        with pytest.raises(tool.Refused):
            tool.check_proof(proof, [make_key()])
    (tmp_path / "proof").write_bytes(proofs[0])
    code, out, _ = run("--proof", tmp_path / "proof", "--key", pin)
    assert (code, "record 3" in out or '"seq": 3' in out) == (0, True)


@pytest.mark.parametrize("seed", range(4))
def test_a_changed_proof_convinces_it_of_nothing_else(seed, tmp_path):
    """A proof with one byte changed is refused, or proves the same record still."""
    keys = KeyHome(tmp_path / "home")
    written_log(tmp_path / "log", keys)
    pins = [
        tool.Key.parse(str(pin)) for pin in keys.log(ask_tool(tmp_path / "log", [], [])[1]["log_id"]).pins()
    ]
    with Prover(tmp_path / "log") as prover:
        (proof,) = (proof.encode() for proof in prover.prove([5]))
    said = tool.check_proof(proof, pins)["record"]
    random = Random(seed)
    for _ in range(150):
        changed = bytearray(proof)
        changed[random.randrange(len(changed))] ^= 1 << random.randrange(8)
        try:
            assert tool.check_proof(bytes(changed), pins)["record"] == said
        except (tool.Bad, tool.Refused):
            continue


def make_key():
    """A key that signed nothing of the log in question."""
    return tool.Key.parse(make.key(9).vkey)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
def test_both_say_the_same_of_the_real_writers_log_damaged(seed, tmp_path):
    """A log of the real writer, damaged at random, gets the same verdict from both."""
    random = Random(seed)
    keys = KeyHome(tmp_path / "home", random_bytes=random.randbytes)
    written_log(tmp_path / "whole", keys, random)
    whole = {
        path.relative_to(tmp_path / "whole").as_posix(): path.read_bytes()
        for path in (tmp_path / "whole").rglob("*")
        if path.is_file()
    }
    pins = [str(pin) for pin in keys.log(ask_tool(tmp_path / "whole", [], [])[1]["log_id"]).pins()]
    for _ in range(60):
        files = dict(whole)
        what = [damage(files, random)]
        make.write(files, tmp_path / "log")
        assert_same(tmp_path / "log", pins, what)
        shutil.rmtree(tmp_path / "log")


def test_every_single_bit_of_a_closed_log_matters(tmp_path):
    """Whichever bit of a closed, signed log is changed, the one-file verifier says that it is damaged."""
    random = Random(7)
    whole = make.page_log().close()
    for name in sorted(whole):
        size = len(whole[name])
        for at in sorted(random.sample(range(size), min(size, 30))):
            files = dict(whole)
            make.flip(files, name, at, 1 << random.randrange(8))
            make.write({name: files[name]} if at else files, tmp_path / "log")
            code, report = ask_tool(tmp_path / "log", [], [])
            assert code == 3, f"{name} at {at}: {report}"
            if name.endswith((".checkpoints", ".idx")) or "tile" in name:
                assert report["first_bad_file"] == name, f"{name} at {at}: {report}"
        make.write(whole, tmp_path / "log")


@pytest.mark.parametrize("seed", range(40))
def test_nothing_crashes_it(seed, tmp_path):
    """Whatever bytes lie in the directory, the one-file verifier ends with a verdict."""
    random = Random(seed)
    files = closed_log(signed=bool(seed % 2))
    for name in random.sample(sorted(files), 3):
        files[name] = random.choice(
            [
                random.randbytes(random.randrange(5000)),
                b"\n" * 70_000,
                b"[" * 70_000,
                b'{"crc":"' + b"0" * 66_000 + b"}\n",
                files[random.choice(sorted(files))],
                b"",
            ]
        )
    files |= {random.choice(["tile/x", "run/z", "quarantine/q", "tile/0/000.p/0", "audit_1.log"]): b"\xff\0"}
    make.write(files, tmp_path / "log")
    (tmp_path / "log" / "link").symlink_to("/dev/zero")
    code, report = ask_tool(tmp_path / "log", [make.key(1).vkey], [])
    assert code == 3
    json.dumps(report)


@pytest.mark.parametrize(
    "ending", [".log", ".log.gz", ".checkpoints", ".idx", "head", "checkpoint", "quarantine/q"]
)
def test_a_file_of_any_size_is_given_up(ending, tmp_path):
    """A file that claims 64 GiB, nearly all of it a hole, is told as damage without being read through."""
    files = make.page_log().close() | {"quarantine/q": b"x"}
    make.write(files, tmp_path / "log")
    name = next(name for name in sorted(files) if name.endswith(ending))
    with (tmp_path / "log" / name).open("ab") as file:
        file.truncate(64 << 30)
    code, report = ask_tool(tmp_path / "log", [], [])
    assert (code, report["first_bad_file"]) == (3, name)


def test_it_needs_nothing_of_ours():
    """The tool imports the standard library and cryptography, nothing else."""
    imported = set()
    for node in ast.walk(ast.parse(TOOL.read_text())):
        if isinstance(node, ast.Import):
            imported |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add((node.module or "").split(".")[0])
    assert imported - {"cryptography", "__future__"} <= sys.stdlib_module_names


def run(*arguments):
    """Exit code, standard output and standard error of the tool as an auditor starts it, outside our code."""
    done = subprocess.run(
        [sys.executable, "-I", str(TOOL), *map(str, arguments)], capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout, done.stderr


def test_command_line_tells_verdicts_apart(tmp_path):
    """Exit codes and words of the command are those that the page promises."""
    lay_down("page", tmp_path / "page")
    lay_down("torn-line", tmp_path / "torn")
    lay_down("deleted", tmp_path / "damaged")
    key = make.key(1).vkey
    (tmp_path / "keys").write_text(f"{key}\n")
    code, out, _ = run(tmp_path / "page", tmp_path / "torn", "--key", tmp_path / "keys")
    assert code == 0
    assert "intact, 13 records" in out
    assert "1 to 13: signed by a trusted key" in out
    assert "needs recovery, 8 records" in out
    code, out, _ = run(tmp_path / "damaged", "--json")
    assert code == 3
    assert json.loads(out)["first_bad_sequence"] == 9
    code, _, err = run(tmp_path / "nowhere")
    assert (code, "error: " in err) == (1, True)
    assert run(tmp_path / "page", "--key", "not+a+key")[0] == 1
    assert run()[0] == 2


def test_naming_somebodys_key_is_not_signing_with_it(tmp_path, monkeypatch):
    """A forged log whose last KEY record names the victim's pinned key is signed by an unknown key, say both."""
    with WriteAheadLog(tmp_path / "true", clock=ManualClock(), keys=KeyHome(tmp_path / "keys")) as log:
        log.append("NOTE", {"text": "true"})
    (pin,) = KeyHome(tmp_path / "keys").log(log.log_id).pins()

    def name_the_victims_key(self, reason, previous):
        text = f"holdfast key v1\n{self.origin}\n{self.log_id}\n{self.epoch}\n{pin}\n"
        note = sign_note(text.encode(), previous.signer).decode()
        return KeyDetails(epoch=self.epoch, vkey=str(pin), reason=reason, note=note)

    def stop(*_):
        raise KeyboardInterrupt

    home = tmp_path / "forged"
    forged = WriteAheadLog(
        home,
        clock=ManualClock(),
        keys=KeyHome(tmp_path / "forger"),
        random_bytes=lambda _: bytes.fromhex(log.log_id),
    )
    forged.append("NOTE", {"text": "forged"})
    monkeypatch.setattr(LogKey, "details", name_the_victims_key)
    monkeypatch.setattr(LogSigner, "enter_epoch", stop)
    with pytest.raises(KeyboardInterrupt):
        forged.rotate()
    forged.close()

    ours = verify(home, keys=[pin])
    assert [problem.sequence for problem in ours.problems] == [2]
    assert "signed by an unknown key" in ours.problems[0].reason
    (tmp_path / "pin").write_text(f"{pin}\n")
    said = subprocess.run(
        [sys.executable, str(TOOL), str(home), "--key", str(tmp_path / "pin")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert said.returncode == 3, said.stdout + said.stderr
    assert "sequence 2, " in said.stdout


@pytest.mark.slow
def test_a_compressed_file_that_unpacks_to_newlines_is_given_up(tmp_path):
    """A few hundred bytes for each member of nothing but newlines do not keep the one-file verifier busy."""
    with WriteAheadLog(tmp_path / "log", clock=ManualClock(), keys=KeyHome(tmp_path / "keys")) as log:
        log.append("NOTE", {})
        log.rotate()
        log.append("NOTE", {})
    (packed,) = (tmp_path / "log").glob("*.log.gz")
    member = zlib.compress(b"\n" * 131_072, 9, wbits=31)
    with packed.open("ab") as file:
        file.write(member * 200)
    began = time.process_time()
    code, report = ask_tool(tmp_path / "log", [], [])
    assert code == 3
    assert report["first_bad_file"] == packed.name
    assert time.process_time() - began < 8
