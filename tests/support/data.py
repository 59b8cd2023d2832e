"""Where the recordings are: $HOLDFAST_DATA, else ../shared/data beside the checkout."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]


def require(*relative: str) -> Path:
    """The data folder, or one path below it; without it the test is skipped, or fails where the variable promises it."""
    promised = os.environ.get("HOLDFAST_DATA")
    root = Path(promised) if promised else CHECKOUT.parent / "shared" / "data"
    path = root.joinpath(*relative)
    if path.exists():
        return path
    if promised:
        pytest.fail(f"HOLDFAST_DATA is set to {promised!r} but {path} does not exist")
    pytest.skip(
        f"recordings missing: {path} does not exist; set HOLDFAST_DATA to the folder that holds 'kalshi'"
    )
