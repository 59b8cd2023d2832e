"""What a writer asks before it opens a log: the receipts kept, and the sinks that answer without a network.

Promise: a mark that cannot be read, and a local sink that is not there, stop the start by name: whether the log went
back is then unknown, which is no yes. Witnesses, authorities and buckets are not asked; their receipts are.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from holdfast.anchors.file import FileSink
from holdfast.anchors.receipts import Receipts
from holdfast.anchors.spec import SinkSpec, parse_sink
from holdfast.audit.anchor import Mark, MarkSource
from holdfast.audit.keys import KeyHome


def anchor_marks(home: KeyHome, sinks: Iterable[str | SinkSpec] = ()) -> list[MarkSource]:
    """The mark sources of this user's logs.

    Args:
        home: Where keys and receipts are.
        sinks: As `[anchors] sinks` names them; those that are not local are passed over.

    Raises:
        BadInput: One of them is none.
    """
    specs = [parse_sink(sink) if isinstance(sink, str) else sink for sink in sinks]
    local = [FileSink(Path(spec.address)) for spec in specs if spec.kind == "file"]

    def receipts(log_id: str) -> Iterator[Mark]:
        return Receipts(home).marks(log_id)

    return [receipts, *(sink.marks for sink in local)]
