"""Audit records: what a batch did, or an operator, chained by hash (guarantees: "Audit").

A record is JSON. Its hash is BLAKE2b-256 over the hash before it and its own canonical body, so that anyone verifies a
chain without a key. Payload hashes are keyed: who can guess a payload must not be able to confirm it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from hashlib import blake2b
from typing import Any, NamedTuple

import orjson

from heddle.broker.log import Outgoing, Record
from heddle.event import event_time, parse_headers

FORMAT_VERSION = 1
MAX_BYTES = 512 * 1024
"""Of the lines of one record; more lines become several records, chained one after the other."""

_NULL = b"\xff\xff\xff\xff"


class Line(NamedTuple):
    """One event, or one run of a dead-letter entry. `offset`: in the input topic. `entry`: as people type it, without
    the subscription. `outcome`: one of the six; for entries also failed-again, skipped, discarded, edited, settled,
    imported, revealed, expired, cancelled. `hash`: keyed, of the payload. `state`: of the entry afterwards."""

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
    line. Nothing is written here: records go into the transaction of what they tell of."""

    def __init__(
        self, subscription: str, topic: str, audit_topic: str, actor: str, key: bytes, *, regulated: bool = False,
        wall_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:  # fmt: skip
        self.regulated = regulated
        self._subscription = subscription
        self._topic = topic
        self._audit_topic = audit_topic
        self._actor = actor
        self._key = key
        self._wall_ms = wall_ms

    def line(self, record: Record, outcome: str, **more: Any) -> Line:
        """With the event's identity, contract and payload hash; `more`: further fields of `Line`."""
        parsed = parse_headers(record.headers, record.topic, record.partition, record.offset, record.timestamp_ms)
        source, event_id = parsed.identity
        contract = parsed.type.decode(errors="backslashreplace")
        return Line(record.offset, outcome, f"{source};{event_id}", contract, self.batch_hash((record.value,)), **more)

    def batch_hash(self, values: Iterable[bytes | None]) -> str:
        """One keyed BLAKE2b-128 over all payloads in order, each with its length: null is not empty."""
        update = (digest := blake2b(key=self._key, digest_size=16)).update
        for value in values:
            if value is None:
                update(_NULL)
            else:
                update(len(value).to_bytes(4, "big"))
                update(value)
        return digest.hexdigest()

    def batch(
        self, partition: int, head: str, *, first: int, next_offset: int, counts: Mapping[str, int],
        entry_counts: Mapping[str, int], payloads: str, lines: Sequence[Line], paused: str = "",
    ) -> tuple[list[Outgoing], str]:  # fmt: skip
        """The records of a batch, and the new head. `first` to `next_offset`: its offsets; `payloads`: `batch_hash` of
        what settled."""
        body = {
            "first": first,
            "next": next_offset,
            "counts": dict(counts),
            "entry_counts": dict(entry_counts),
            "payloads": payloads,
            "paused": paused,
        }
        return self._chained(partition, head, "batch", body, lines, self._actor)

    def event(
        self, partition: int, head: str, kind: str, detail: Mapping[str, Any], lines: Sequence[Line] = (), *,
        actor: str = "",
    ) -> tuple[list[Outgoing], str]:  # fmt: skip
        """A record of its own: a pause, a command, a refusal, a rewind. `actor`: who, when it is not the worker."""
        return self._chained(partition, head, kind, detail, lines, actor or self._actor)

    def _chained(
        self, partition: int, head: str, kind: str, body: Mapping[str, Any], lines: Sequence[Line], actor: str
    ) -> tuple[list[Outgoing], str]:
        parts = _parts(lines)
        at = event_time(datetime.fromtimestamp(self._wall_ms() / 1000, UTC))
        records = []
        for number, part in enumerate(parts):
            document = {
                "v": FORMAT_VERSION,
                "kind": kind,
                "at": at,
                "actor": actor,
                "subscription": self._subscription,
                "topic": self._topic,
                "partition": partition,
                "part": [number + 1, len(parts)],
                "prev": head,
                "body": body if number == 0 else {},
                "lines": part,
            }
            head = chained_hash(document)
            value = orjson.dumps(document | {"hash": head})
            records.append(Outgoing(self._audit_topic, self._subscription.encode(), value, (), partition))
        return records, head


def chained_hash(document: Mapping[str, Any]) -> str:
    """Over everything in the record but its own hash, the hash before it included."""
    unsigned = {name: value for name, value in document.items() if name != "hash"}
    return blake2b(orjson.dumps(unsigned, option=orjson.OPT_SORT_KEYS), digest_size=32).hexdigest()


def _parts(lines: Sequence[Line]) -> list[list[dict[str, Any]]]:
    parts: list[list[dict[str, Any]]] = [[]]
    size = 0
    for line in lines:
        told = {name: value for name, value in line._asdict().items() if value not in ("", -1) or name == "offset"}
        length = len(orjson.dumps(told))
        if size + length > MAX_BYTES:
            parts.append([])
            size = 0
        parts[-1].append(told)
        size += length
    return parts
