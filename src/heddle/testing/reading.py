"""What is on the log: outputs, dead letters, counts, the audit trail."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

from heddle.audit import AuditRecord, Line
from heddle.audit import read as read_audit
from heddle.contracts import AvroCodec, Contract, contract_of
from heddle.delivery.envelope import State, original_of
from heddle.delivery.flow_steps import event_of
from heddle.delivery.metadata import PartitionMetadata
from heddle.errors import ContractError
from heddle.event import Event
from heddle.integration import Flow, Sink, Source
from heddle.operations.dead_letters.entries import EntryView, Shelf, read_entries, shelf_of
from heddle.testing.values import DeadLetter, Fed
from heddle.testing.world import TIMEOUT_S, World


class Reading:
    """Everything is read anew whenever it is asked for."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._codecs: dict[str, AvroCodec[Any]] = {}

    @property
    def shelf(self) -> Shelf:
        return shelf_of(self._world.admin, self._world.subscription)

    def metadata(self) -> PartitionMetadata:
        subscription = self._world.subscription
        position = self._world.admin.group_positions(subscription.group, subscription.topic, [0])[0]
        return PartitionMetadata.unpack(position.metadata)

    def emitted(self) -> list[Event[Any]]:
        """Topic by topic, each in its order."""
        events = []
        for contract in self._written:
            codec = self._codec(contract)
            for record in self._world.reader.read_range(contract.topic, 0, TIMEOUT_S, settled=True):
                value = None if record.value is None else codec.decode(record.value)
                events.append(event_of(record, value))
        return events

    def dead_letters(self) -> list[DeadLetter]:
        """Unresolved ones, in the order of the log."""
        views = read_entries(self._world.reader, self.shelf, keep_bodies=True)
        unresolved = sorted((v for v in views if not v.state.is_marker), key=lambda view: (view.offset, view.topic_id))
        heads: dict[bytes, EntryView] = {}
        found = []
        for view in unresolved:
            head = view if view.key is None or not self._is_ordered(view) else heads.setdefault(view.key, view)
            found.append(self._dead_letter(view, None if head is view else head.name))
        return found

    def retry_times(self) -> list[datetime]:
        return [view.due for view in read_entries(self._world.reader, self.shelf) if view.state is State.RETRYING]

    def audit(self) -> Iterator[AuditRecord]:
        return read_audit(self._world.reader, self._world.subscription.audit_topic, 0, TIMEOUT_S)

    def history(self, fed: Fed) -> list[str]:
        return [line.outcome for record in self.audit() for line in record.lines if _name_of(line) == fed.entry_id]

    @property
    def _written(self) -> list[Contract]:
        match self._world.component:
            case Source(emits=emits):
                return [contract_of(kind) for kind in emits]
            case Flow(writes=writes):
                return [contract_of(writes)]
            case Sink(emits=emits) if emits is not None:
                return [contract_of(emits)]
            case _:
                return []

    def _is_ordered(self, view: EntryView) -> bool:
        return self._world.subscription.order == "park" and "@" not in view.entry_id

    def _dead_letter(self, view: EntryView, waits_behind: str | None) -> DeadLetter:
        return DeadLetter(
            name=view.name,
            state=view.state,
            key=view.key_text,
            value=self._value_of(view),
            failure_class=view.failure_class,
            code=view.code,
            path=view.path,
            fingerprint=view.fingerprint,
            exception=view.exception,
            message=view.message,
            attempts=view.attempts,
            first_failed=view.first_failed,
            retry_at=view.due if view.state is State.RETRYING else None,
            waits_behind=waits_behind,
            edits=view.edit,
        )

    def _value_of(self, view: EntryView) -> Any:
        assert view.record is not None
        data, component = original_of(view.record).value, self._world.component
        if not isinstance(component, Flow | Sink):
            return data
        try:
            return self._codec(contract_of(component.reads)).decode(data)
        except ContractError:
            return data

    def _codec(self, contract: Contract) -> AvroCodec[Any]:
        return self._codecs.setdefault(contract.name, AvroCodec(contract, self._world.registry))


def _name_of(line: Line) -> str:
    """Of the record or entry that an audit line is about."""
    return line.entry or f"0-{line.offset}"
