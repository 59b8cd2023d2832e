"""What a paper run amounts to: the figures, the tampered copy, the exit code, and the page that says so."""

from __future__ import annotations

import gzip
import hashlib
import shlex
import shutil
import sys
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec

from holdfast.audit.format import Record
from holdfast.audit.query import read_records
from holdfast.audit.verify import verify
from holdfast.cli.output import on_terminal
from holdfast.cli.paper.screen import hanging
from holdfast.cli.paper.story import Story
from holdfast.core.errors import EXIT_CANNOT_ACT, EXIT_INTEGRITY, EXIT_OK, EXIT_USER_ERROR
from holdfast.core.money import MoneyE6, format_money

_FACT_AT = 15
"""The column where the facts of the summary begin."""


class Outcome(msgspec.Struct, kw_only=True):
    """What a run ended with, before it is summed up."""

    seed: int
    directory: str
    orders: dict[str, int]
    refusals: dict[str, int]
    breaker: list[dict[str, Any]]
    pnl_e6: MoneyE6 | None
    journal: dict[str, Any]
    decisions: int
    decisions_sha256: str
    exchange_matches: bool
    differences: list[str]
    chapters_missing: list[str]
    tampered: dict[str, Any]
    resting: list[str]


def sum_up(
    seed: int,
    directory: Path,
    story: Story,
    *,
    differences: list[str],
    resting: list[str],
    today: MoneyE6 | None,
    full_story: bool,
) -> Outcome:
    """Everything the journal, its verification and the comparison of books say about one run."""
    audit = directory / "audit"
    report = verify(audit)
    return Outcome(
        seed=seed,
        directory=str(directory),
        orders={
            name: story.orders[name]
            for name in ("submitted", "filled", "rejected", "denied", "canceled", "expired", "not_sent")
        }
        | {"unknown": story.unknown_now},
        refusals=dict(story.refusals),
        breaker=story.breaker,
        pnl_e6=story.gain(today),
        journal={
            "records": report.total_entries,
            "bytes": sum(path.stat().st_size for path in audit.glob("audit_*")),
            "verify_ok": report.ok,
        },
        decisions=story.decisions,
        decisions_sha256=decisions_digest(audit),
        exchange_matches=not differences,
        differences=differences,
        chapters_missing=[story.chapters[chapter] for chapter in story.missing] if full_story else [],
        tampered=tamper(audit, directory / "tampered"),
        resting=resting,
    )


def decisions_digest(audit: Path) -> str:
    """SHA-256 over the canonical JSON of every decision: number, intent, rows, verdict, market time."""
    digest = hashlib.sha256()
    for record in read_records(audit):
        if record.type == "DECISION" and not record.details.get("question"):
            taken = {
                name: record.details[name] for name in ("n", "intent", "rows", "verdict", "market_ts_ns")
            }
            digest.update(msgspec.json.encode(taken, order="sorted"))
    return digest.hexdigest()


def tamper(audit: Path, copy: Path) -> dict[str, Any]:
    """Change one digit of one fill in a copy of the log; what verify says of the copy."""
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(audit, copy, ignore=shutil.ignore_patterns("run"))
    victim: Record | None = next((record for record in read_records(copy) if record.type == "TRADE"), None)
    if victim is None:
        return {"changed": None}
    needle = f'"seq":{victim.seq},'.encode()
    for path in sorted(copy.glob("audit_*")):
        sealed = path.suffix == ".gz"
        data = bytearray(gzip.decompress(path.read_bytes()) if sealed else path.read_bytes())
        line = data.find(needle)
        if line < 0:
            continue
        digit = data.index(b'"quantity":"', line) + len(b'"quantity":"')
        data[digit] = ord("9") if data[digit] != ord("9") else ord("8")
        path.write_bytes(gzip.compress(data) if sealed else data)
        bad = verify(copy).first_bad
        return {
            "changed": victim.seq,
            "named": bad.sequence if bad else 0,
            "file": bad.file if bad else "",
            "offset": bad.offset if bad else 0,
            "reason": bad.reason if bad else "nothing was found",
            "found": bad is not None and bad.sequence == victim.seq,
        }
    return {"changed": None}


