"""Real projectors as processes, killed and started, and the comparison of the lake that they leave with the journal."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from random import Random

from holdfast.audit.format import parse_segment_name
from holdfast.audit.query import read_lines
from holdfast.lake.journal import JournalReader
from holdfast.lake.rows import arrow_of, row_of
from holdfast.lake.store import LakeStore
from holdfast.lake.tables import TABLES

TESTS = Path(__file__).parents[1]
TABLE_BY_TYPE = {
    "RISK_EVENT": "risk_events",
    "ORDER": "orders",
    "ORDER_UPDATE": "orders",
    "TRADE": "fills",
    "API_CALL": "api_calls",
    "DECISION": "decisions",
}


@contextmanager
def writer(directory: Path, *, seed: int, rate: int = 0, most: int = 0) -> Iterator[subprocess.Popen]:
    """A process that writes a journal; it is told to end, and closes the log, at the end."""
    process = subprocess.Popen(
        [sys.executable, "-m", "support.lake_writer", str(directory), str(seed), str(rate), str(most)],
        cwd=TESTS, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "READY\n"
        yield process
    finally:
        process.terminate()
        process.communicate(timeout=30)


def start_projector(
    logs: Sequence[Path], store: LakeStore, *options: str, environ: Mapping[str, str] = os.environ
) -> subprocess.Popen:
    """`holdfast lake project … --follow` as a process of its own."""
    words = [
        sys.executable,
        "-m",
        "holdfast",
        "lake",
        "project",
        *map(str, logs),
        "--lake",
        store.uri,
        "--follow",
    ]
    return subprocess.Popen(
        [*words, "--json", *options],
        env={**os.environ, **environ},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def kill(process: subprocess.Popen) -> None:
    """kill -9, and forget it."""
    process.send_signal(signal.SIGKILL)
    process.communicate()


def is_ready(process: subprocess.Popen) -> bool:
    """Whether it said that it is ready, or ended."""
    return bool(select.select([process.stdout], [], [], 0)[0])


def rival_kills(
    logs: Sequence[Path],
    store: LakeStore,
    *options: str,
    kills: int,
    rivals: int,
    random: Random,
    environ: Mapping[str, str] = os.environ,
) -> Counter[str]:
    """Let *rivals* projectors work on the same journals and kill one after the other; how they ended otherwise.

    A rival is killed within a second after it was ready, so that nearly every kill meets work; one of eight is
    killed while it starts.
    """
    ended: Counter[str] = Counter()
    fleet = [start_projector(logs, store, *options, environ=environ) for _ in range(rivals)]
    try:
        for _ in range(kills):
            victim = random.choice(fleet)
            early = random.random() < 0.125
            while not early and not any(map(is_ready, fleet)):
                time.sleep(0.01)
            if not early:
                victim = random.choice([one for one in fleet if is_ready(one)])
            time.sleep(random.uniform(0.0, 1.0))
            code = victim.poll()
            if code is None:
                kill(victim)
                ended["killed"] += 1
            else:
                ended[f"{code}: {victim.communicate()[1].strip()[-300:]}"] += 1
            fleet[fleet.index(victim)] = start_projector(logs, store, *options, environ=environ)
    finally:
        for process in fleet:
            kill(process)
    return ended


def finish(logs: Sequence[Path], store: LakeStore, environ: Mapping[str, str] = os.environ) -> None:
    """One projector that nobody disturbs brings the rest."""
    words = [sys.executable, "-m", "holdfast", "lake", "project", *map(str, logs), "--lake", store.uri]
    done = subprocess.run(
        words, env={**os.environ, **environ}, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr


def assert_exact(logs: Sequence[Path], store: LakeStore) -> int:
    """Every table holds exactly the rows of the *logs*; how many there are in all.

    Twice: which rows, by reading the journal's JSON without any code of the lake; and what is in them.
    """
    expected: dict[str, dict[str, str]] = {table.name: {} for table in TABLES}
    arrows: dict[str, list] = {table.name: [] for table in TABLES}
    for log in logs:
        reader = JournalReader(log)
        reader.look()
        for line in read_lines(log):
            said = json.loads(line)
            if said["type"] in TABLE_BY_TYPE:
                tag = said["details"].get("tag", "")
                expected[TABLE_BY_TYPE[said["type"]]][f"{reader.log_id} {said['seq']}"] = tag
        while (piece := reader.read(10_000)) is not None:
            for facts in piece.facts:
                if (found := row_of(facts, reader.log_id, piece.epoch)) is not None:
                    arrows[found[0].name].append(found[1])
        starts = {segment.first_seq for path in log.iterdir() if (segment := parse_segment_name(path.name))}
        reader.close()
    total = 0
    for table in TABLES:
        found = store.open(table.name).to_pyarrow_table().sort_by([("event_id", "ascending")])
        keys = [
            f"{writer} {seq}"
            for writer, seq in zip(found["writer_id"].to_pylist(), found["seq"].to_pylist(), strict=True)
        ]
        counts = Counter(keys)
        twice = sorted(key for key, count in counts.items() if count > 1)
        wanted = expected[table.name]
        assert not twice, f"{table.name}: {len(twice)} rows twice, first {twice[:3]}"
        assert counts.keys() == wanted.keys(), (
            f"{table.name}: {len(wanted.keys() - counts.keys())} rows missing, "
            f"{len(counts.keys() - wanted.keys())} invented; {sorted(wanted.keys() ^ counts.keys())[:3]}"
        )
        tags = [json.loads(text).get("tag", "") for text in found["metadata"].to_pylist()]
        assert tags == [wanted[key] for key in keys]
        if len(logs) == 1:
            assert set(found["epoch"].to_pylist()) <= starts
        made = arrow_of(table, arrows[table.name]).sort_by([("event_id", "ascending")])
        assert found.cast(made.schema).equals(made), f"{table.name}: a row says something else"
        total += len(keys)
    return total
