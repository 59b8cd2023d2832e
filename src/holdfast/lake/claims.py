"""What the commits of a table note of themselves, held against the journal: how many rows, over records of which root.

Promise: each kept commit that covers records of a journal is compared with those records, in one pass over them; what
it claims falsely is named by its version. Commits of other programs claim nothing.

Limits: commits whose records were pruned are not judged, nor those that a clean-up removed.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from holdfast.audit.tree import Frontier
from holdfast.lake.commit import METADATA_KEY, Noted, NotedSpan
from holdfast.lake.findings import Finding, Range


class _Claim(NamedTuple):
    """What the commit of one version notes of its rows of one log."""

    version: int
    said: NotedSpan


class Claims:
    """The claims of the kept commits of one table about one log, checked as its records go by in order."""

    def __init__(self, table: str, history: Sequence[Mapping[str, Any]], log_id: str) -> None:
        self._name = table
        self._log_id = log_id
        self._open = _claims_of(history, log_id)
        self._at = 0
        self._frontier = Frontier()
        self._bad: list[tuple[_Claim, str]] = []

    def take(self, seqs: Sequence[int], leaves: Sequence[bytes]) -> None:
        """Take the leaf hashes of the records *seqs*, the next ones that give a row."""
        at = 0
        while self._at < len(self._open):
            claimed = self._open[self._at].said
            first, end = bisect_left(seqs, claimed.first, at), bisect_right(seqs, claimed.last, at)
            self._frontier.extend(leaves[first:end])
            if end == len(seqs):
                break  # there may be more of it
            self._check()
            at = end

    def _check(self) -> None:
        claim, found = self._open[self._at], self._frontier
        if claim.said.rows != found.size:
            self._bad.append((claim, f"claims {claim.said.rows} rows, the journal gives {found.size}"))
        elif claim.said.root != found.root().hex():
            self._bad.append((claim, "claims another root than the journal's records have"))
        self._at += 1
        self._frontier = Frontier()

    def findings(self, first: int) -> Iterator[Finding]:
        """What does not hold of commits whose records are all there, from sequence *first* on."""
        while self._at < len(self._open):
            self._check()
        for claim, why in self._bad:
            if claim.said.first >= first:
                yield Finding(
                    kind="claim",
                    table=self._name,
                    log_id=self._log_id,
                    ranges=(Range(claim.said.first, claim.said.last),),
                    what=f"version {claim.version} {why}",
                )


def _claims_of(history: Sequence[Mapping[str, Any]], log_id: str) -> list[_Claim]:
    """The claims about *log_id*, in the order of its records."""
    found: list[_Claim] = []
    for entry in history:
        text = entry.get(METADATA_KEY)
        if not isinstance(text, str):
            continue
        try:
            noted = msgspec.json.decode(text, type=Noted)
        except msgspec.MsgspecError:
            continue  # another program's
        version = int(entry.get("version", -1))
        found += [_Claim(version, span) for span in noted.logs if span.log_id == log_id]
    return sorted(found, key=lambda claim: claim.said.first)
