"""The event: a contract value with an identity that never changes, in CloudEvents binary mode.

Seven headers travel with every event: `ce_specversion ce_id ce_source ce_type ce_time traceparent heddle-lineage`.
Identity is (`ce_source`, `ce_id`). Format rules here are fixed for ever (guarantees: "Event identity").
"""

from __future__ import annotations

from collections.abc import Iterable
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

AT_ID = 1
"""Where `ce_id` stands among the headers that we write."""

_LINEAGE_VERSION = b"1"
_LINEAGE_START = b"1;"
_SEMICOLON = ord(";")
_SPECVERSION = (SPECVERSION, b"1.0")
_NO_ID = (ID, b"")
_TRACE_START = b"00-"
_TRACE_SHAPE = _TRACE_START + b"0" * 32 + b"-" + b"0" * 16 + b"-00"
_AS_ZERO = bytes.maketrans(b"123456789abcdef", b"0" * 15)

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
        return b";".join((_LINEAGE_VERSION, self.revision.encode(), root))

    @staticmethod
    def unpack(packed: bytes) -> Lineage:
        """Raises ValueError on another format version or shape."""
        version, revision, source, root_id = packed.split(b";", 3)
        if version != _LINEAGE_VERSION:
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
    return _base32(b"".join([_prefixed(part.encode()) for part in parts])).decode()


class DerivedIds:
    """Ids of a flow's outputs: a function of (parent identity, flow, output contract, entity key, ordinal within that
    key), so that an inserted output of another entity shifts no id. One per flow: the constant part is made once."""

    def __init__(self, flow: str, contract: str) -> None:
        self._middle = _prefixed(flow.encode()) + _prefixed(contract.encode())

    def of(self, source: bytes, parent_id: bytes, key: bytes, ordinal: int) -> bytes:
        tail = _FIRST if ordinal == 0 else _prefixed(b"%d" % ordinal)
        return _base32(_prefixed(source) + _prefixed(parent_id) + self._middle + _prefixed(key) + tail)

    def of_each(self, parents: Iterable[tuple[bytes, bytes, bytes]]) -> list[bytes]:
        """`of` for first outputs, told as (source, parent id, key): a whole batch in a third of the time. Parents that
        follow one another mostly come from one source: what is hashed of it is kept from one to the next."""
        middle, digests = self._middle, []
        hashed, begun = None, blake2b()
        for source, parent_id, key in parents:
            if source != hashed:
                hashed, begun = source, blake2b(_prefixed(source), digest_size=_DIGEST_BYTES)
            digest = begun.copy()
            digest.update(
                len(parent_id).to_bytes(4, "big") + parent_id + middle + len(key).to_bytes(4, "big") + key + _FIRST
            )
            digests.append(digest.digest())
        return _base32_of_each(digests)


