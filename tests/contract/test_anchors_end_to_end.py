"""From the writer to the witness and back: what becomes of a log that somebody rolled back."""

import shutil

import pytest
from support.anchor_servers import serving_witness

from holdfast.anchors.witness import Witness
from holdfast.audit.keys import KeyHome
from holdfast.cli.audit.writing import open_log
from holdfast.cli.main import main
from holdfast.core.clock import ManualClock
from holdfast.core.errors import EXIT_INTEGRITY, EXIT_OK, AuditCorruption

pytestmark = [pytest.mark.contract("X2"), pytest.mark.invariant("I8")]


class Desk:
    """A log, its keys, a witness elsewhere and a second volume, as `holdfast.toml` names them."""

    def __init__(self, root, url, witness):
        self.root = root
        self.log = root / "audit"
        self.home = root / "home"
        self.volume = root / "volume"
        self.volume.mkdir(mode=0o700)
        self.witness = witness
        (root / "holdfast.toml").write_text(
            f'[anchors]\nsinks = ["file:{self.volume}", "witness:{url} {witness.vkey}"]\n'
        )

    def write(self, count, *, rotate=False):
        with open_log(self.log) as log:
            for number in range(count):
                log.append("NOTE", {"n": number})
            if rotate:
                log.rotate()

    def pin(self):
        log_id = next((self.home / "logs").iterdir()).name
        (vkey,) = KeyHome(self.home).log(log_id).pins()
        self.witness.pin(vkey)
        return log_id

    def anchor(self, capsys):
        capsys.readouterr()
        code = main(["audit", "anchor", str(self.log)])
        return code, capsys.readouterr()

    def keep(self, *folders):
        for folder in folders:
            shutil.copytree(folder, self.root / "kept" / folder.name)

    def roll_back(self, *folders):
        for folder in folders:
            shutil.rmtree(folder)
            shutil.copytree(self.root / "kept" / folder.name, folder)


@pytest.fixture
def desk(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOLDFAST_HOME", str(tmp_path / "home"))
    witness = Witness(tmp_path / "witness", clock=ManualClock())
    with serving_witness(witness) as url:
        yield Desk(tmp_path, url, witness)
    witness.close()


def test_a_log_that_is_anchored_and_left_alone_goes_on(desk, capsys):
    """Through rotations, with a new key each, every newer checkpoint is anchored and the log opens again."""
    desk.write(5)
    desk.pin()
    for _ in range(3):
        code, said = desk.anchor(capsys)
        assert code == EXIT_OK, said
        assert said.out.count(": anchored, ") == 2
        desk.write(300, rotate=True)
    code, said = desk.anchor(capsys)
    assert code == EXIT_OK, said
    assert desk.witness.logs().popitem()[1].epoch >= 4


@pytest.mark.parametrize("kept", ["receipts", "second volume"])
def test_a_writer_refuses_a_log_that_went_back(desk, capsys, kept):
    """A log rolled back to a genuine snapshot, its high-water mark too, is refused by name; nothing is changed."""
    desk.write(5)
    log_id = desk.pin()
    desk.keep(desk.log, desk.home)
    desk.write(20)
    assert desk.anchor(capsys)[0] == EXIT_OK
    receipts = desk.home / "logs" / log_id / "anchors"
    shutil.copytree(receipts, desk.root / "receipts")
    desk.roll_back(desk.log, desk.home)
    if kept == "receipts":
        shutil.copytree(desk.root / "receipts", receipts)
        (desk.root / "holdfast.toml").unlink()
    before = {path: path.read_bytes() for path in desk.log.rglob("*") if path.is_file()}
    with pytest.raises(AuditCorruption) as refused:
        desk.write(1)
    assert refused.value.exit_code == EXIT_INTEGRITY
    assert ("receipt" if kept == "receipts" else str(desk.volume)) in str(refused.value)
    assert {path: path.read_bytes() for path in desk.log.rglob("*") if path.is_file()} == before


def test_verify_names_a_rollback_by_a_receipt(desk, capsys, monkeypatch):
    """An auditor who holds one cosigned receipt finds the rollback; without it he is told what he cannot know."""
    desk.write(5)
    log_id = desk.pin()
    desk.keep(desk.log)
    desk.write(20, rotate=True)
    assert desk.anchor(capsys)[0] == EXIT_OK
    (receipt,) = (desk.home / "logs" / log_id / "anchors").glob("witness-*/*.note")
    monkeypatch.setenv("HOLDFAST_HOME", str(desk.root / "nobody"))
    (desk.root / "holdfast.toml").rename(desk.root / "ours.toml")
    assert main(["audit", "verify", str(desk.log), "--anchor", str(receipt)]) == EXIT_OK
    assert "anchored: 1 to " in capsys.readouterr().out
    desk.roll_back(desk.log)
    assert main(["audit", "verify", str(desk.log), "--anchor", str(receipt)]) == EXIT_INTEGRITY
    assert receipt.name in capsys.readouterr().out
    assert main(["audit", "verify", str(desk.log)]) == EXIT_OK
    said = capsys.readouterr().out
    assert "not known: " in said
    assert "anchored: " not in said
    (desk.root / "ours.toml").rename(desk.root / "holdfast.toml")
    assert main(["audit", "verify", str(desk.log)]) == EXIT_INTEGRITY, (
        "the second volume is asked where it is configured"
    )
    assert str(desk.volume) in capsys.readouterr().out


def test_a_witness_names_a_rollback_that_took_everything_local(desk, capsys):
    """Log, keys, receipts and second volume rolled back together: the next anchoring ends with exit 3."""
    desk.write(5)
    desk.pin()
    assert desk.anchor(capsys)[0] == EXIT_OK
    desk.keep(desk.log, desk.home, desk.volume)
    desk.write(20)
    assert desk.anchor(capsys)[0] == EXIT_OK
    desk.roll_back(desk.log, desk.home, desk.volume)
    desk.write(1)
    code, said = desk.anchor(capsys)
    assert code == EXIT_INTEGRITY
    assert "went back" in said.out
    assert "the witness saw" in said.out
    desk.write(40)
    code, said = desk.anchor(capsys)
    assert code == EXIT_INTEGRITY, "grown again with other records"