def verdict(outcome: Outcome) -> int:
    """The exit code: 3 damaged journal, 4 an order still unknown, 1 a promise not kept, else 0."""
    if not outcome.journal["verify_ok"]:
        return EXIT_INTEGRITY
    if outcome.orders["unknown"]:
        return EXIT_CANNOT_ACT
    found = outcome.tampered["changed"] is None or outcome.tampered["found"]
    if outcome.differences or outcome.chapters_missing or not found:
        return EXIT_USER_ERROR
    return EXIT_OK


def print_summary(outcome: Outcome) -> None:
    """The page at the end of a run."""
    tampered, where = outcome.tampered, shlex.quote(outcome.directory)
    place = ""
    if tampered["changed"] is not None:
        sealed = tampered["file"].endswith(".gz")
        place = f" in {tampered['file']}" if sealed else f" at byte {tampered['offset']}"
    print_page(
        [
            f"  orders       {counted(outcome.orders)}",
            f"  refusals     {counted(outcome.refusals)}",
            f"  breaker      {breaker_path(outcome)}",
            f"  P&L          {gain(outcome.pnl_e6, 'a held market has no price')}",
            f"  books        {books(outcome, 'exchange')}",
            *evidence(outcome, place),
            *loose_ends(outcome),
        ]
    )
    print("\nnext:")
    print(f"  holdfast audit query {where}/audit --type RISK_VIOLATION")
    print(f"  holdfast audit query {where}/audit --type ORDER    # every order")
    if tampered["changed"] is not None:
        print(f"  holdfast audit verify {where}/tampered")
    print("  make paper-options   # an options desk: stops, portfolio limits, the lake (docs/options.md)")
    print("  holdfast exchange    # a bot of your own: README, 'Your bot in ten minutes'")


# What both desks' pages say ---------------------------------------------------------------------------------


def print_page(facts: list[str]) -> None:
    """The facts below their heading, as wide as the terminal."""
    width = shutil.get_terminal_size().columns if on_terminal() else sys.maxsize
    print("\n".join(hanging(line, _FACT_AT, width) for line in ["", "SUMMARY", *facts]))


def counted(counts: Mapping[str, int]) -> str:
    """Such as "3 filled, 1 denied"; what is none is left out."""
    return ", ".join(f"{count} {name}" for name, count in counts.items() if count) or "none"


def breaker_path(outcome: Outcome) -> str:
    """The states it went through."""
    steps = outcome.breaker
    return " -> ".join([steps[0]["from"], *(step["to"] for step in steps)]) if steps else "stayed closed"


def gain(amount: MoneyE6 | None, why_unknown: str) -> str:
    """What was won or lost, in dollars."""
    if amount is None:
        return f"unknown ({why_unknown})"
    return f"{'-' * (amount < 0)}${Decimal(format_money(MoneyE6(abs(amount)))):,}, fees included"


def books(outcome: Outcome, whose: str) -> str:
    """Whether ours are theirs."""
    return (
        f"equal the {whose}'s own"
        if outcome.exchange_matches
        else "DIFFER: " + "; ".join(outcome.differences)
    )


def evidence(outcome: Outcome, place: str = "") -> list[str]:
    """The journal, the decisions, and what became of the tampered copy; *place* says where it was found."""
    journal, tampered = outcome.journal, outcome.tampered
    health = "verified" if journal["verify_ok"] else "DAMAGED"
    lines = [
        f"  journal      {journal['records']} records, {journal['bytes']:,} bytes, {health}",
        f"  decisions    {outcome.decisions}, sha256 {outcome.decisions_sha256[:16]}…",
    ]
    if tampered["changed"] is not None:
        lines.append(
            f"  tampering    one digit of record {tampered['changed']} changed in a copy; verify names record "
            f"{tampered['named']}{place}: {tampered['reason']}"
        )
    return lines


def loose_ends(outcome: Outcome) -> list[str]:
    """Orders that still rest, and chapters that were promised and not shown."""
    return [f"  resting      {order}" for order in outcome.resting] + [
        f"  NOT SHOWN    {chapter}" for chapter in outcome.chapters_missing
    ]
