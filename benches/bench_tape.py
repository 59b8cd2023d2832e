"""One recorded game (two markets, full depth) through feed and matching at full speed, and the seeded market.

Each measurement runs in a process of its own, so that its peak memory is its own; the peak beside it is that of
the same process after its imports.
"""

from __future__ import annotations

import json
import os
import random
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

GAME = ("KXNBAGAME-26MAR07GSWOKC-GSW", "KXNBAGAME-26MAR07GSWOKC-OKC")
CHECKOUT = Path(__file__).resolve().parents[1]


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def child(what: str) -> dict[str, float]:
    from holdfast.core.money import PriceE4, QtyE2
    from holdfast.core.signals import BookSide
    from holdfast.venues.paper.market import SeededMarket
    from holdfast.venues.paper.matching import MarketBook, NewOrder
    from holdfast.venues.paper.tape import open_feed

    imported_mb = peak_mb()
    begin = time.perf_counter()
    if what == "seeded":
        feed = SeededMarket(random.Random(1))
    else:
        root = Path(os.environ.get("HOLDFAST_DATA") or CHECKOUT.parent / "shared" / "data")
        feed = open_feed(root / "kalshi" / "l2-nba-unlicensed", tickers=GAME)
    opened = time.perf_counter() - begin
    events = fills = 0
    if what in {"feed", "seeded"}:
        for _ in feed:
            events += 1
    else:
        books = {spec.ticker: MarketBook(spec, feed.kind) for spec in feed.markets}
        for event in feed:
            book = books[event.ticker]
            events += 1
            out = book.apply(event)
            # With orders: about as many resting as a busy desk keeps, so that every rule has work to do.
            if what == "orders" and events % 100 == 0 and book.is_open:
                side = BookSide.BID if events % 200 else BookSide.ASK
                touch = book.best(side)
                if touch is not None:
                    number = f"o{events}"
                    book.place(
                        NewOrder(
                            order_id=number, account="a", side=side, price=PriceE4(touch[0]), qty=QtyE2(1_000)
                        ),
                        event.ts_ns,
                    )
                    resting = book.resting_orders()
                    if len(resting) > 20:
                        book.cancel(resting[0].order_id, event.ts_ns)
            fills += sum(type(e).__name__ == "Fill" for e in out) if what == "orders" else 0
    seconds = time.perf_counter() - begin
    return {
        "seconds": seconds,
        "opened": opened,
        "events": events,
        "fills": fills,
        "peak_mb": peak_mb(),
        "imported_mb": imported_mb,
    }


def measure(what: str) -> dict[str, float]:
    done = subprocess.run([sys.executable, __file__, what], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr.strip().splitlines()[-1])
    return json.loads(done.stdout)


def row(
    name: str, value: float, unit: str, *, beside: str = "", ratio: float | None = None, bar: str = ""
) -> dict[str, Any]:
    return {"name": name, "value": value, "unit": unit, "beside": beside, "ratio": ratio, "bar": bar}


def run() -> list[dict[str, Any]]:
    feed, plain, orders, seeded = (measure(what) for what in ("feed", "matching", "orders", "seeded"))
    alone = f"feed alone {feed['seconds']:.2f} s"
    memory = f"imports alone {plain['imported_mb']:.0f} MB"
    return [
        row(
            "recorded game, feed and matching",
            plain["seconds"],
            "s",
            beside=alone,
            ratio=plain["seconds"] / feed["seconds"],
        ),
        row("recorded game, events", plain["events"] / plain["seconds"], "events/s"),
        row(
            "recorded game with 20 resting orders",
            orders["seconds"],
            "s",
            beside=alone,
            ratio=orders["seconds"] / feed["seconds"],
        ),
        row(
            "recorded game, peak memory",
            plain["peak_mb"],
            "MB",
            beside=memory,
            ratio=plain["peak_mb"] / plain["imported_mb"],
        ),
        row("seeded market, events", seeded["events"] / seeded["seconds"], "events/s", bar=">= 50,000"),
    ]


if __name__ == "__main__":
    print(json.dumps(child(sys.argv[1])))
