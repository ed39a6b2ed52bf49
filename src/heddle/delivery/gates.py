"""Which keys wait because an earlier record of theirs is parked. In memory; the dead-letter topic is the truth.

Restored in the assignment handshake and nowhere else; changed only after the transaction that parked has committed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from heddle.broker.log import Record
from heddle.delivery import envelope
from heddle.errors import FormatError


@dataclass(slots=True)
class PartitionGates:
    """Unresolved entries of one partition: by origin offset, and by key the offset of the first."""

    entries: set[int] = field(default_factory=set)
    head_of: dict[bytes, int] = field(default_factory=dict)

    def add(self, offset: int, key: bytes | None) -> None:
        self.entries.add(offset)
        if key is not None:
            self.head_of[key] = min(offset, self.head_of.get(key, offset))


class Gates:
    """One per worker, one `PartitionGates` per owned partition."""

    def __init__(self, *, by_key: bool) -> None:
        self._by_key = by_key
        self._partitions: dict[int, PartitionGates] = {}

    def restore(self, partition: int, topic_id: str, entries: Iterable[Record]) -> None:
        """Read a dead-letter partition, oldest first: the newest version of each entry is its state. Keeps offsets and
        keys only; the bodies pass by.

        Entries of an earlier incarnation of the input topic gate nothing here."""
        newest: dict[bytes, tuple[int, bytes | None]] = {}
        for record in entries:
            if record.key is None:
                continue
            newest.pop(record.key, None)
            if record.value is None:
                continue
            headers = dict(record.headers)
            if headers.get(envelope.TOPIC_ID) == topic_id.encode():
                newest[record.key] = _origin_offset(headers), headers.get(envelope.KEY)
        gates = PartitionGates()
        for offset, key in newest.values():
            gates.add(offset, key)
        self._partitions[partition] = gates

    def drop(self, partitions: Iterable[int]) -> None:
        for partition in partitions:
            self._partitions.pop(partition, None)

    def park(self, records: Iterable[Record]) -> None:
        """These records' entries have committed."""
        for record in records:
            self._partitions[record.partition].add(record.offset, record.key)

    def is_entry(self, record: Record) -> bool:
        """The record, read again after a rewind, already has an unresolved entry."""
        return record.offset in self._partitions[record.partition].entries

    def blocking(self, record: Record) -> int | None:
        """Origin offset of the entry that the record has to wait for, or None. A null key waits for nothing."""
        if not self._by_key or record.key is None:
            return None
        return self._partitions[record.partition].head_of.get(record.key)

    def any(self) -> bool:
        """Whether anything at all is parked: the happy path asks this once a batch."""
        return any(gates.entries for gates in self._partitions.values())

    @property
    def by_key(self) -> bool:
        return self._by_key


def _origin_offset(headers: dict[str, bytes | None]) -> int:
    version = headers.get(envelope.FORMAT)
    try:
        if version == str(envelope.FORMAT_VERSION).encode():
            return int(headers[envelope.OFFSET] or b"")
    except (KeyError, ValueError):
        pass
    raise FormatError(
        f"a dead-letter entry of format version {version!r} cannot be read, only {envelope.FORMAT_VERSION} can",
        hint="a newer Heddle or another program wrote it: run that version, or move the record",
    )
