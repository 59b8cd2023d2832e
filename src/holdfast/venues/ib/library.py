"""`ib_async`, imported when it is first needed and named when it is missing.

It is an extra: whoever trades elsewhere neither installs nor loads it.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from holdfast.core.errors import ConfigError
from holdfast.core.extras import how_to_install

if TYPE_CHECKING:
    from types import ModuleType


def load() -> ModuleType:
    """The library.

    Raises:
        ConfigError: It is not installed.
    """
    try:
        import ib_async  # noqa: PLC0415  an extra, loaded by its users alone
    except ImportError as error:
        raise ConfigError(
            "Interactive Brokers needs ib_async, which is not installed here",
            hint=how_to_install("ib"),
        ) from error
    # What the library complains about is said by our own errors and records; who wants its log configures it.
    logger = logging.getLogger("ib_async")
    if not logger.handlers:
        logger.addHandler(logging.NullHandler())
    return ib_async


def prepared(ib: Any = None) -> Any:
    """*ib*, or a new unconnected `ib_async.IB`, set so that it says what it was told.

    Its refused requests raise instead of looking like empty answers. It sends at once what it is given, or not at all. A time without a zone is UTC, as the gateway
    means it; the library would take it for the zone of this machine.
    """
    made = load().IB() if ib is None else ib
    made.RaiseRequestErrors = True
    made.TimezoneTWS = "UTC"
    made.client.MaxRequests = 0
    return made
