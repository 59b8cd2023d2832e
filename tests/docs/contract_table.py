"""Renders docs/contract.md from the `contract` markers of the tests: row, promise, tests or "not yet".

Run it to write the page: `python tests/docs/contract_table.py`.
"""

import ast
from collections import defaultdict
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "contract.md"

ROWS = {
    "A1": "`KalshiClient`: every call has a breaker, a timeout and one record",
    "A2": "Placing writes an `ORDER` record, durable before the bytes leave",
    "A3": "The breaker's life: closed, open, fail fast, half open, closed",
    "A4": "Which answers count as failure is configuration",
    "A5": "Four presets; each will guard a real client",
    "A6": "`registry.get_all_stats()`",
    "A7": "`route_order` and its answers",
    "A8": "One denial: two violations and one decision",
    "A9": "`check_risk`: position, order value, daily loss",
    "A10": "The four `audit_logger` methods and their event types",
    "A11": "Files, rotation, gzip, sync before acknowledgement",
    "A12": "`wal.query(...)`",
    "A13": "`wal.verify_integrity()`, no sequence gaps ever",
    "A14": "Three scenarios: outage, position limit, breaker open",
    "A15": "Retry with backoff for reads, never for orders",
    "A16": "A lost answer is neither repeated nor forgotten",
    "A17": "Alerts and dashboard",
    "A18": "Executable compliance queries, recovery and replay",
    "A19": "Archive to object storage for seven years",
    "A20": "Breakers per market and endpoint class",
    "A21": "Paper and live trading from the same code",
    "B1": "`TradingCircuitBreaker` and its events",
    "B2": "`TrailingStop.update`",
    "B3": "`TrailingStopManager`",
    "B4": "`check_entry_allowed`",
    "B5": "`RiskLimitsConfig`",
    "B6": "Portfolio health and remaining capacity",
    "B7": "`RiskEventLogger`",
    "B8": "Risk event types and the Delta table",
    "B9": "`RiskManager` holds all three layers",
    "B10": "`EntryWorkflow`",
    "B11": "`PositionMonitoringWorkflow`",
    "B12": "`OrderExecutionEngine`",
    "B13": "An orchestrator with roll-out step by step",
    "B14": "Saved queries over risk events",
    "B15": "Interactive Brokers",
    "X1": "25 pre-trade and post-trade controls",
    "X2": "A log that proves itself",
    "X3": "Decisions that replay from the log alone",
    "X4": "A gateway for bots in any language",
    "X5": "A halt that works when nothing else does",
    "X6": "One command that shows all of it",
    "X7": "Shared limits across processes and hosts",
}


def marked(marker: str) -> dict[str, set[str]]:
    """The tests that carry *marker*, by its argument: "A7" -> {"tests/…::test_…", …}."""
    found: dict[str, set[str]] = defaultdict(set)
    for name, carried in _carried():
        for argument in carried.get(marker, ()):
            found[argument].add(name)
    return found


@cache
def _carried() -> list[tuple[str, dict[str, list]]]:
    """Of each test function and class, the arguments of each marker; a module's `pytestmark` is on all of them."""
    carried = []
    for path in sorted((ROOT / "tests").rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        everywhere = _markers(
            node.value
            for node in tree.body
            if isinstance(node, ast.Assign)
            and any(getattr(target, "id", "") == "pytestmark" for target in node.targets)
        )
        outer = [node for node in tree.body if isinstance(node, ast.ClassDef)]
        for node in (*tree.body, *(inner for each in outer for inner in each.body)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                markers = _markers(node.decorator_list)
                if node.name.startswith(("test_", "Test")):
                    for marker, arguments in everywhere.items():
                        markers[marker].extend(arguments)
                carried.append((f"{path.relative_to(ROOT)}::{node.name}", markers))
    return carried


def _markers(expressions) -> dict[str, list]:
    """The calls of attributes in *expressions* with their arguments: @pytest.mark.contract("A7") -> contract: A7."""
    found = defaultdict(list)
    for expression in expressions:
        for node in ast.walk(expression):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                found[node.func.attr] += [
                    argument.value for argument in node.args if isinstance(argument, ast.Constant)
                ]
    return found


def render() -> str:
    tests = marked("contract")
    unknown = sorted(set(tests) - set(ROWS))
    if unknown:
        raise ValueError(f"tests carry contract rows that do not exist: {unknown}")
    lines = [
        "# What must work, and the tests that prove it",
        "",
        "Written by `python tests/docs/contract_table.py`; a test keeps it true. A row is what a test carries as",
        '`@pytest.mark.contract("A7")`; *not yet* means that no test carries it, so nothing is promised there.',
        "",
        "| row | promise | proven by |",
        "| --- | --- | --- |",
    ]
    for row, promise in ROWS.items():
        names = sorted(tests.get(row, ()))
        shown = "<br>".join(f"`{name}`" for name in names) or "not yet"
        lines.append(f"| {row} | {promise} | {shown} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    PAGE.write_text(render(), encoding="utf-8")
