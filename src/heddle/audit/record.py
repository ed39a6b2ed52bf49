"""Audit records: what a batch did, or an operator, chained by hash (guarantees: "Audit").

A record is one JSON object, `{"hash":"<64 hex>","v":1,…,"prev":"<64 hex>",…}`. Its hash is BLAKE2b-256 over the same
object without the first member, byte for byte, the hash of the record before it included: anyone verifies a chain
without a key. Payload hashes are keyed: who can guess a payload must not be able to confirm it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from hashlib import blake2b
from struct import pack
from typing import Any, NamedTuple

import orjson

from heddle.broker.log import Outgoing, Record
from heddle.event import event_time, parse_headers
from heddle.secrets import Use, redact

FORMAT_VERSION = 1
MAX_BYTES = 512 * 1024
"""Of the lines of one record; more lines become several records, chained one after the other."""
MAX_NAME_CHARS = 1_000
MAX_TEXT_CHARS = 8_000

_NULL = 2**32 - 1  # no payload is that long
_PART = 128  # payloads that are hashed at a time: joined, they stay in a core's cache
_HASH, _SEAL_BYTES = b'{"hash":"', len(b'{"hash":"') + 64 + len(b'",')


class Line(NamedTuple):
    """One event, or one run of a dead-letter entry. `offset`: in the input topic. `entry`: as people type it, without
    the subscription. `outcome`: one of the six; for entries also failed-again, skipped, discarded, edited, settled,
    imported, revealed, expired, cancelled. `identity`: source, semicolon, id; a semicolon in the source is escaped.
    `hash`: keyed, of the payload. `state`: of the entry afterwards, for what a command did: before."""

    offset: int
    outcome: str
    identity: str = ""
    contract: str = ""
    hash: str = ""
    entry: str = ""
    version: int = -1
    job: str = ""
    state: str = ""
    code: str = ""
    fingerprint: str = ""
    attempts: int = 0


class AuditTrail:
    """Makes one subscription's records. `key`: of payload hashes, at most 64 bytes. `regulated`: every event gets a
    line. `secrets`: those in use now, the very same tuple until one changes (`heddle.secrets.in_use`). `code`: SHA-256
    of what handles, a mapping's plan or the application's sources, told with every batch. Nothing is written here:
    records go into the transaction of what they tell of."""

    def __init__(
        self, subscription: str, topic: str, audit_topic: str, actor: str, key: bytes, *, regulated: bool = False,
        wall_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
        secrets: Callable[[], tuple[Use, ...]] = tuple, code: str = "",
    ) -> None:  # fmt: skip
        self.regulated = regulated
        self._subscription = subscription
        self._topic = topic
        self._audit_topic = audit_topic
        self._actor = actor
        self._key = key
        self._wall_ms = wall_ms
        self._code = code
        self._secrets = secrets
        self._told: dict[int, tuple[Use, ...]] = {}
        self._heads: dict[int, str] = {}

    def line(self, record: Record, outcome: str, **more: Any) -> Line:
        """With the event's identity, contract and payload hash; `more`: further fields of `Line`."""
        parsed = parse_headers(record.headers, record.topic, record.partition, record.offset, record.timestamp_ms)
        identity, contract = _name(parsed.source.replace(b";", b"%3B") + b";" + parsed.id), _name(parsed.type)
        return Line(record.offset, outcome, identity, contract, self.batch_hash((record.value,)), **more)

    def batch_hash(self, values: Sequence[bytes | None]) -> str:
        """One keyed BLAKE2b-128 over how many payloads there are, the length of each (null is not empty), and all of
        them in order. Four bytes a number; lengths come first because so nothing is called for a single record."""
        lengths = [_NULL if value is None else len(value) for value in values]
        digest = blake2b(pack(f">{len(lengths) + 1}I", len(lengths), *lengths), key=self._key, digest_size=16)
        for start in range(0, len(values), _PART):
            digest.update(b"".join(filter(None, values[start : start + _PART])))
        return digest.hexdigest()

    def batch(
        self, partition: int, head: str, *, first: int, next_offset: int, counts: Mapping[str, int],
        entry_counts: Mapping[str, int], payloads: str, lines: Sequence[Line], paused: str = "",
    ) -> tuple[list[Outgoing], str]:  # fmt: skip
        """The records of a batch, and the new head. `first` to `next_offset`: its offsets; `payloads`: `batch_hash` of
        what settled. `entry_counts`, `paused` and `code` are left out where there is nothing to say. Before the first
        batch of this worker, and before one that was made with other secrets, a record says which: never their
        values."""
        news, head = self.news_of_secrets(partition, head)
        told = {"first": first, "next": next_offset, "counts": _counted(counts), "payloads": payloads}
        entries = {"entry_counts": _counted(entry_counts), "paused": _text(paused), "code": self._code}
        body = told | {name: value for name, value in entries.items() if value}
        records, head = self._chained(partition, head, "batch", body, lines, self._actor)
        return news + records, head

    def event(
        self, partition: int, head: str, kind: str, detail: Mapping[str, Any], lines: Sequence[Line] = (), *,
        actor: str = "",
    ) -> tuple[list[Outgoing], str]:  # fmt: skip
        """A record of its own: a pause, a command, a refusal, a rewind. `actor`: who, when it is not the worker.
        Texts that are too long for a record are cut."""
        return self._chained(partition, head, kind, _plain(detail), lines, actor or self._actor)

    def news_of_secrets(self, partition: int, head: str) -> tuple[list[Outgoing], str]:
        """A record if other secrets are in use than this trail has told last, and the new head."""
        uses = self._secrets()
        self._follow(partition, head)
        if not uses or uses is self._told.get(partition):
            return [], head
        records, head = self.event(partition, head, "secrets", {"in_use": [use._asdict() for use in uses]})
        self._told[partition] = uses
        return records, head

    def _follow(self, partition: int, head: str) -> None:
        """A head that is not our last one: another worker wrote since, or our transaction was aborted. What we told
        may not stand there."""
        if head != self._heads.get(partition):
            self._told.pop(partition, None)

    def _chained(
        self, partition: int, head: str, kind: str, body: Mapping[str, Any], lines: Sequence[Line], actor: str
    ) -> tuple[list[Outgoing], str]:
        """Of several parts the first alone has the body."""
        self._follow(partition, head)
        parts = list(_parts(lines))
        at = event_time(datetime.fromtimestamp(self._wall_ms() / 1000, UTC))
        records = []
        for number, part in enumerate(parts, 1):
            document = {
                "v": FORMAT_VERSION,
                "kind": kind,
                "at": at,
                "actor": actor,
                "subscription": self._subscription,
                "topic": self._topic,
                "partition": partition,
                "prev": head,
                **({"part": [number, len(parts)]} if len(parts) > 1 else {}),
                "body": body if number == 1 else {},
                "lines": part,
            }
            value, head = _sealed(document)
            records.append(Outgoing(self._audit_topic, self._subscription.encode(), value, (), partition))
        self._heads[partition] = head
        return records, head


