"""Every exception holdfast raises, drawn once.

    TradingError
    ├── OrderDenied                we said no; change the order or wait, never retry as it is
    ├── CannotAct                  trading is restricted; its reasons stand in the log
    ├── CircuitBreakerOpenError    the dependency is failing; wait for `retry_after_secs`
    ├── IllegalTransition          a state machine was told something its table forbids; a bug, report it
    ├── BadInput                   a value cannot be read (price, count, time, line); correct it
    │   ├── DuplicateStop          this execution has a trailing stop already; reset or remove that one
    │   └── UnsupportedCallable    a breaker cannot protect this callable; decorate another shape
    ├── VenueError                 something between us and the venue
    │   ├── VenueRejected          the venue said no, for a reason it names
    │   ├── VenueUnreachable       nothing was sent; trying again later is safe
    │   └── VenueAnswerUnknown     it may have happened; never repeat, reconcile
    ├── AuditError                 the log
    │   ├── AuditWriteError        a write or sync failed; the log is poisoned until reopened
    │   │   └── DiskFull           there is no room for another record; free space, start again
    │   ├── AuditCorruption        the log is damaged at a named place; nothing was changed
    │   ├── ProofRefused           a proof file says something false; it proves nothing, ask for another one
    │   ├── ArchiveRefused         the archive's store said no, or cannot be trusted; the message says what to change
    │   │   └── ArchiveUnreachable the store gave no usable answer; what it holds is kept, run the same command again
    │   ├── AnchorUnreachable      what remembers the log elsewhere cannot be asked; mend it or take it out
    │   ├── LogHeld                another process writes this log; stop it or choose another directory
    │   ├── KeyMissing             the log is signed and its private key is not here; bring it, or replace it
    │   └── LogUnwritable          the directory cannot hold a log (rights, no directory); choose another
    ├── LakeError                  the lake's tables cannot be used as they are; the journal is untouched
    │   ├── LakeRefused            its store said no, or cannot be trusted; the message says what to change
    │   ├── LakeUnreachable        its store gave no usable answer; run the same command again
    │   └── LakeDamaged            a table is torn, or not what the journal says; repair or rebuild it
    └── ConfigError                configuration or environment; lists every problem at once

A refusal is a value (`core.reasons.RejectReason`); an exception is a surprise, or a refusal carried across
an interface that returns something else. Messages follow one form: what was refused or failed, actual
with unit, relation, bound with unit, keys in parentheses; the same facts stand as attributes. No message
carries a secret.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from holdfast.core.reasons import RejectReason

EXIT_OK = 0
EXIT_USER_ERROR = 1
EXIT_USAGE = 2
EXIT_INTEGRITY = 3
EXIT_CANNOT_ACT = 4
EXIT_UNREACHABLE = 5


class TradingError(Exception):
    """The root of holdfast's exceptions.

    Attributes:
        hint: What the reader can do about it, one sentence, or "".
        exit_code: What a command ends with when this error reaches its top.
    """

    exit_code = EXIT_USER_ERROR

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint
        if hint:
            self.add_note(f"hint: {hint}")  # a program that does not catch it shows it below its traceback

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled with all its attributes, whatever its constructor takes."""
        return _revive, (type(self), self.args, self.__dict__)


def _revive(kind: type[TradingError], args: tuple[Any, ...], attributes: dict[str, Any]) -> TradingError:
    error = kind.__new__(kind, *args)
    error.__dict__.update(attributes)
    return error


class OrderDenied(TradingError):
    """We refused the order before it left; `reason` says why and by how much."""

    exit_code = EXIT_CANNOT_ACT

    def __init__(self, client_order_id: str, reason: RejectReason) -> None:
        super().__init__(f"order {client_order_id!r} denied: {reason}")
        self.client_order_id = client_order_id
        self.reason = reason


class CannotAct(TradingError):
    """The trading state allows nothing that adds risk; the message names who holds it."""

    exit_code = EXIT_CANNOT_ACT


