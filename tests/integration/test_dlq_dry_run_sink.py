"""A dry run of a sink and of a source: rows beside rows, drafts beside the last events, and nothing done."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from sql_sink_harness import Database, delivered, entry

from heddle.broker.log import Record, TopicSpec
from heddle.broker.memory import MemoryBroker
from heddle.contracts import AvroCodec, MemoryRegistry, contract_of
from heddle.delivery.command import Action, PlanHeader
from heddle.delivery.envelope import Envelope, State
from heddle.delivery.subscription import subscription_of
from heddle.errors import ContractError, Failure, FailureClass
from heddle.integration import Component
from heddle.local import Stack
from heddle.operations.dead_letters.differences import ABSENT
from heddle.operations.dead_letters.dry_run import DryRun, dry_run
from heddle.operations.dead_letters.dry_steps import open_runner
from heddle.operations.dead_letters.entries import read_entries, shelf_of
from heddle.operations.dead_letters.plan import make_plan
from heddle.project import Project
from heddle.settings import Settings
from producers.crm_deals import source
from schemas.crm import Deal
from schemas.ledger import Entry

pytestmark = pytest.mark.stack

ROOT = Path(__file__).parents[2]
REGISTRY = MemoryRegistry([contract_of(Entry), contract_of(Deal)])
ENTRIES: AvroCodec[Any] = AvroCodec(contract_of(Entry), REGISTRY)
BAD = Failure(0, FailureClass.CONTRACT, "bad", "", "no", ContractError("no"))


@pytest.fixture
def database(stack: Stack) -> Iterator[Database]:
    database = Database(stack.dsn)
    yield database
    database.clean()


def tried(
    component: Component, bodies: Sequence[tuple[str, bytes | None]], others: Mapping[str, int] | None = None
) -> DryRun:
    """Dead letters of these (key, body) pairs in memory, and a dry run of all of them."""
    broker = MemoryBroker()
    subscription = subscription_of(component)
    admin, reader = broker.admin(), broker.reader()
    names = {subscription.topic: 1, subscription.dead_letter_topic: 1, **(others or {})}
    admin.create_topics([TopicSpec(name, partitions) for name, partitions in names.items()])
    topic_id = admin.topics([subscription.topic])[subscription.topic].topic_id
    envelope = Envelope(subscription.name, subscription.dead_letter_topic, topic_id, "0" * 64)
    producer = broker.producer("owner")
    producer.init(30)
    producer.begin()
    records = [Record(subscription.topic, 0, n, key.encode(), body, [], 0) for n, (key, body) in enumerate(bodies)]
    producer.produce([envelope.failed(record, BAD, State.DEAD) for record in records])
    producer.commit(30)
    shelf = shelf_of(admin, subscription)
    views = read_entries(reader, shelf)
    plan = make_plan(PlanHeader(component.name, Action.REPLAY), views, views, topic_id=topic_id, ordered=True)
    project = Project("order-to-cash", ROOT, {component.name: component})
    with open_runner(component, project, REGISTRY, Settings(), admin, reader) as runner:
        return dry_run(plan, runner, reader, shelf)


def test_a_sink_tells_rows_now_beside_rows_then(database: Database) -> None:
    sink = database.entries()
    writer = sink.open()
    writer.bump([0])
    writer.apply([delivered(entry("known", 1, ("cash",)), 0, key="known", body=b"other")])
    writer.close()
    before = database.lines()
    result = tried(
        sink,
        [
            ("default/new", ENTRIES.encode(entry("new", 1, ("cash",)))),
            ("default/known", ENTRIES.encode(entry("known", 2, ("cash",), "7.50"))),
            ("default/late", b"not framed"),
        ],
    )
    assert database.lines() == before
    assert result.outcomes == {"applied": 2, "fails": 1}
    new, known, late = result.shown
    assert (new.effects[0].was, new.effects[0].now["debit"]) == (ABSENT, "1.00")
    changed = {change.path: (change.was, change.now) for change in known.effects[0].differences}
    assert changed["debit"] == ("1.00", "7.50")
    assert late.failure is not None
    assert late.failure.code == "foreign-bytes"


@pytest.mark.parametrize(("declared", "outcome"), [("park", "fails"), ("ignore", "applied"), ("delete", "unclear")])
def test_of_a_tombstone_it_says_what_the_sink_declares(database: Database, declared: str, outcome: str) -> None:
    sink = database.entries(on_tombstone=declared)
    assert tried(sink, [("default/a", None)]).outcomes == {outcome: 1}


def test_a_sources_conversion_tells_its_events() -> None:
    delivery = b'{"opportunity_id":"D-1","deal_stage":"Won","sales_agent":"A","product":"GTX","changed_at":"%s"}'
    bodies = [("default/D-1", delivery % b"2026-03-01T10:00:00Z"), ("default/D-2", b"{}")]
    result = tried(source, bodies, {contract_of(Deal).topic: 1})
    assert result.outcomes == {"emitted": 1, "fails": 1}
    (effect,) = result.shown[0].effects
    assert (effect.target, effect.key, effect.was) == ("crm.deal.v1", "default/D-1", ABSENT)
    assert effect.now["stage"] == "WON"
