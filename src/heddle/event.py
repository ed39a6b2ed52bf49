"""The event: a contract value with an identity that never changes, in CloudEvents binary mode.

Seven headers travel with every event: `ce_specversion ce_id ce_source ce_type ce_time traceparent heddle-lineage`.
Identity is (`ce_source`, `ce_id`). Format rules here are fixed for ever (guarantees: "Event identity").
"""

from __future__ import annotations

import base64
import re
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
EVENT_HEADERS = frozenset({SPECVERSION, ID, SOURCE, TYPE, TIME, TRACEPARENT, LINEAGE})

_LINEAGE_VERSION = b"1"
_SPECVERSION = (SPECVERSION, b"1.0")
_TRACEPARENT_SHAPE = re.compile(rb"00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")

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
        """`1;<revision>;<root source>;<root id>`; only the last part may hold a semicolon."""
        return b";".join((_LINEAGE_VERSION, self.revision.encode(), self.root.source.encode(), self.root.id.encode()))

    @staticmethod
    def unpack(packed: bytes) -> Lineage:
        """Raises ValueError on another format version or shape."""
        version, revision, source, root_id = packed.split(b";", 3)
        if version != _LINEAGE_VERSION:
            raise ValueError(f"lineage format version {version!r} is not 1; a newer Heddle wrote it")
        return Lineage(revision.decode(), Identity(source.decode(), root_id.decode()))


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
    `time` is when it happened, aware."""

    value: T
    id: str
    time: datetime


def stable_id(*parts: str) -> str:
    """Base32 of BLAKE2b-128 over length-prefixed UTF-8 fields: 26 lower-case characters, the same for ever."""
    digest = blake2b(digest_size=16)
    for part in parts:
        data = part.encode()
        digest.update(len(data).to_bytes(4, "big"))
        digest.update(data)
    return base64.b32encode(digest.digest()).decode().rstrip("=").lower()


def derived_id(parent: Identity, flow: str, contract: str, key: str, ordinal: int) -> str:
    """The id of a flow's output: a function of (parent identity, flow, output contract, entity key, ordinal within
    that key), so that an inserted output of another entity shifts no id."""
    return stable_id(parent.source, parent.id, flow, contract, key, str(ordinal))


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
    return value is not None and _TRACEPARENT_SHAPE.fullmatch(value) is not None


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


class ParsedHeaders(NamedTuple):
    """One record's headers, read once: identity, packed lineage, time and trace, and what is not ours."""

    identity: Identity
    time: bytes
    lineage: Lineage
    traceparent: bytes | None
    extra: RawHeaders


def parse_headers(headers: RawHeaders, topic: str, partition: int, offset: int, timestamp_ms: int) -> ParsedHeaders:
    """Never raises: a record that no Heddle wrote gets an identity from its coordinates and its append time."""
    known: dict[str, bytes] = {}
    extra: RawHeaders = []
    for name, value in headers:
        if name in EVENT_HEADERS:
            if value is not None and name not in known:
                known[name] = value
        else:
            extra.append((name, value))
    source, event_id = known.get(SOURCE), known.get(ID)
    if source is not None and event_id is not None:
        identity = Identity(source.decode(errors="replace"), event_id.decode(errors="replace"))
    else:
        identity = Identity(f"/topics/{topic}", f"{partition}-{offset}")
    time = known.get(TIME)
    if time is None:
        time = event_time(datetime.fromtimestamp(max(timestamp_ms, 0) / 1000, UTC)).encode()
    packed = known.get(LINEAGE)
    try:
        lineage = Lineage.unpack(packed) if packed is not None else Lineage("", identity)
    except ValueError:
        lineage = Lineage("", identity)
    trace = known.get(TRACEPARENT)
    return ParsedHeaders(identity, time, lineage, trace if valid_traceparent(trace) else None, extra)