def computed_hash(value: bytes) -> str:
    """What the hash of a stored record has to be."""
    return blake2b(b"{" + value[_SEAL_BYTES:], digest_size=32).hexdigest()


def _sealed(document: Mapping[str, Any]) -> tuple[bytes, str]:
    content = orjson.dumps(document)
    digest = blake2b(content, digest_size=32).hexdigest()
    return b'%b%b",%b' % (_HASH, digest.encode(), content[1:]), digest


def _parts(lines: Sequence[Line]) -> Iterator[list[orjson.Fragment]]:
    """At least one, and none too large for a record."""
    part: list[orjson.Fragment] = []
    size = 0
    for line in lines:
        told = orjson.dumps({n: v for n, v, usual in zip(_FIELDS, line, _USUAL, strict=True) if v != usual})
        if part and size + len(told) > MAX_BYTES:
            yield part
            part, size = [], 0
        part.append(orjson.Fragment(told))
        size += len(told)
    yield part


_FIELDS = Line._fields
_USUAL = tuple(Line._field_defaults.get(name) for name in _FIELDS)


def _counted(counts: Mapping[str, int]) -> dict[str, int]:
    return {name: count for name, count in counts.items() if count}


def _name(data: bytes) -> str:
    """A foreign producer's headers may be as large as a record. What is cut stays one of a kind."""
    text = data[: 4 * MAX_NAME_CHARS + 4].decode(errors="backslashreplace")  # at most four bytes are one character
    if len(text) <= MAX_NAME_CHARS:
        return text
    return f"{text[: MAX_NAME_CHARS - 33]}…{blake2b(data, digest_size=16).hexdigest()}"


def _plain(value: Any) -> Any:
    """As JSON takes it."""
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, Mapping):
        return {str(name): _plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return value


def _text(text: str) -> str:
    """Error texts may be of any length, and may hold a secret, or half a surrogate pair, which JSON does not take."""
    text = redact(text)
    cut = text if len(text) <= MAX_TEXT_CHARS else f"{text[: MAX_TEXT_CHARS - 1]}…"
    return cut.encode(errors="backslashreplace").decode()
