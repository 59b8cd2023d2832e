"""`holdfast lake project`: journals into the lake, each record's row exactly once."""

from __future__ import annotations

import argparse
import os
import sys
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from holdfast.cli.audit.verbs import Verbs, path_argument, refuse_folder_of_logs, require_log
from holdfast.cli.output import print_json, tell
from holdfast.core.errors import EXIT_OK

if TYPE_CHECKING:
    from holdfast.config import LakeConfig
    from holdfast.lake.projector import Projector, ProjectorPolicy
    from holdfast.lake.store import LakeStore

_EXAMPLES = """examples:
  what the journal holds, once:
    holdfast lake project logs/audit
  and what comes, until Ctrl-C or SIGTERM:
    holdfast lake project logs/audit --lake data/lake --follow
  several journals into one lake on S3 (AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID, …):
    holdfast lake project desk-1/audit desk-2/audit --lake s3://desk/lake --follow

Any number of projectors may run: each row comes once. A table on a disk that a power cut tore is mended at the
start. With --follow --json one line says when it is ready.

exit code: 0 all projected, or ended by a signal; 1 bad input, or a lake that is none; 3 the journal is damaged, went
back, or is not the one that the lake holds; 4 disk full; 5 the store gives no answer
"""


def add(verbs: Verbs) -> None:
    """Describe the verb."""
    project = verbs.add(
        "project", "bring journals into the lake, each record's row exactly once", _EXAMPLES, _run
    )
    project.add_argument(
        "logs", metavar="LOGDIR", type=path_argument, nargs="+", help="an audit log's directory"
    )
    add_lake_argument(project)
    project.add_argument(
        "--follow", action="store_true", help="then bring what comes as it becomes durable, until a signal"
    )
    project.add_argument(
        "--exit-with-stdin",
        action="store_true",
        help="with --follow: end when standard input closes, once all that is durable was brought",
    )
    project.add_argument(
        "--rows", type=int, metavar="N", help="commit a table with N waiting rows (default: [lake], 5000)"
    )
    project.add_argument(
        "--age",
        type=float,
        metavar="SECS",
        help="let a row wait at most so long (default: [lake], 1; on S3: 10)",
    )
    project.add_argument(
        "--memory", type=int, metavar="MB", help="start anew above so much memory (default: [lake], 600)"
    )
    project.add_argument(
        "--no-maintenance",
        action="store_true",
        help="leave compaction, ordering and vacuum to `lake maintain`",
    )


def add_lake_argument(parser: argparse.ArgumentParser) -> None:
    """Give *parser* the `--lake` that every verb of the lake takes."""
    parser.add_argument(
        "--lake",
        metavar="URI",
        help="directory or s3://BUCKET/PREFIX (default: the configuration's, data/lake)",
    )


def lake_of(args: argparse.Namespace) -> LakeStore:
    """The store that `--lake` names, or the configuration.

    Raises:
        BadInput: It is no such place.
    """
    from holdfast.config import load_config
    from holdfast.lake.store import store_of

    named: str | None = args.lake
    return store_of(load_config().paths.lake if named is None else named)


def _run(args: argparse.Namespace) -> int:
    logs: list[Path] = args.logs
    for log in logs:
        if args.follow:
            refuse_folder_of_logs(log)  # one that is still empty may be waited on
        else:
            require_log(log)
    from holdfast.config import load_config
    from holdfast.core.clock import SystemClock
    from holdfast.lake.due import DAY_SECS, SHARED_SECS, MaintenancePolicy
    from holdfast.lake.maintenance import Maintainer
    from holdfast.lake.projector import Projector

    store, settings, clock = lake_of(args), load_config().lake, SystemClock()
    policy = _policy(args, store, settings)
    maintains = settings.maintain and not args.no_maintenance
    upkeep = MaintenancePolicy(retention_secs=max(settings.retention_days * DAY_SECS, SHARED_SECS))
    _collect_seldom()
    with _until_signal() as stop:
        wait = _until_stdin(stop) if args.exit_with_stdin else stop.wait
        while True:
            maintenance = None
            if maintains:
                maintenance = Maintainer(store, clock=clock, policy=upkeep, tell=tell, order_apart=True)
            projector = Projector(logs, store, clock=clock, policy=policy, maintenance=maintenance, tell=tell)
            try:
                projector.start()
                if args.follow and args.json:
                    print_json({"ready": True, "lake": store.uri, "pid": os.getpid()})
                    sys.stdout.flush()
                projector.run(follow=args.follow, wait=wait)
            finally:
                projector.close()
            if stop.is_set() or not projector.wants_new_process:
                break
            _start_anew()
    _report(projector, store, as_json=args.json)
    return EXIT_OK


def _policy(args: argparse.Namespace, store: LakeStore, settings: LakeConfig) -> ProjectorPolicy:
    """The flags, else the configuration, else what suits the store."""
    import msgspec

    from holdfast.lake.projector import LOCAL, REMOTE

    usual = LOCAL if store.is_local else REMOTE
    rows = settings.commit_rows if args.rows is None else args.rows
    age = settings.commit_secs if args.age is None else args.age
    memory = settings.memory_mb if args.memory is None else args.memory
    return msgspec.structs.replace(
        usual,
        rows=rows,
        most_rows=max(usual.most_rows, rows),
        age_secs=usual.age_secs if age is None else age,
        memory_bytes=memory << 20 if memory > 0 else memory,
    )


def _collect_seldom() -> None:
    """Rows live for one batch and hold no cycles: looking for some in them would cost half of the time."""
    import gc

    gc.set_threshold(200_000, 50, 100)


@contextmanager
def _until_signal() -> Generator[threading.Event]:
    """An event that SIGTERM and Ctrl-C set; the batch at hand is still committed."""
    import signal

    stop = threading.Event()
    before = {
        number: signal.signal(number, lambda _number, _frame: stop.set())
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _until_stdin(stop: threading.Event) -> Callable[[float], bool]:
    """Waits as *stop* does, and says to end, too, after two idle rounds behind the end of standard input.

    The first of them may have looked before the last record was durable.
    """
    closed, idle = threading.Event(), 0

    def watch() -> None:
        while os.read(0, 4096):
            pass
        closed.set()

    def wait(secs: float) -> bool:
        nonlocal idle
        if not closed.is_set():
            return stop.wait(secs)
        idle = idle + 1 if secs else 0
        return stop.is_set() or idle > 1

    threading.Thread(target=watch, name="stdin", daemon=True).start()
    return wait


def _start_anew() -> None:
    """Become a fresh process with the same id, words and streams; inside of another program only begin again."""
    words = sys.orig_argv[1:]
    if "project" in words and "lake" in words:
        os.execv(sys.executable, [sys.executable, *words])  # noqa: S606  ourselves


def _report(projector: Projector, store: LakeStore, *, as_json: bool) -> None:
    for one in projector.progress():
        if as_json:
            print_json(
                {
                    "log": str(one.log),
                    "log_id": one.log_id,
                    "covered": one.covered,
                    "durable": one.durable,
                    "lake": store.uri,
                    "commits": projector.commits,
                    "lost": projector.lost,
                }
            )
        else:
            print(
                f"{one.log}: {one.covered} of {one.durable} records in {store.uri} ({projector.commits} commits)"
            )
