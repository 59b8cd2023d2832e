"""One client's connection to the gateway: made when needed, known to be up or not, and what was heard on it.

Promise: a request is asked only while the client is synchronized and the gateway linked to the broker; in every
other state reads are unreachable, and nothing is sent. A request of a kind that the library can have only one of
(open orders, positions, time) waits for the one before it; one that is never answered ends the connection, since
its late answer would be taken for the next one's.

What the library tells through events is noted here and wakes whoever waits. An exception in a handler would vanish
inside the library, and so would a message of the gateway that the library cannot read: an execution dated in a zone
that this machine does not know, for instance. Where it is about orders, executions or the account nothing is sent
from then on, and whoever follows `events` is told.

Limits: used from one event loop. Nothing is repeated here; the books that were missed are read by who owns them.
"""

from __future__ import annotations

import asyncio
import socket
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable
from functools import wraps
from typing import Any, TypeVar, cast

from holdfast.core.clock import NANOS, Clock
from holdfast.core.errors import VenueAnswerUnknown, VenueError, VenueRejected, VenueUnreachable
from holdfast.venues.ib.errors import RULES, Heard, Kind
from holdfast.venues.ib.library import load

T = TypeVar("T")

TAKEN = "client_id_in_use"
"""Code of the refusal of a second client under one id."""
FIRST_WAIT_SECS, LONGEST_WAIT_SECS = 1, 32
_VITAL = {
    3: "orderStatus",
    4: "error",
    5: "openOrder",
    6: "accountValue",
    11: "execDetails",
    53: "openOrderEnd",
    55: "execDetailsEnd",
    59: "commissionReport",
    61: "position",
    62: "positionEnd",
    101: "completedOrder",
    102: "completedOrdersEnd",
}
"""Numbers of the gateway's messages about orders, executions and the account, as the library knows them."""
_PAPER = "D"
"""Numbers of paper accounts begin with it, and no others."""
_LINK = {Kind.LINK_LOST: False, Kind.LINK_BACK: True, Kind.LINK_BACK_DATA_LOST: True}


