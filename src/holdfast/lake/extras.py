"""Libraries that only the lake's users need: imported when they are asked for, and named where they are missing."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

from holdfast.core.errors import BadInput
from holdfast.core.extras import how_to_install

EXTRA_OF: Mapping[str, str] = {
    "deltalake": "lake",
    "duckdb": "sql",
    "matplotlib": "plot",
    "obstore": "lake",
    "polars": "lake",
    "pyarrow": "lake",
    "pytz": "sql",
}
"""The extra of holdfast that brings each library."""


def load(module: str) -> Any:
    """The module of that name.

    Raises:
        BadInput: Its library is not installed; the hint names the extra that brings it.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as why:
        library = (why.name or module).partition(".")[0]
        if library not in EXTRA_OF and library != module.partition(".")[0]:
            raise
        hint = how_to_install(EXTRA_OF[library]) if library in EXTRA_OF else f"pip install {library}"
        raise BadInput(f"this needs {library}, which is not installed", hint=hint) from why
