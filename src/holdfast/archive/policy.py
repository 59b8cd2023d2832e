"""How copies in an archive are kept: object lock, retention, legal hold."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from typing import NamedTuple

from holdfast.archive.store import COMPLIANCE, Lock
from holdfast.core.errors import BadInput

_RETENTION = re.compile(r"([1-9][0-9]{0,4})([dy])", re.ASCII)


class Retention(NamedTuple):
    """For how long copies are locked.

    Attributes:
        years: Of the calendar.
        days: Of 24 hours.
    """

    years: int = 7
    days: int = 0

    @classmethod
    def parse(cls, text: str) -> Retention:
        """`7y` or `90d`.

        Raises:
            BadInput: It is neither, or beyond a hundred years.
        """
        match = _RETENTION.fullmatch(text)
        if match is None or int(match[1]) > {"y": 100, "d": 36_500}[match[2]]:
            raise BadInput(f"retention {text!r} refused", hint="for instance 7y or 90d; at most 100y")
        return cls(int(match[1]), 0) if match[2] == "y" else cls(0, int(match[1]))

    def after(self, moment: datetime) -> datetime:
        """The end of the retention of what was made at *moment*; the 29th of February gives the 1st of March."""
        if self.days:
            return moment + timedelta(days=self.days)
        try:
            return moment.replace(year=moment.year + self.years)
        except ValueError:
            return moment.replace(year=moment.year + self.years, month=3, day=1)


class Policy(NamedTuple):
    """How copies are kept.

    Attributes:
        mode: The object lock's mode, or None for no lock.
        retention: For how long.
        legal_hold: Whether new copies are held beyond that.
    """

    mode: str | None = COMPLIANCE
    retention: Retention = Retention()
    legal_hold: bool = False

    def lock(self, made: datetime) -> Lock | None:
        """The lock that a copy of what was made at *made* must have at least."""
        return None if self.mode is None else Lock(self.mode, self.retention.after(made), self.legal_hold)
