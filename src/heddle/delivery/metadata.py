"""What stands beside every committed offset: small, versioned, atomic with the offset and the batch it ends.

Layout: `2:` and a JSON object. The broker takes 4,095 bytes; we stay within 512.

    p  partitions that the topic had: one beyond them is new, and read whole
    s  started: 0 after a clean release, 1 while an owner is at work, 2 and more = owners before this one crashed
    x  suspicion [level, records left, kind and offset of what is in hand alone], or null
    m  what is in hand of a sink whose calls can neither be repeated nor looked for, or null: offsets of live records,
       and complements (below zero) of entries' versions
    a  head of the audit chain, hex, or ""
    c  next offset of the command partition: what lies before is done
    d  commands beyond it that are done too, each as its distance from c
    n  records settled since the group began, one count per outcome, then how many of these were `recovered`
    e  the same for runs of dead-letter entries

The counts commit with the offsets, so *in = sum of outcomes* holds exactly, whatever was killed when.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import orjson

from heddle.delivery.suspicion import InHand, Suspicion
from heddle.errors import BrokerError, FormatError
from heddle.integration import Outcome

FORMAT_VERSION = "2"
_READABLE = ("1", FORMAT_VERSION)
MAX_BYTES = 512
_OUTCOMES = tuple(Outcome)


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
    suspicion: Suspicion | None = None
    marks: tuple[InHand, ...] = ()
    audit_head: str = ""
    next_command: int = 0
    done_commands: tuple[int, ...] = ()
    counts: Counts = field(default_factory=Counts)
    entry_counts: Counts = field(default_factory=Counts)

    @property
    def follows_crash(self) -> bool:
        """Whether the owner before the present one neither stopped nor gave the partition back."""
        return self.started > 1

    def taken_over(self, partitions: int) -> PartitionMetadata:
        """As the assignment handshake writes it; `partitions` is how many the topic has now."""
        return replace(self, partitions=partitions, started=self.started + 1)

    def settled(self, counts: Counts, entry_counts: Counts, *, ordered: int = 0) -> PartitionMetadata:
        """As a batch commit writes it: the owner is at work, those before it are history. `ordered`: what is suspected
        whatever else runs."""
        return replace(
            self,
            started=1,
            suspicion=self.suspicion and self.suspicion.after(counts.total + entry_counts.total, least=ordered),
            counts=self.counts + counts,
            entry_counts=self.entry_counts + entry_counts,
        )

    def released(self) -> PartitionMetadata:
        """As a clean release writes it."""
        suspicion = self.suspicion and replace(self.suspicion, in_hand=None)
        return replace(self, started=0, suspicion=suspicion)

    def pack(self) -> str:
        body = {
            "p": self.partitions,
            "s": self.started,
            "x": _suspicion_list(self.suspicion),
            "m": [each.offset if each.kind == "live" else ~each.offset for each in self.marks] or None,
            "a": self.audit_head,
            "c": self.next_command,
            "d": [offset - self.next_command for offset in self.done_commands],
            "n": _numbers(self.counts),
            "e": _numbers(self.entry_counts),
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
        if version not in _READABLE:
            raise FormatError(
                f"offset metadata has format version {version[:8]!r}; this Heddle reads {FORMAT_VERSION}",
                hint="a newer Heddle wrote it: run that version, or rewind the subscription",
            )
        return _decode(body)


def _decode(body: str) -> PartitionMetadata:
    try:
        data: dict[str, Any] = orjson.loads(body)
        return PartitionMetadata(
            int(data["p"]),
            int(data["s"]),
            _suspicion(data["x"]),
            tuple(InHand("live", n) if n >= 0 else InHand("entry", ~n) for n in map(int, data["m"] or ())),
            str(data["a"]),
            int(data.get("c", 0)),
            tuple(int(data["c"]) + int(distance) for distance in data.get("d", ())),
            _counts(data["n"]),
            _counts(data["e"]) if "e" in data else Counts(),
        )
    except (ValueError, LookupError, TypeError) as error:
        raise FormatError(
            "offset metadata cannot be read", hint="something else wrote into this consumer group; give it its own name"
        ) from error


def _numbers(counts: Counts) -> list[int]:
    return [*(counts.by_outcome[outcome] for outcome in _OUTCOMES), counts.recovered]


def _counts(values: list[Any]) -> Counts:
    *numbers, recovered = (int(value) for value in values)
    return Counts(dict(zip(_OUTCOMES, numbers, strict=True)), recovered)


def _suspicion_list(suspicion: Suspicion | None) -> list[Any] | None:
    return None if suspicion is None else [suspicion.level, suspicion.left, *(suspicion.in_hand or ())]


def _suspicion(value: list[Any] | None) -> Suspicion | None:
    if value is None:
        return None
    level, left, *in_hand = value
    if not in_hand:
        return Suspicion(int(level), int(left))
    return Suspicion(int(level), int(left), _in_hand(*in_hand))


def _in_hand(kind: Any, offset: Any) -> InHand:
    if kind not in ("live", "entry"):
        raise ValueError(kind)
    return InHand(kind, int(offset))
