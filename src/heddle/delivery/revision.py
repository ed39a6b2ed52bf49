"""Which code, and which edit, made an event: same identity, same revision, other body would be a contract failure."""

from __future__ import annotations

from heddle.broker.log import Outgoing, Record
from heddle.delivery.steps import parsed_headers
from heddle.event import LINEAGE, REPLAYED

TRIED_SINCE = "heddle-tried-since-ms"
"""Of a record that comes from the dead-letter topic: since when a try may have taken effect, or 0. In memory only."""

_VERSION = b"1"


def revised(output: Outgoing, edit: int) -> Outgoing:
    """An output of an edited record: the handler's revision with the number of the edit in place of its 0."""
    headers = [(name, _renumbered(value, edit) if name == LINEAGE else value) for name, value in output.headers]
    return output._replace(headers=headers)


def as_handled(record: Record, edit: int, *, is_ordered: bool, tried_since_ms: int | None = None) -> Record:
    """An entry's record as the handler gets it: an edited one says so in its lineage, one that comes out of its key's
    log order says that in its last header."""
    headers = list(record.headers)
    if edit:
        parsed = parsed_headers(record)
        revision = (parsed.revision or b"-") + b".%d" % edit
        headers = [h for h in headers if h[0] != LINEAGE]
        headers.append((LINEAGE, b";".join((_VERSION, revision, parsed.root))))
    if tried_since_ms is not None:
        headers.append((TRIED_SINCE, b"%d" % tried_since_ms))
    if not is_ordered:
        headers.append((REPLAYED, b"1"))
    return record._replace(headers=headers)


def _renumbered(lineage: bytes | None, edit: int) -> bytes | None:
    if lineage is None:
        return None
    version, revision, root = lineage.split(b";", 2)
    return b";".join((version, revision.rpartition(b".")[0] + b".%d" % edit, root))