class CircuitBreakerOpenError(TradingError):
    """The breaker did not admit the call; nothing was sent.

    Attributes:
        breaker: Its name.
        retry_after_secs: Seconds until a probe may go, or None when a person must reset it.
    """

    exit_code = EXIT_CANNOT_ACT

    def __init__(self, message: str, *, breaker: str, retry_after_secs: float | None) -> None:
        super().__init__(message)
        self.breaker = breaker
        self.retry_after_secs = retry_after_secs


class IllegalTransition(TradingError):
    """A state machine was told something that its table forbids."""


class BadInput(TradingError, ValueError):
    """A value from outside cannot be read; the message names it and says what is expected."""


class DuplicateStop(BadInput):
    """An execution was to get a second trailing stop; the first one stays in force."""


class UnsupportedCallable(BadInput, TypeError):
    """A breaker was asked to protect something whose outcome it could not see."""


class VenueError(TradingError):
    """Something between us and the venue."""

    exit_code = EXIT_UNREACHABLE


class VenueRejected(VenueError):
    """The venue answered no.

    Attributes:
        code: The venue's own reason code.
        status: HTTP status or 0.
    """

    exit_code = EXIT_USER_ERROR

    def __init__(self, message: str, *, code: str, status: int = 0, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.code = code
        self.status = status


class VenueUnreachable(VenueError):
    """Nothing reached the venue; trying again later is safe."""


class VenueAnswerUnknown(VenueError):
    """The request may have been carried out; never repeat it, reconcile."""

    def __init__(self, message: str, *, status: int = 0, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.status = status


class AuditError(TradingError):
    """The audit log."""

    exit_code = EXIT_CANNOT_ACT


class AuditWriteError(AuditError):
    """A write or sync failed; nothing after it is acknowledged until the log is reopened through recovery."""


class DiskFull(AuditWriteError):
    """The volume has no room for another record; what was acknowledged is there."""


class AuditCorruption(AuditError):
    """The log is damaged.

    Attributes:
        sequence: The lowest sequence that is not valid in its place, or 0 where no record is concerned.
        file: File name inside the log directory.
        offset: Byte offset in that file.
    """

    exit_code = EXIT_INTEGRITY

    def __init__(
        self, message: str, *, sequence: int = 0, file: str = "", offset: int = 0, hint: str = ""
    ) -> None:
        super().__init__(message, hint=hint)
        self.sequence = sequence
        self.file = file
        self.offset = offset


class ArchiveRefused(AuditError):
    """The store of the archive refused, or does not keep what an archive needs; a person changes something."""

    exit_code = EXIT_USER_ERROR


class ArchiveUnreachable(ArchiveRefused):
    """The store could not be reached or did not answer in order; repeating the command goes on where it ended."""

    exit_code = EXIT_UNREACHABLE


class AnchorUnreachable(AuditError):
    """What remembers the log elsewhere cannot be asked; whether the log went back is unknown, which is no yes."""

    exit_code = EXIT_UNREACHABLE


class LogHeld(AuditError):
    """Another process writes this log."""


class ProofRefused(AuditError):
    """A proof file can be read and does not hold: a signature is wrong, or its record is not the one logged."""

    exit_code = EXIT_INTEGRITY


class KeyMissing(AuditError):
    """The log is signed and the private key in force is not here, or another one; nothing was changed."""


class LogUnwritable(AuditError):
    """The log's directory cannot be made, read or written as it is; a person chooses another or mends it."""

    exit_code = EXIT_USER_ERROR


class LakeError(TradingError):
    """A table of the lake cannot be used as it is; the journal, which is the truth, is not concerned."""


class LakeRefused(LakeError):
    """The lake's store refused, or overwrites what it should keep; a person changes something."""


class LakeUnreachable(LakeError):
    """The lake's store gave no usable answer; what was committed stays, repeat the command."""

    exit_code = EXIT_UNREACHABLE


class LakeDamaged(LakeError):
    """A table of the lake is torn, or holds other rows than the journal; it is repaired or rebuilt."""

    exit_code = EXIT_INTEGRITY


class ConfigError(TradingError):
    """Configuration cannot be used; the message lists every problem, one a line."""
