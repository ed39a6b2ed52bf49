"""What a command makes of one entry: its next version, or the marker that remains of it."""

from __future__ import annotations

from heddle.broker.log import Record
from heddle.delivery.command import Action, Command, Foreign, Target
from heddle.delivery.envelope import NOT_APPLIED, Entry, Envelope, State, entry_of, original_of
from heddle.delivery.index import Run
from heddle.delivery.settlement import Change
from heddle.delivery.steps import parsed_headers


def size_of(command: Command) -> int:
    part = command.slice
    assert part is not None
    return len(part.foreign) if command.header.action is Action.IMPORT else len(part.targets)


def target_of(command: Command, number: int) -> Target:
    part = command.slice
    assert part is not None
    if command.header.action is Action.IMPORT:
        return Target(part.foreign[number].origin, part.foreign[number].offset, -1)
    return part.targets[number]


def changed(
    command: Command, number: int, entry: Entry, record: Record, envelope: Envelope, now_ms: int, run: Run
) -> tuple[Change | None, str]:
    """Discard, edit, settle, with the outcome's name; without a change, why there is none. `run`: the job, in whose
    name runs what is due at once."""
    header = command.header
    if header.action is Action.DISCARD:
        return _marked(entry, record, State.DISCARDED, envelope, now_ms), "discarded"
    if header.action is Action.EDIT:
        if entry.state is State.UNKNOWN:  # whoever knows what the target did settles it first
            return None, "unknown"
        part = command.slice
        assert part is not None
        change = _edited(entry, record, part.bodies[number], envelope, run=header.run)
        return change._replace(run=run if header.run else None), "edited"
    if entry.state is not State.UNKNOWN:
        return None, "not-unknown"
    if header.settle_as == "applied":
        return _marked(entry, record, State.REVISED, envelope, now_ms), "settled"
    renewed = entry.renewed(state=State.RETRYING, retry_after_ms=0)
    moved = envelope.moved(record, State.RETRYING, RETRY_AFTER="0", CODE=NOT_APPLIED)
    return Change(moved, renewed, put=True, run=run), "settled"


def imported(foreign: Foreign, partition: int, envelope: Envelope, now_ms: int) -> tuple[Record, Change]:
    """The record as its entry will give it back, and that entry."""
    record = Record(
        foreign.origin, partition, foreign.offset, foreign.key, foreign.value, list(foreign.headers),
        foreign.timestamp_ms,
    )  # fmt: skip
    outgoing = envelope.imported(record, foreign.origin, foreign.failure)
    stored = Record(
        envelope.dead_letter_topic, partition, -1, outgoing.key, outgoing.value, list(outgoing.headers), now_ms
    )
    return record, Change(outgoing, entry_of(stored), put=True)


def _edited(entry: Entry, record: Record, body: bytes | None, envelope: Envelope, *, run: bool) -> Change:
    state = State.RETRYING if run else State.DEAD
    renewed = entry.renewed(state=state, retry_after_ms=0, size_bytes=len(body or b""), edit=entry.edit + 1)
    return Change(envelope.edited(record, body, run=run), renewed, put=True)


def _marked(entry: Entry, record: Record, state: State, envelope: Envelope, now_ms: int) -> Change:
    identity = parsed_headers(original_of(record)).identity
    renewed = entry.renewed(state=state, appended_ms=now_ms)
    return Change(envelope.marker(record, state), renewed, put=False, marks=identity)
