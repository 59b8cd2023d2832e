"""The write-ahead log: if it is not here, it did not happen.

The names below are imported when they are first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from holdfast.core.lazy import names_of

if TYPE_CHECKING:
    from holdfast.audit.logger import AuditLogger
    from holdfast.audit.wal import WriteAheadLog
    from holdfast.defaults import audit_logger

_HOME = {
    "AuditLogger": "holdfast.audit.logger",
    "WriteAheadLog": "holdfast.audit.wal",
    "audit_logger": "holdfast.defaults",
}

__all__ = [
    "AuditLogger",
    "WriteAheadLog",
    "audit_logger",
]

__getattr__ = names_of(__name__, _HOME)
