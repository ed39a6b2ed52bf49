"""What stands beside every committed offset: small, versioned, atomic with the offset and the batch it ends.

Layout: `1:` and a JSON object. The broker takes 4,095 bytes; we stay within 512.

    p  partitions that the topic had: one beyond them is new, and read whole
    s  started: owners that took the partition since the last settled batch or clean release (2 = a crash came before)
    x  suspect range [from, to) of offsets that a crashed owner may have been working on, or null
    m  range mark [from, to) of a sink without idempotency, or null
    a  head of the audit chain, hex, or ""
    n  records settled since the group began, one count per outcome, then how many of `applied` were `recovered`

The counts commit with the offsets, so *in = sum of outcomes* holds exactly, whatever was killed when.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import orjson

from heddle.errors import BrokerError, FormatError
from heddle.integration import Outcome

FORMAT_VERSION = "1"
MAX_BYTES = 512
_OUTCOMES = tuple(Outcome)

Range = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Counts:
    """Records settled by outcome. Immutable: a batch adds up to a new value, kept only once it committed."""

    by_outcome: dict[Outcome, int] = field(default_factory=lambda: dict.fromkeys(_OUTCOMES, 0))
    recovered: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(
            {outcome: self.by_outcome[outcome] + other.by_outcome[outcome] for outcome in _OUTCOMES},
            self.recovered + other.recovered,
        )

    @property
    def total(self) -> int:
        return sum(self.by_outcome.values())


@dataclass(frozen=True, slots=True)
class PartitionMetadata:
    """One partition's marker, decoded."""

    partitions: int = 0
    started: int = 0
    suspect: Range | None = None
    range_mark: Range | None = None
    audit_head: str = ""
    counts: Counts = field(default_factory=Counts)

    def taken_over(self, partitions: int) -> PartitionMetadata:
        """As the assignment handshake writes it; `partitions` is how many the topic has now."""
        return replace(self, partitions=partitions, started=self.started + 1)

    def settled(self, counts: Counts) -> PartitionMetadata:
        """As a batch commit writes it: nothing suspect any more."""
        return replace(self, started=0, suspect=None, range_mark=None, counts=self.counts + counts)

    def released(self) -> PartitionMetadata:
        """As a clean release writes it."""
        return replace(self, started=0)

    def pack(self) -> str:
        body = {
            "p": self.partitions,
            "s": self.started,
            "x": self.suspect,
            "m": self.range_mark,
            "a": self.audit_head,
            "n": [*(self.counts.by_outcome[outcome] for outcome in _OUTCOMES), self.counts.recovered],
        }
        text = f"{FORMAT_VERSION}:{orjson.dumps(body).decode()}"
        if len(text) > MAX_BYTES:
            raise BrokerError(f"offset metadata would be {len(text)} bytes, over {MAX_BYTES}")
        return text

    @staticmethod
    def unpack(text: str) -> PartitionMetadata:
        """Empty text is a fresh start (an offset set by another tool). Raises `FormatError` for a newer format."""
        if not text:
            return PartitionMetadata()
        version, _, body = text.partition(":")
        if version != FORMAT_VERSION:
            raise FormatError(
                f"offset metadata has format version {version[:8]!r}; this Heddle reads {FORMAT_VERSION}",
                hint="a newer Heddle wrote it: run that version, or rewind the subscription",
            )
        return _decode(body)


def _decode(body: str) -> PartitionMetadata:
    try:
        data: dict[str, Any] = orjson.loads(body)
        *numbers, recovered = (int(number) for number in data["n"])
        return PartitionMetadata(
            int(data["p"]),
            int(data["s"]),
            _range(data["x"]),
            _range(data["m"]),
            str(data["a"]),
            Counts(dict(zip(_OUTCOMES, numbers, strict=True)), recovered),
        )
    except (ValueError, LookupError, TypeError) as error:
        raise FormatError(
            "offset metadata cannot be read", hint="something else wrote into this consumer group; give it its own name"
        ) from error


def _range(value: list[int] | None) -> Range | None:
    return None if value is None else (int(value[0]), int(value[1]))