def _prefixed(data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + data


_FIRST = _prefixed(b"0")
_DIGEST_BYTES = 16


def _base32(data: bytes) -> bytes:
    """The 128-bit digest as 26 characters without padding, ten bits at a time: twice as fast as the library's."""
    number = int.from_bytes(blake2b(data, digest_size=_DIGEST_BYTES).digest(), "big") << 2
    pairs = _PAIRS
    return b"".join([pairs[number >> shift & 1023] for shift in _SHIFTS])


def _base32_of_each(digests: list[bytes]) -> list[bytes]:
    """`_base32`, a column at a time: of all groups of five bytes, which are eight characters, the first bytes,
    the second, and so on. A character is some bits of one byte, or the last of one and the first of the next."""
    padded = _PADDING.join([*digests, b""])
    columns = [padded[place::5] for place in range(5)]
    size = len(columns[0])
    text = bytearray(size * 8)
    for place, (column, bits, next_bits) in enumerate(_CHARACTERS):
        values = columns[column].translate(bits)
        if next_bits is not None:
            rest = columns[column + 1].translate(next_bits)
            values = (int.from_bytes(values, "big") | int.from_bytes(rest, "big")).to_bytes(size, "big")
        text[place::8] = values
    letters = bytes(text.translate(_LETTERS))
    return [letters[start : start + 26] for start in range(0, len(letters), _PADDED_BYTES // 5 * 8)]


_ALPHABET = b"abcdefghijklmnopqrstuvwxyz234567"
_PAIRS = [bytes((high, low)) for high in _ALPHABET for low in _ALPHABET]
_SHIFTS = range(120, -1, -10)
_LETTERS = _ALPHABET.ljust(256)
_PADDED_BYTES = 20
_PADDING = bytes(_PADDED_BYTES - _DIGEST_BYTES)


def _character(place: int) -> tuple[int, bytes, bytes | None]:
    """Of one of the eight: its column, its bits by that column's byte, and what the byte of the next column adds."""
    column, skipped = divmod(5 * place, 8)
    bits = bytes(byte << skipped >> 3 & 31 for byte in range(256))
    return column, bits, bytes(byte >> 11 - skipped for byte in range(256)) if skipped > 3 else None


_CHARACTERS = [_character(place) for place in range(8)]


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
    return value is not None and value.startswith(_TRACE_START) and value.translate(_AS_ZERO) == _TRACE_SHAPE


def event_headers(
    identity: Identity, contract: str, time: bytes, lineage: bytes, traceparent: bytes | None, extra: RawHeaders
) -> RawHeaders:
    """The seven, then what came along and is none of ours."""
    headers: RawHeaders = [
        _SPECVERSION,
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


class HeaderTemplate:
    """`event_headers` for a flow, whose source, type and revision are the same for every output."""

    def __init__(self, source: str, contract: str, revision: str) -> None:
        self._source = (SOURCE, source.encode())
        self._type = (TYPE, contract.encode())
        self._revision = _LINEAGE_VERSION + b";" + revision.encode() + b";"

    def fill(self, event_id: bytes, parent: ParsedHeaders) -> RawHeaders:
        """Headers of an output whose parent was read with `parse_headers`; time, trace and root id travel along."""
        headers: RawHeaders = [
            _SPECVERSION,
            (ID, event_id),
            self._source,
            self._type,
            (TIME, parent.time),
            (LINEAGE, self._revision + parent.root),
        ]
        if parent.traceparent is not None:
            headers.append((TRACEPARENT, parent.traceparent))
        headers.extend(parent.extra)
        return headers

    def begin_each(self, each: Iterable[RawHeaders]) -> list[Begun | None]:
        """For parents whose headers are our seven, in the order in which we write them, and nothing else; None for all
        others. One loop, because a batch of a thousand has seven thousand headers."""
        own_source, own_type, revision, begun = self._source, self._type, self._revision, list[Begun | None]()
        before_root = b""  # mostly the same all through a batch: one version of one flow has made it
        for headers in each:
            begun.append(None)
            try:
                (first, _), (second, event_id), (third, source), (fourth, _), time, (sixth, lineage), trace = headers
            except ValueError:
                continue
            if (
                first == SPECVERSION and second == ID and third == SOURCE and fourth == TYPE and time[0] == TIME
                and sixth == LINEAGE and trace[0] == TRACEPARENT and event_id and source and time[1] and lineage
                and (parent := trace[1]) and parent.startswith(_TRACE_START)
                and parent.translate(_AS_ZERO) == _TRACE_SHAPE
            ):  # fmt: skip
                if not before_root or not lineage.startswith(before_root):
                    before_root = _before_root(lineage)
                root = lineage[len(before_root) :]
                if before_root and _SEMICOLON in root:
                    made = [_SPECVERSION, _NO_ID, own_source, own_type, time, (LINEAGE, revision + root), trace]
                    begun[-1] = source, event_id, made
        return begun


Begun = tuple[bytes, bytes, RawHeaders]
"""Source and id of a parent, and the headers of its output, whose own id is still missing `AT_ID`."""


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
    if version != _LINEAGE_VERSION or b";" not in root:
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


def _before_root(lineage: bytes) -> bytes:
    """Version and revision of a packed lineage; empty where there are none that we know."""
    return lineage[: lineage.find(b";", 2) + 1] if lineage.startswith(_LINEAGE_START) else b""


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
