"""The event: a contract value with an identity that never changes, in CloudEvents binary mode.

Seven headers travel with every event: `ce_specversion ce_id ce_source ce_type ce_time traceparent heddle-lineage`.
Identity is (`ce_source`, `ce_id`). Format rules here are fixed for ever (guarantees: "Event identity").
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import blake2b
from typing import Generic, NamedTuple, TypeVar
from urllib.parse import quote

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

SPECVERSION, ID, SOURCE, TYPE, TIME = "ce_specversion", "ce_id", "ce_source", "ce_type", "ce_time"
TRACEPARENT = "traceparent"
LINEAGE = "heddle-lineage"
RESERVED_PREFIX = "heddle-"
REPLAYED = "heddle-replayed"
"""Last header of a record that comes from the dead-letter topic and out of its key's log order. In memory only."""
EVENT_HEADERS = frozenset({SPECVERSION, ID, SOURCE, TYPE, TIME, TRACEPARENT, LINEAGE})

LINEAGE_VERSION = b"1"
SPECVERSION_HEADER = (SPECVERSION, b"1.0")
TRACE_START = b"00-"
TRACE_SHAPE = TRACE_START + b"0" * 32 + b"-" + b"0" * 16 + b"-00"
DIGITS_AS_ZERO = bytes.maketrans(b"123456789abcdef", b"0" * 15)

RawHeaders = list[tuple[str, bytes | None]]


class Identity(NamedTuple):
    """Who an event is: unique in the whole project, the same on every retry, replay and edit."""

    source: str
    id: str


class Lineage(NamedTuple):
    """`revision` = which code made the event (handler digest and edit number); `root` = the event it all began with."""

    revision: str
    root: Identity

    def pack(self) -> bytes:
        """`1;<revision>;<root source>;<root id>`; a semicolon in the source is escaped, the id may hold any."""
        root = _packed_root(self.root.source.encode(), self.root.id.encode())
        return b";".join((LINEAGE_VERSION, self.revision.encode(), root))

    @staticmethod
    def unpack(packed: bytes) -> Lineage:
        """Raises ValueError on another format version or shape."""
        version, revision, source, root_id = packed.split(b";", 3)
        if version != LINEAGE_VERSION:
            raise ValueError(f"lineage format version {version!r} is not 1; a newer Heddle wrote it")
        return Lineage(revision.decode(), Identity(source.decode().replace("%3B", ";"), root_id.decode()))


@dataclass(frozen=True, slots=True)
class Event(Generic[T_co]):
    """What a handler may ask for beside the value. Missing headers (a foreign producer) are filled from the
    record's coordinates, so every record has an identity."""

    value: T_co
    identity: Identity
    type: str
    time: str
    key: str
    lineage: Lineage
    traceparent: bytes | None
    extra: RawHeaders = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Draft(Generic[T]):
    """One event as a source's converter yields it.

    `id` is the vendor's own event id, or `stable_id(...)` where the vendor has none; never random, never the clock.
    `time` is when it happened, aware. `deletes` names a contract whose entity is gone: `value` is then a dict of the
    fields that make its key, and the record is a tombstone, a key without a value."""

    value: T
    id: str
    time: datetime
    deletes: type | None = None


def stable_id(*parts: str) -> str:
    """Base32 of BLAKE2b-128 over length-prefixed UTF-8 fields: 26 lower-case characters, the same for ever."""
    return hashed_id(b"".join([prefixed(part.encode()) for part in parts])).decode()


def prefixed(data: bytes) -> bytes:
    """With its length before it, so that parts that are joined cannot run into one another."""
    return len(data).to_bytes(4, "big") + data


def hashed_id(data: bytes) -> bytes:
    """The 128-bit digest as 26 characters without padding, ten bits at a time: twice as fast as the library's."""
    number = int.from_bytes(blake2b(data, digest_size=ID_DIGEST_BYTES).digest(), "big") << 2
    pairs = _PAIRS
    return b"".join([pairs[number >> shift & 1023] for shift in _SHIFTS])


ID_DIGEST_BYTES = 16
ID_ALPHABET = b"abcdefghijklmnopqrstuvwxyz234567"
_PAIRS = [bytes((high, low)) for high in ID_ALPHABET for low in ID_ALPHABET]
_SHIFTS = range(120, -1, -10)


