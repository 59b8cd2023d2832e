"""The only path from intent to venue.

The names below are imported when they are first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from holdfast.core.lazy import names_of

if TYPE_CHECKING:
    from holdfast.execution.desk import OptionsDesk
    from holdfast.execution.engine import OrderExecutionEngine
    from holdfast.execution.entry import EntryWorkflow
    from holdfast.execution.monitoring import PositionMonitoringWorkflow
    from holdfast.execution.router import AsyncOrderRouter, OrderRouter
    from holdfast.execution.strategy import Strategy

_HOME = {
    "AsyncOrderRouter": "holdfast.execution.router",
    "EntryWorkflow": "holdfast.execution.entry",
    "OptionsDesk": "holdfast.execution.desk",
    "OrderExecutionEngine": "holdfast.execution.engine",
    "OrderRouter": "holdfast.execution.router",
    "PositionMonitoringWorkflow": "holdfast.execution.monitoring",
    "Strategy": "holdfast.execution.strategy",
}

__all__ = [
    "AsyncOrderRouter",
    "EntryWorkflow",
    "OptionsDesk",
    "OrderExecutionEngine",
    "OrderRouter",
    "PositionMonitoringWorkflow",
    "Strategy",
]

__getattr__ = names_of(__name__, _HOME)
