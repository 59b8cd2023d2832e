"""What one decision reads of the account and the market, taken in one moment under the account's lock.

    facts(intent)       everything that its checks read, as one value: with it they decide alone
    holdings()          every position at its price, folded anew only after a position or a price changed

Beside these it keeps what only a gate knows: what the broker said it would still carry, with all that was set aside
since, and when the last order that increases was admitted.

Limits: it decides nothing, and what it reads is as fresh as the `Market` was told. The caller holds the lock.
"""

from __future__ import annotations

from typing import Final

from holdfast.core.clock import Clock
from holdfast.core.instruments import Instrument, InstrumentKind
from holdfast.core.money import MoneyE6, PriceE4, QtyE2
from holdfast.core.signals import BookSide, Intent
from holdfast.risk.account import Account
from holdfast.risk.checks import Facts, Leg
from holdfast.risk.contracts import ContractFacts, contract_facts
from holdfast.risk.halt import TradingState
from holdfast.risk.limits import RiskLimits
from holdfast.risk.market import Holdings, Market
from holdfast.risk.portfolio_rows import portfolio_facts

# Looking a member up on its enum costs more than a comparison.
_BID: Final = BookSide.BID
_BINARY: Final = InstrumentKind.BINARY
_THROTTLED: Final = TradingState.THROTTLED
_FLAT: Final = QtyE2(0)
_FREE: Final = PriceE4(0)


class Reading:
    """See the head of this file.

    Attributes:
        buying_power: What the broker said it would carry more; None when nobody asked it.
        spoken_for: Set aside when it said so, and since; plans count beside it.
        last_increase_ns: When the last increasing order was admitted, clock monotonic; None before any.
    """

    def __init__(self, account: Account, market: Market, clock: Clock) -> None:
        self.buying_power: MoneyE6 | None = None
        self.spoken_for = 0
        self.last_increase_ns: int | None = None
        self._account = account
        self._market = market
        self._clock = clock
        self._holdings = market.holdings({})
        self._seen = -1

    def saw_buying_power(self, amount: MoneyE6) -> None:
        """The broker would carry *amount* more; everything reserved now counts against it."""
        self.buying_power = amount
        self.spoken_for = self._account.reserved

    def facts(self, intent: Intent, limits: RiskLimits, plan: str = "", way_out: int = 0) -> Facts:
        """What *intent* is judged by.

        Args:
            intent: The order.
            limits: They say which underlyings belong together.
            plan: Of which plan it is a step, whose share is left out.
            way_out: Fees of leaving again, of a state that a plan may reach, 1e-6 dollar.
        """
        account, market, instrument = self._account, self._market, intent.instrument
        portfolio, state, ticker = account.portfolio, account.holds.state, intent.signal.ticker
        buys, sells = account.working(ticker)
        now_ns = self._clock.monotonic_ns()
        since_ns: int | None = None
        if state is _THROTTLED and self.last_increase_ns is not None:
            since_ns = now_ns - self.last_increase_ns
        close_ns = instrument.close_ns
        is_open = (
            instrument.is_open
            and not market.is_resolved(ticker)
            and (not close_ns or self._clock.now_ns() < close_ns)
        )
        contract: ContractFacts | None = None
        if instrument.kind is not _BINARY:
            contract = self._contract(intent, limits, now_ns, plan, way_out)
            is_open = is_open and all(leg.instrument.is_open for leg in instrument.parts)
        return Facts(
            state,
            portfolio.positions.get(ticker, _FLAT),
            buys,
            sells,
            account.open_value,
            portfolio.cash,
            self.holdings(),
            now_ns,
            market.alive_ns,
            is_open,
            since_ns,
            self._legs(instrument) if instrument.event_exclusive else (),
            "",
            contract,
        )

    def holdings(self) -> Holdings:
        """The positions at their prices, made anew only after one of either changed."""
        seen = self._account.moves + self._market.changes  # neither ever falls
        if seen != self._seen:
            self._holdings = self._market.holdings(self._account.portfolio.positions)
            self._seen = seen
        return self._holdings

    def _contract(
        self, intent: Intent, limits: RiskLimits, now_ns: int, plan: str, way_out: int
    ) -> ContractFacts:
        """What an order of an option, a combination or a stock reads besides; *now_ns* is monotonic."""
        account, market, bounds = self._account, self._market, limits.portfolio
        return contract_facts(
            account,
            market,
            intent,
            self._clock.now_ns(),
            buying_power=self.buying_power,
            spoken_for=self.spoken_for + account.plans.set_aside(but=plan),
            portfolio=None
            if bounds is None
            else portfolio_facts(account, market, intent, bounds, now_ns, plan, self.holdings()),
            plan=plan,
            way_out=way_out,
        )

    def _legs(self, instrument: Instrument) -> tuple[Leg, ...]:
        """Everything that the account holds and works in an exclusive event; nothing where that is one market.

        Each order stands for itself: at a price that it does not have it could hide which outcome is the worst.
        """
        account, rules, own = self._account, self._market.instruments, instrument.ticker

        def is_in_event(ticker: str) -> bool:
            known = rules.get(ticker)
            return ticker == own or (known is not None and known.event == instrument.event)

        legs = [
            Leg(ticker, qty, _FLAT, _FREE, _FLAT, _FREE)
            for ticker, qty in account.portfolio.positions.items()
            if is_in_event(ticker)
        ]
        for order in account.open_orders():
            if is_in_event(order.ticker) and (leaves := order.leaves):
                bids, asks = (leaves, _FLAT) if order.side is _BID else (_FLAT, leaves)
                legs.append(Leg(order.ticker, _FLAT, bids, order.yes_price, asks, order.yes_price))
        return tuple(legs) if any(leg.ticker != own for leg in legs) else ()
