"""Refusals written down: the decision, the first breached limit, the router's own line; nothing is sent."""

from __future__ import annotations

from typing import Any

from holdfast.core.reasons import Code, RejectReason
from holdfast.core.signals import Signal, content_digest
from holdfast.execution.ledger import Ledger
from holdfast.execution.results import RouteResult, RouteStatus
from holdfast.risk.decisions import Decision
from holdfast.risk.gate import Gate
from holdfast.risk.manager import COMPONENT as GATE_COMPONENT


class Refusing:
    """See the head of this file.

    Args:
        gate: Numbers the decisions over what cannot be judged.
        ledger: Where they go.
    """

    def __init__(self, gate: Gate, ledger: Ledger) -> None:
        self._gate = gate
        self._ledger = ledger

    async def refuse(
        self, signal: Signal, key: str, name: str, code: Code, *, is_new: bool = True
    ) -> RouteResult:
        """Deny what cannot be judged; a conflict leaves the key's first outcome standing."""
        reason = RejectReason(code=code, scope=signal.ticker, keys={"ticker": signal.ticker})
        decision = self._gate.refuse(signal, key, name, reason)
        decision.keyed = is_new and decision.keyed
        decision.content = content_digest(signal)
        return await self.deny(decision)

    async def deny(self, decision: Decision) -> RouteResult:
        """Write a refusal: the first breached limit, then the router's own line; nothing is sent."""
        reason = decision.reason
        if reason is None:
            raise AssertionError("an allowed decision is not denied")
        if reason.code is Code.AUDIT_UNAVAILABLE:
            decision.keyed = False  # nobody decided about the wish: it may be asked again under its name
        self._ledger.note("DECISION", decision.details(), component=GATE_COMPONENT)
        self._ledger.note("RISK_VIOLATION", decision.violation())
        is_breaker = reason.code is Code.CIRCUIT_BREAKER_OPEN
        if not is_breaker:
            self._ledger.note("RISK_VIOLATION", _summary(decision, reason))
        await self._ledger.write()
        return RouteResult(
            status=RouteStatus.BREAKER_OPEN if is_breaker else RouteStatus.DENIED,
            client_order_id=decision.client_order_id,
            reason=reason.code.value,
            refusal=reason,
        )


def _summary(decision: Decision, reason: RejectReason) -> dict[str, Any]:
    """The router's own line beside the breached limit's."""
    return {
        "violation_type": Code.RISK_CHECK_FAILED.value,
        "current_value": reason.code.value,
        "limit": "0",
        "details": {"ticker": decision.signal.ticker},
        "client_order_id": decision.client_order_id,
    }
