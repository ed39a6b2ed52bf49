"""The partitioner `murmur2_random`, as Java's and librdkafka's clients compute it: one partitioner everywhere."""

from __future__ import annotations

import random

_SEED = 0x9747B28C
_M = 0x5BD1E995
_R = 24
_MASK = 0xFFFFFFFF


def murmur2(data: bytes) -> int:
    """Murmur2 of 32 bits with Kafka's seed, unsigned (Kafka: `org.apache.kafka.common.utils.Utils.murmur2`)."""
    length = len(data)
    whole = length & ~3
    h = _SEED ^ length
    for start in range(0, whole, 4):
        k = int.from_bytes(data[start : start + 4], "little") * _M & _MASK
        k = (k ^ k >> _R) * _M & _MASK
        h = h * _M & _MASK ^ k
    if whole < length:
        h = (h ^ int.from_bytes(data[whole:], "little")) * _M & _MASK
    h = (h ^ h >> 13) * _M & _MASK
    return h ^ h >> 15


def partition_of(key: bytes | None, partitions: int) -> int:
    """The partition of a key among `partitions`; a null key goes anywhere, an empty key is a key."""
    if key is None:
        return random.randrange(partitions)  # noqa: S311 - spreads load, guards nothing
    return (murmur2(key) & 0x7FFFFFFF) % partitions
