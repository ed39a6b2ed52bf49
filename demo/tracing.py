"""Holds a subscription's output against its input: nothing doubled, nothing half, every key in order."""

from __future__ import annotations

from collections import defaultdict

from heddle.broker.log import Record
from heddle.event import Identity, ParsedHeaders, parse_headers

Place = tuple[int, int]
"""Partition and offset."""


def identity_of(record: Record) -> Identity:
    return _parsed(record).identity


def follows(outputs: list[Record], inputs: list[Record], parked: set[Place]) -> bool:
    """Whether `outputs` are what a flow with at most one output per record makes of `inputs` less the parked ones.

    Records are told by their root. A root that the flow passes on is there as often as in the input (vendors repeat
    deliveries), always under one identity, and per input key in the input's order."""
    made: dict[Identity, set[Identity]] = defaultdict(set)
    for output in outputs:
        made[_root(output)].add(identity_of(output))
    if any(len(identities) > 1 for identities in made.values()):
        return False
    wanted: dict[bytes, list[Identity]] = defaultdict(list)
    for record in _in_log_order(inputs):
        root = _root(record)
        if root in made and (record.partition, record.offset) not in parked:
            wanted[_lane(record)].append(root)
    lane_of = {root: lane for lane, roots in wanted.items() for root in roots}
    found: dict[bytes, list[Identity]] = defaultdict(list)
    for output in _in_log_order(outputs):
        found[lane_of.get(_root(output), b"")].append(_root(output))
    return found == wanted


def _in_log_order(records: list[Record]) -> list[Record]:
    return sorted(records, key=lambda record: (record.partition, record.offset))


def _lane(record: Record) -> bytes:
    """Records of one key keep their order; one without a key stands alone."""
    return record.key if record.key is not None else f"{record.partition}-{record.offset}".encode()


def _root(record: Record) -> Identity:
    return _parsed(record).lineage.root


def _parsed(record: Record) -> ParsedHeaders:
    return parse_headers(record.headers, record.topic, record.partition, record.offset, record.timestamp_ms)