def entity_key(entity_id: str, tenant: str = "default") -> bytes:
    """`tenant/entity`, each percent-escaped UTF-8."""
    return f"{quote(tenant, safe='')}/{quote(entity_id, safe='')}".encode()


def event_time(moment: datetime) -> str:
    """RFC 3339 in UTC with microseconds. Raises ValueError for a naive datetime."""
    if moment.tzinfo is None:
        raise ValueError("event time has no zone; use an aware datetime")
    return moment.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def valid_traceparent(value: bytes | None) -> bool:
    """Whether `value` is a W3C trace context, version 00."""
    return value is not None and value.startswith(TRACE_START) and value.translate(DIGITS_AS_ZERO) == TRACE_SHAPE


def event_headers(
    identity: Identity, contract: str, time: bytes, lineage: bytes, traceparent: bytes | None, extra: RawHeaders
) -> RawHeaders:
    """The seven, then what came along and is none of ours."""
    headers: RawHeaders = [
        SPECVERSION_HEADER,
        (ID, identity.id.encode()),
        (SOURCE, identity.source.encode()),
        (TYPE, contract.encode()),
        (TIME, time),
        (LINEAGE, lineage),
    ]
    if traceparent is not None:
        headers.append((TRACEPARENT, traceparent))
    headers.extend(extra)
    return headers


class ParsedHeaders(NamedTuple):
    """One record's headers, read once and left as bytes: what most flows only pass on is not decoded.

    `root` is packed as in the lineage header: source, semicolon, id. `extra` is what is not ours, untouched."""

    source: bytes
    id: bytes
    type: bytes
    time: bytes
    revision: bytes
    root: bytes
    traceparent: bytes | None
    extra: RawHeaders

    @property
    def identity(self) -> Identity:
        return Identity(_text(self.source), _text(self.id))

    @property
    def lineage(self) -> Lineage:
        source, _, root_id = self.root.partition(b";")
        return Lineage(_text(self.revision), Identity(_text(source).replace("%3B", ";"), _text(root_id)))


def parse_headers(headers: RawHeaders, topic: str, partition: int, offset: int, timestamp_ms: int) -> ParsedHeaders:
    """Never raises: a record that no Heddle wrote gets an identity from its coordinates and its append time.

    Of a header that comes twice the last counts, as CloudEvents readers take it. Names that begin with `heddle-` are
    the engine's and do not travel into other events."""
    known = dict(headers)
    extra = [] if known.keys() <= EVENT_HEADERS else [h for h in headers if not _is_ours(h[0])]
    source, event_id = known.get(SOURCE), known.get(ID)
    if not source or not event_id:
        source, event_id = f"/topics/{topic}".encode(), b"%d-%d" % (partition, offset)
    version, _, rest = (known.get(LINEAGE) or b"").partition(b";")
    revision, _, root = rest.partition(b";")
    if version != LINEAGE_VERSION or b";" not in root:
        revision, root = b"", _packed_root(source, event_id)
    trace = known.get(TRACEPARENT)
    return ParsedHeaders(
        source,
        event_id,
        known.get(TYPE) or topic.encode(),
        known.get(TIME) or _append_time(timestamp_ms),
        revision,
        root,
        trace if valid_traceparent(trace) else None,
        extra,
    )


def _is_ours(name: str) -> bool:
    return name in EVENT_HEADERS or name.startswith(RESERVED_PREFIX)


def _packed_root(source: bytes, root_id: bytes) -> bytes:
    return source.replace(b";", b"%3B") + b";" + root_id


def _append_time(timestamp_ms: int) -> bytes:
    """Producers that stamp in microseconds, or not at all, must not break a reader."""
    try:
        moment = datetime.fromtimestamp(timestamp_ms / 1000, UTC)
    except (ValueError, OverflowError, OSError):
        moment = datetime.fromtimestamp(0, UTC)
    return event_time(moment).encode()


def _text(data: bytes) -> str:
    """Different bytes stay different, also where they are no UTF-8."""
    return data.decode(errors="backslashreplace")