class Session:
    """See the head of this file.

    Args:
        ib: An unconnected `ib_async.IB`; its events are used.
        host, port, client_id: Where the gateway listens, and as whom.
        account: The account's number; "" takes the only one there is, where that is a paper account or is only read.
        readonly: Never ask for orders; the gateway may be in read-only mode.
        clock: Waits between attempts run on it.
        timeout_secs: For a connection to be made and synchronized, wall time.

    Attributes:
        account: As given, or the only one once connected.
        client_id: As given.
        is_linked: What the gateway last said of its own link.
        connections: How often a connection was made.
        numbers_from: No order or request gets a number below.
        failure: What a handler raised; raised again to whoever follows events.
        heard_ns: When anything last came from the gateway, clock monotonic.
        on_heard, on_end, on_failure: Told of each message with the contract it names, of the end of a connection,
            and of a handler's failure.
    """

    def __init__(
        self,
        ib: Any,
        *,
        host: str,
        port: int,
        client_id: int,
        account: str,
        readonly: bool,
        clock: Clock,
        timeout_secs: float,
    ) -> None:
        self.ib = ib
        self.address = f"{host}:{port}"
        self.account = account
        self.readonly = readonly
        self.is_linked = True
        self.connections = 0
        self.numbers_from = 1
        self.failure: Exception | None = None
        self.heard_ns = 0
        self.on_heard: Callable[[Heard, Any], None] = _nothing
        self.on_end: Callable[[str], None] = _nothing
        self.on_failure: Callable[[], None] = _nothing
        self.client_id = client_id
        self._host, self._port = host, port
        self._clock = clock
        self._timeout_secs = timeout_secs
        self._up = False
        self._tries = 0
        self._not_before_ns = 0
        self._why_down = "not connected yet"
        self._connecting = asyncio.Lock()
        self._named: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._waiting: set[asyncio.Future[None]] = set()
        self._recent: deque[Heard] = deque(maxlen=50)
        self._about: dict[int, list[Heard]] = {}
        self._watched: list[tuple[Any, Callable[..., None]]] = []
        self.watch(ib.errorEvent, self._on_error)
        self.watch(ib.disconnectedEvent, self._on_disconnected)
        self.watch(ib.updateEvent, self._on_update)
        self._decoder: Any = ib.client.decoder
        self._decoder.interpret = self._decode

    # Being connected ----------------------------------------------------------------------------------

    @property
    def is_connected(self) -> bool:
        """Whether the gateway is connected and synchronized."""
        return self._up and bool(self.ib.isConnected())

    @property
    def is_paper(self) -> bool:
        """Whether the account's number is a paper account's."""
        return self.account.startswith(_PAPER)

    @property
    def is_up(self) -> bool:
        """Whether requests can be asked: connected, and the gateway linked to the broker."""
        return self.is_connected and self.is_linked

    @property
    def why_not(self) -> str:
        """Why nothing can be sent now; "" when it can."""
        if self.failure is not None:
            return f"the client failed: {_text(self.failure)}"
        if not self.is_connected:
            return f"not connected to the gateway at {self.address}: {self._why_down}"
        return "" if self.is_linked else "the gateway has lost its link to Interactive Brokers"

    async def ensure(self) -> None:
        """Be connected and linked.

        Raises:
            VenueUnreachable: Not now; attempts come at growing intervals.
            VenueRejected: The gateway refuses this client, or has not the account.
        """
        async with self._connecting:
            if not self.is_connected:
                if self._clock.monotonic_ns() < self._not_before_ns:
                    raise VenueUnreachable(self.why_not, hint=RULES[Kind.SESSION].hint)
                await self._connect()
        if not self.is_linked:
            raise VenueUnreachable(self.why_not, hint=RULES[Kind.LINK_LOST].hint)

    async def _connect(self) -> None:
        lib = load()
        self._recent.clear()
        self.is_linked = True
        fetch = lib.StartupFetch
        try:
            await self.ib.connectAsync(
                self._host,
                self._port,
                clientId=self.client_id,
                timeout=self._timeout_secs,
                readonly=self.readonly,
                account=self.account,
                raiseSyncErrors=True,
                fetchFields=fetch.POSITIONS | fetch.ORDERS_OPEN | fetch.ACCOUNT_UPDATES | fetch.EXECUTIONS,
            )
        except (OSError, lib.RequestError) as error:
            raise self._refusal(error) from error
        try:
            self.account = self._chosen(list(self.ib.managedAccounts()))
        except VenueRejected as error:
            self.drop(str(error))
            raise
        # The gateway's next number may be one that lives: a request under it would speak for that order.
        self.ib.client.updateReqId(self.numbers_from)
        self._up = True
        self._tries = 0
        self.connections += 1
        self.wake()

    def _refusal(self, error: Exception) -> VenueError:
        """Why no connection came to be, by what the gateway said meanwhile."""
        self._later()
        kinds = {heard.kind: heard for heard in self._recent}
        what = f"gateway at {self.address}"
        if Kind.TAKEN in kinds:
            self._why_down = f"client id {self.client_id} is in use"
            return VenueRejected(
                f"{what} refused the connection: {self._why_down}",
                code=TAKEN,
                hint=RULES[Kind.TAKEN].hint,
            )
        if Kind.READ_ONLY in kinds:
            self._why_down = "its API is read-only"
            return VenueRejected(
                f"{what} does not tell orders: {self._why_down}",
                code="read_only",
                hint=RULES[Kind.READ_ONLY].hint,
            )
        said = "; ".join(str(heard) for heard in kinds.values())
        reason, hint = self._why_unreached(error)
        self._why_down = f"{reason}{': ' if said else ''}{said}"
        return VenueUnreachable(f"{what} not reached: {self._why_down}", hint=hint)

    def _why_unreached(self, error: Exception) -> tuple[str, str]:
        """What kept a connection from coming to be, and what to look at."""
        if isinstance(error, TimeoutError):
            return f"something listens and does not answer within {self._timeout_secs:g} s", SILENT
        if isinstance(error, ConnectionRefusedError) or "Connect call failed" in str(error):
            return "nothing listens there", CLOSED
        if isinstance(error, socket.gaierror):
            return f"no such host: {_text(error)}", "correct the host's name, or give its address"
        return _text(error), RULES[Kind.SESSION].hint

    def _chosen(self, accounts: list[str]) -> str:
        if self.account and self.account not in accounts:
            raise VenueRejected(
                f"gateway at {self.address} has not the account {self.account!r}, but {', '.join(accounts)}",
                code="wrong_account",
                hint="correct [venue.ib] account, or log the gateway in with that account's user",
            )
        if not self.account and len(accounts) != 1:
            raise VenueRejected(
                f"gateway at {self.address} has {len(accounts)} accounts: {', '.join(accounts)}",
                code="account_unnamed",
                hint="name one of them in [venue.ib] account",
            )
        if not self.account and not self.readonly and not accounts[0].startswith(_PAPER):
            raise VenueRejected(
                f"gateway at {self.address} has the account {accounts[0]!r}, which trades real money and is not named",
                code="real_money",
                hint="for paper, log the gateway in with the paper user, and use its port; for real money, name the account in "
                "[venue.ib] account",
            )
        return self.account or accounts[0]

    def _later(self) -> None:
        wait_secs = min(LONGEST_WAIT_SECS, FIRST_WAIT_SECS << min(self._tries, 5))
        self._tries += 1
        self._not_before_ns = self._clock.monotonic_ns() + wait_secs * NANOS

    def drop(self, reason: str) -> None:
        """End the connection; the next request makes another."""
        was_up = self._up
        self._ended(reason)
        self.ib.disconnect()
        if was_up:
            self.on_end(reason)

    def close(self) -> None:
        """End the connection for good."""
        self._ended("closed")
        self.ib.disconnect()
        for event, handler in self._watched:
            event -= handler  # noqa: PLW2901  how the library lets go of a handler
        self._watched.clear()
        self._decoder.__dict__.pop("interpret", None)

    def _ended(self, reason: str) -> None:
        self._up = False
        self._why_down = reason
        self.wake()

    # Asking -------------------------------------------------------------------------------------------

    async def ask(self, request: Callable[[], Awaitable[T]], *, name: str = "") -> T:
        """Ask once, connected; requests of one *name* one after the other.

        Raises:
            VenueError: No connection.
            ConnectionError: It ended before the answer came.
        """
        await self.ensure()
        if not name:
            return await request()
        async with self._named[name]:
            connection = self.connections
            try:
                return await request()
            except (asyncio.CancelledError, TimeoutError):
                if connection == self.connections and self._up:
                    self.drop(f"{name} was not answered")
                raise

    def is_same(self, connection: int) -> bool:
        """Whether connection number *connection* still stands, and the gateway is linked."""
        return connection == self.connections and self.is_up

    def listen(self, number: int) -> list[Heard]:
        """Keep what is said about order *number* from now on; the list grows."""
        return self._about.setdefault(number, [])

    def unlisten(self, number: int) -> None:
        """Keep nothing more about it."""
        self._about.pop(number, None)

    def said(self) -> str:
        """The newest messages that are no all-clear, for people."""
        quiet = {Kind.FARM_UP, Kind.LINK_BACK}
        return "; ".join(str(heard) for heard in list(self._recent)[-3:] if heard.kind not in quiet)

    async def moved(self) -> None:
        """Return when anything was heard, or the connection ended."""
        waiting: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.add(waiting)
        try:
            await waiting
        finally:
            self._waiting.discard(waiting)

    def wake(self) -> None:
        """Let everybody look again."""
        for waiting in self._waiting:
            if not waiting.done():
                waiting.set_result(None)
        self._waiting.clear()

    # Hearing ------------------------------------------------------------------------------------------

    def watch(self, event: Any, handler: Callable[..., None]) -> None:
        """Call *handler* at *event* of the library; what it raises is kept, the library would swallow it."""

        @wraps(handler)
        def guarded(*args: Any) -> None:
            try:
                handler(*args)
            except Exception as error:  # noqa: BLE001  the library would swallow it: kept, and raised to the reader of events
                self.fail(error)

        event.connect(guarded, keep_ref=True)
        self._watched.append((event, guarded))

    def fail(self, error: Exception) -> None:
        """Something was missed that cannot be read again: nothing is sent any more."""
        self.failure = error
        self.wake()
        self.on_failure()

    def _decode(self, fields: list[str]) -> None:
        """Let the library read one message of the gateway, in the place of its own way, which only logs what it cannot."""
        kind = int(fields[0]) if fields and fields[0].isdecimal() else 0
        try:
            self._decoder.handlers[kind](fields)
        except Exception as error:  # noqa: BLE001  the library would swallow it: kept where it may hide an execution
            if kind in _VITAL:
                what = f"the gateway's message {_VITAL[kind]} cannot be read: {_text(error)}"
                self.fail(VenueAnswerUnknown(what, hint=UNREADABLE))

    def _on_error(self, number: int, code: int, text: str, contract: object) -> None:
        heard = Heard(number, code, text)
        self._recent.append(heard)
        linked = _LINK.get(heard.kind)
        if linked is not None:
            self.is_linked = linked
        if number in self._about:
            self._about[number].append(heard)
        self.on_heard(heard, contract)
        self.wake()

    def _on_update(self) -> None:
        self.heard_ns = self._clock.monotonic_ns()
        self.wake()

    def _on_disconnected(self) -> None:
        was_up = self._up
        if was_up:
            self._ended("the connection ended")
            self.on_end("the connection to the gateway ended")


CLOSED = (
    "start the gateway and log it in, enable its API, and compare the port: 7497 workstation paper, 7496 live, "
    "4002 gateway paper, 4001 live"
)
SILENT = "does a question wait on the gateway's screen (Trusted IPs), is it still logging in, or is this another program's port?"
UNREADABLE = "where it names a time zone, pip install tzdata; otherwise gateway and library do not fit: update both, then start again"


def _nothing(*_what: object) -> None:
    return


def _text(error: Exception) -> str:
    if error.args and isinstance(error.args[0], list):
        # What the library asked for at the start and did not get.
        return ", ".join(cast("list[str]", error.args[0]))
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
