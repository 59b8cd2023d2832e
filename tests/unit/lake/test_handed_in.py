"""Time and names come from outside: the lake asks the machine for neither (invariant I12)."""

import ast
import json
import random
from pathlib import Path

import pytest
from support.lake import START_NS, make_journal

import holdfast.lake
from holdfast.core.clock import ManualClock
from holdfast.lake.projector import Projector
from holdfast.lake.rebuild import rebuild
from holdfast.lake.store import store_of

pytestmark = pytest.mark.invariant("I12")

LAKE = Path(holdfast.lake.__file__).parent
MACHINES = {"time", "uuid", "secrets", "random"}
CALLS = {"now", "utcnow", "today", "urandom", "uuid4"}


def _said(lake: Path) -> list[list[dict]]:
    """What the commits of each table say of the data files that they add."""
    return [
        [action["add"] for line in commit.read_text().splitlines() if "add" in (action := json.loads(line))]
        for commit in sorted(lake.glob("*/_delta_log/*.json"))
    ]


def test_equal_clocks_and_seeds_name_and_stamp_equal_files(tmp_path):
    """Two projections of a journal under one time and one seed write the same files under the same names."""
    log = make_journal(tmp_path / "log", events=30)
    said = []
    for name in ("one", "two"):
        drawn = random.Random(7)
        projector = Projector(
            [log], store_of(str(tmp_path / name)), clock=ManualClock(START_NS), random_bytes=drawn.randbytes
        )
        projector.start()
        projector.run(follow=False, wait=lambda _: False)
        projector.close()
        said.append(_said(tmp_path / name))
    assert said[0] == said[1]
    added = [add for commit in said[0] for add in commit]
    assert added
    assert {add["modificationTime"] for add in added} == {START_NS // 1_000_000}
    for add in added:
        assert len(list(tmp_path.glob(f"*/*/{add['path']}"))) == 2


def test_rebuild_takes_its_time_and_its_names_from_outside(tmp_path):
    """Where the lake before is kept is drawn from the bytes that were handed in, and time stands with its clock."""
    log = make_journal(tmp_path / "log", events=12)
    lake = store_of(str(tmp_path / "lake"))
    for expected in ("", f"{lake}.replaced-aaaaaaaa"):
        done = rebuild(lake, [log], clock=ManualClock(START_NS), random_bytes=lambda n: b"\xaa" * n)
        assert (done.replaced, done.secs) == (expected, 0.0)


@pytest.mark.parametrize("module", sorted(path.name for path in LAKE.glob("*.py")))
def test_no_module_of_the_lake_asks_the_machine(module):
    """No module under lake/ imports a source of time or chance, or calls one; a default argument alone may name one."""
    tree = ast.parse((LAKE / module).read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            assert not MACHINES & {one.name.partition(".")[0] for one in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.module not in MACHINES
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            assert node.func.attr not in CALLS, f"{module}:{node.lineno}"
