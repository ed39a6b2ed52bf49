"""The SQL sink against a model of it that takes one event at a time and fits on a page."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sql_sink_harness import APPLIED, DUPLICATE, RECOVERED, SUPERSEDED, Database, delivered, entry

from heddle.integration import Applied, Delivered, SinkWriter
from heddle.local import Stack
from schemas.ledger import Entry

pytestmark = pytest.mark.stack

BAD = "bribes"
Row = tuple[str, int, str]
Answer = Applied | str


@dataclass
class Model:
    """Inbox and rows after one event at a time. `by_key`: a failed event blocks its key for the rest of the batch."""

    by_key: bool
    inbox: dict[str, tuple[int, int, str, bytes]] = field(default_factory=dict)
    entities: dict[str, tuple[int, tuple[str, ...]]] = field(default_factory=dict)

    def apply(self, batch: Sequence[Delivered[Entry]]) -> list[Answer]:
        blocked: set[tuple[int, bytes | None]] = set()
        answers: list[Answer] = []
        for event in batch:
            lane = (event.record.partition, event.record.key)
            answer = "blocked" if lane in blocked else self._one(event)
            if isinstance(answer, str) and self.by_key:
                blocked.add(lane)
            answers.append(answer)
        return answers

    def _one(self, event: Delivered[Entry]) -> Answer:
        record, value = event.record, event.event.value
        accounts = tuple(line.account for line in value.lines)
        revision = event.event.lineage.revision
        if any("\0" in account for account in accounts):
            return "nul-in-text"
        known = self.inbox.get(event.event.identity.id)
        if known is not None:
            if known[2] == revision and known[3] != event.body_hash:
                return "identity-conflict"
            return RECOVERED if known[:2] == (record.partition, record.offset) else DUPLICATE
        if BAD in accounts:
            return "check-violation"
        self.inbox[event.event.identity.id] = (record.partition, record.offset, revision, event.body_hash)
        version = int(value.booked_at.timestamp())
        present = self.entities.get(value.entry_id)
        if present is not None and (version < present[0] or (event.replayed and version == present[0])):
            return SUPERSEDED
        self.entities[value.entry_id] = (version, accounts)
        return APPLIED

    def rows(self) -> list[Row]:
        listed = ((entity, accounts) for entity, (_, accounts) in self.entities.items())
        return sorted((entity, n, account) for entity, lines in listed for n, account in enumerate(lines, 1))


@st.composite
def batches(draw: st.DrawFn) -> list[list[Delivered[Entry]]]:
    """Few entities, ids, versions and bodies, so that everything meets everything. A row that the table refuses is
    an entity of its own: of several versions in one batch the sink tries the newest only."""
    offset = 0
    made = []
    for size in draw(st.lists(st.integers(1, 8), min_size=1, max_size=4)):
        batch = []
        for _ in range(size):
            offset += 1
            entity = draw(st.sampled_from("abc"))
            lines = draw(st.lists(st.sampled_from(("x", "y", "z")), max_size=3))
            kind = draw(st.sampled_from(("plain",) * 8 + ("bad", "nul")))
            if kind != "plain":
                lines = ["x", BAD if kind == "bad" else "n\0"]
            batch.append(
                delivered(
                    entry(entity if kind != "bad" else f"bad-{offset}", draw(st.integers(0, 3)), tuple(lines)),
                    offset,
                    key=entity,
                    id=draw(st.sampled_from([f"new-{offset}"] * 3 + ["p", "q", "r"])),
                    partition=draw(st.integers(0, 1)),
                    revision=draw(st.sampled_from(("r1.0", "r2.0"))),
                    body=draw(st.sampled_from((b"1", b"1", b"2"))),
                    replayed=draw(st.sampled_from((False, False, True))),
                )
            )
        made.append(batch)
    return made


@pytest.fixture(scope="module")
def database(stack: Stack) -> Iterator[Database]:
    database = Database(stack.dsn)
    yield database
    database.clean()


@pytest.fixture(scope="module", params=["park", "continue"])
def by_key(request: pytest.FixtureRequest) -> bool:
    return bool(request.param == "park")


@pytest.fixture(scope="module")
def writer(database: Database, by_key: bool) -> Iterator[SinkWriter[Entry]]:
    sink = database.entries(order="park" if by_key else "continue")
    database.execute("alter table {schema}.entry_line drop constraint if exists no_bribes")
    database.execute(f"alter table {{schema}}.entry_line add constraint no_bribes check (account <> '{BAD}')")
    writer = sink.open()
    writer.bump([0, 1])
    yield writer
    writer.close()


def empty(database: Database) -> None:
    database.execute(
        "truncate {schema}.entry_line; truncate {schema}.heddle_versions_entry_line; truncate {schema}.heddle_inbox"
    )


def rows_of(database: Database) -> list[Row]:
    return [(entity, n, account) for entity, n, account, _ in database.lines()]


def agree(writer: SinkWriter[Entry], model: Model, batch: Sequence[Delivered[Entry]]) -> None:
    """Same failures, same answers; but a version that its own batch replaces is never written, hence superseded."""
    expected = model.apply(batch)
    answers, failures = writer.apply(batch)
    assert {f.index: f.code for f in failures} == {
        i: answer for i, answer in enumerate(expected) if isinstance(answer, str) and answer != "blocked"
    }
    for index, (answer, wanted) in enumerate(zip(answers, expected, strict=True)):
        if answer == SUPERSEDED and wanted == APPLIED:
            value = batch[index].event.value
            later = (other.event.value for other in batch[index + 1 :])
            assert any(v.entry_id == value.entry_id and v.booked_at >= value.booked_at for v in later)
        else:
            assert answer == (None if isinstance(wanted, str) else wanted), index


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(batches=batches())
def test_batches_answer_and_leave_what_single_events_would(
    database: Database, writer: SinkWriter[Entry], by_key: bool, batches: list[list[Delivered[Entry]]]
) -> None:
    empty(database)
    model = Model(by_key)
    for batch in batches:
        agree(writer, model, batch)
        assert rows_of(database) == model.rows()
    for batch in batches:
        agree(writer, model, batch)
    assert rows_of(database) == model.rows()


@settings(max_examples=1, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32))
def test_a_batch_of_five_thousand_does_too(
    database: Database, writer: SinkWriter[Entry], by_key: bool, seed: int
) -> None:
    empty(database)
    chance = random.Random(seed)
    batch = []
    for offset in range(5_000):
        entity = f"e{chance.randrange(1_500)}"
        bad = chance.random() < 0.001
        accounts = (BAD,) if bad else tuple(chance.choices("xyz", k=chance.randrange(4)))
        value = entry(f"bad-{offset}" if bad else entity, chance.randrange(5), accounts)
        identity = f"old-{chance.randrange(offset + 1)}" if chance.random() < 0.1 else f"old-{offset}"
        body = b"2" if chance.random() < 0.01 else b"1"
        place = {"partition": chance.randrange(2), "replayed": chance.random() < 0.1}
        batch.append(delivered(value, offset, key=entity, id=identity, body=body, **place))
    model = Model(by_key)
    agree(writer, model, batch)
    assert rows_of(database) == model.rows()
    agree(writer, model, batch)
    assert rows_of(database) == model.rows()
