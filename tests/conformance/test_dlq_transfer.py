"""Entries out of one subscription into another, and dead letters of other systems into one, on both brokers."""

from __future__ import annotations

import base64
import contextlib
import io
import json
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from broker_world import World
from delivery_harness import eventually, running
from dlq_scene import DlqScene

from heddle.broker.log import Headers, Outgoing, TopicSpec
from heddle.broker.murmur2 import partition_of
from heddle.delivery import envelope
from heddle.delivery.command import Action, Foreign
from heddle.delivery.envelope import State, original_of
from heddle.errors import BrokerError, UsageError
from heddle.operations.dead_letters import importing
from heddle.operations.dead_letters.adopt import Adoption, adoption
from heddle.operations.dead_letters.entries import EntryView, read_entries
from heddle.operations.dead_letters.foreign import Format
from heddle.operations.dead_letters.importing import (
    Gathered,
    Incoming,
    Present,
    imported_meanwhile,
    limits_of,
    present_in,
)
from heddle.operations.dead_letters.jobs import first_command
from heddle.operations.dead_letters.plan import ReplayPlan
from heddle.operations.dead_letters.pursuit import End, Pursuit
from heddle.operations.dead_letters.select import selection
from heddle.operations.dead_letters.session import Session
from heddle.operations.dead_letters.transfer import export_lines, import_plan, read_lines

SAMPLES = json.loads(
    (Path(__file__).parents[1] / "data" / "dead_letters" / "sample_records.json").read_text(encoding="utf-8")
)["records"]


@pytest.fixture
def scene_of(world: World, tmp_path: Path) -> Callable[..., DlqScene]:
    def make(**options: Any) -> DlqScene:
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        folder.mkdir()
        return DlqScene(world, folder, **options)

    return make


@pytest.fixture
def scene(scene_of: Callable[..., DlqScene]) -> DlqScene:
    return scene_of()


def done(scene: DlqScene, session: Session, plan: ReplayPlan) -> dict[str, int]:
    """Applied by Ada, with a worker that runs."""
    command = first_command(plan, "a test", 600.0)
    with closing(Pursuit(session.broker, session.shelf, plan, command, scene.ada)) as pursuit:
        assert pursuit.run() is End.COMPLETE
        return {str(result): count for result, count in pursuit.receipt.counts.items()}


def entries(session: Session) -> list[EntryView]:
    views = read_entries(session.reader, session.shelf, keep_bodies=True)
    return [view for view in views if not view.state.is_marker]


def contents(views: list[EntryView]) -> list[tuple[Any, ...]]:
    """What may not change on the way, whatever partition it is in."""
    found = []
    for view in views:
        assert view.record is not None
        original = original_of(view.record)
        found.append(
            (original.key, original.value, tuple(original.headers), view.failure_class, view.code, view.message)
        )
    return sorted(found, key=repr)


def exported(scene: DlqScene) -> bytes:
    with scene.session() as session:
        return b"".join(export_lines(session.reader, session.shelf, entries(session)))


def plan_of(session: Session, data: bytes) -> ReplayPlan:
    gathered = Gathered(
        session.shelf, present_in(session.reader, session.shelf), limits_of(session.admin, session.shelf)
    )
    return import_plan(gathered, read_lines(io.BytesIO(data)), session.header(Action.IMPORT)).plan


def test_exported_entries_are_imported_elsewhere_byte_by_byte(scene_of: Callable[..., DlqScene]) -> None:
    here, there = scene_of(), scene_of()
    odd: Headers = [("a", b"1"), ("", None), ("a", b"\xff"), ("a", b"1")]
    with here._transaction() as produce:
        topic = here.subscription.topic
        produce([Outgoing(topic, None, None, (), 0), Outgoing(topic, b"\xff\x00", b"", odd, 0)])
        produce([Outgoing(topic, b"", b"\x00\xff", odd, 1)])
    with here.failed(("k", "coffee"), ("k", "tea")):
        here.settled(5)
    with there.session() as session, running(there.worker()):
        plan = plan_of(session, exported(here))
        assert (len(plan.targets), plan.left_out) == (5, ())
        assert done(there, session, plan) == {"imported": 5}
        with here.session() as source:
            was = entries(source)
            assert [c[:3] for c in contents(entries(session))] == [c[:3] for c in contents(was)]
            assert contents(entries(session))[-1][3:] == contents(was)[-1][3:]
        assert {view.state for view in entries(session)} == {State.DEAD}
        for view in entries(session):
            assert view.key is None or view.partition == partition_of(view.key, session.shelf.partitions)
        again = plan_of(session, exported(here))
        assert (again.targets, len(again.left_out)) == ((), 5)
        assert plan_of(session, exported(there)).targets == ()


def test_what_was_discarded_does_not_come_back(scene_of: Callable[..., DlqScene]) -> None:
    here, there = scene_of(), scene_of()
    with here.failed(("k", "coffee")):
        pass
    with there.session() as session, running(there.worker()):
        plan = plan_of(session, exported(here))
        assert done(there, session, plan) == {"imported": 1}
        discard, _ = session.plan(session.header(Action.DISCARD), selection([there.name]))
        assert done(there, session, discard) == {"discarded": 1}
        (left,) = plan_of(session, exported(here)).left_out
        assert left.reason.endswith(", discarded")
        assert done(there, session, plan) == {"skipped": 1}, "the owner is asked without being checked before"


def test_a_plan_that_is_applied_twice_makes_one_entry(scene_of: Callable[..., DlqScene]) -> None:
    here, there = scene_of(), scene_of()
    with here.failed(("k", "coffee")):
        pass
    with there.session() as session, running(there.worker()):
        plan = plan_of(session, exported(here))
        assert done(there, session, plan) == {"imported": 1}
        assert done(there, session, plan) == {"skipped": 1}
        assert len(entries(session)) == 1


def test_a_record_whose_failure_cannot_be_read_stops_no_worker(scene: DlqScene) -> None:
    """`import` refuses such a line; whoever holds an operator's key may write other commands."""
    good = Foreign("t:0:id", 1, b"k", b"v", (), 5, ())
    bad = good._replace(offset=2, failure=((envelope.ATTEMPTS, "many"),))
    late = good._replace(offset=3, failure=((envelope.FIRST_FAILED, "yesterday"),))
    with scene.session() as session, running(scene.worker()):
        found = Gathered(session.shelf, Present({}, ()), limits_of(session.admin, session.shelf))
        for foreign in (bad, late, good, good):
            found.take(Incoming(foreign, 0, "t"))
        assert done(scene, session, found.plan(session.header(Action.IMPORT))) == {"imported": 1, "skipped": 2}
        assert len(entries(session)) == 1


# Of other systems.


def foreign_topic(scene: DlqScene, *records: tuple[bytes | None, bytes | None, Headers], partitions: int = 1) -> str:
    topic = scene.world.topic(partitions)
    with scene._transaction() as produce:
        produce(
            Outgoing(topic, key, value, headers, partition=number % partitions)
            for number, (key, value, headers) in enumerate(records)
        )
    for partition in range(partitions):
        scene.world.read(topic, partition)
    return topic


def spring(exception: str, *more: tuple[str, bytes | None]) -> Headers:
    return [("trace", b"t"), ("kafka_dlt-exception-fqcn", exception.encode()), *more]


def made_again(scene: DlqScene, topic: str) -> None:
    admin, first = scene.world.admin, scene.world.admin.topics([topic])[topic].topic_id
    admin.delete_topics([topic])

    def is_new() -> bool:
        """Kafka deletes in its own time, and refuses the name until then."""
        with contextlib.suppress(BrokerError):
            admin.create_topics([TopicSpec(topic, 1)])
        return topic in (found := admin.topics([topic])) and found[topic].topic_id != first

    eventually(is_new, "the topic is made again")


def adopted(session: Session, topic: str, written_by: Format | None = None) -> Adoption:
    return adoption(session.admin, session.reader, session.shelf, session.header(Action.IMPORT), topic, written_by)


def test_dead_letters_of_each_known_system_become_entries(scene: DlqScene) -> None:
    records = [
        (
            base64.b64decode(sample["key_b64"]),
            base64.b64decode(sample["value_b64"]),
            [(header["name"], base64.b64decode(header["value_b64"])) for header in sample["headers"]],
        )
        for sample in SAMPLES
    ]
    topic = foreign_topic(scene, *records, (b"k", None, [("x", None)]), partitions=3)
    with scene.session() as session, running(scene.worker()):
        found = adopted(session, topic)
        assert found.formats == dict.fromkeys([*Format, None], 1)
        assert (found.complete, found.without_body, found.spoilt) == (True, 1, [])
        assert done(scene, session, found.plan) == {"imported": 6}
        views = entries(session)
        assert sorted((c[0], c[1], list(c[2])) for c in contents(views)) == sorted(
            [*records, (b"k", None, [("x", None)])], key=repr
        )
        told = {view.code: (view.failure_class, view.exception) for view in views}
        assert told["DataException"] == ("unknown", "org.apache.kafka.connect.errors.DataException")
        assert told["adopted"] == ("unknown", "")
        assert all(":2:41" in view.message for view in views if view.record and len(view.record.headers) > 20)
        again = adopted(session, topic)
        assert (again.plan.targets, len(again.plan.left_out), again.formats) == ((), 6, {})


def test_adopted_records_run_and_are_not_adopted_again(scene: DlqScene) -> None:
    headers = spring("java.lang.IllegalStateException")
    topic = foreign_topic(scene, (b"a", scene.body("a", "tea"), headers), (b"b", scene.body("b", "coffee"), headers))
    with scene.session() as session, running(scene.worker()):
        plan = adopted(session, topic).plan
        assert done(scene, session, plan) == {"imported": 2}
        replay, _ = session.plan(session.header(Action.REPLAY), selection([scene.name], code="IllegalStateException"))
        assert done(scene, session, replay) == {"emitted": 1, "failed again": 1}
        reasons = sorted(left.reason for left in adopted(session, topic).plan.left_out)
        assert reasons[1] == "it was imported before, and is resolved"
        assert reasons[0].endswith(", dead")
        (changed,) = imported_meanwhile(plan, present_in(session.reader, session.shelf))
        assert changed.now == "imported, and resolved"
    assert scene.bills() == [("a", "1.50")]
    assert list(scene.unresolved().values()) == ["dead"]


def test_headers_that_cannot_be_read_are_counted_and_named(scene: DlqScene) -> None:
    bad = ("kafka_dlt-original-offset", b"41")
    topic = foreign_topic(
        scene, (b"a", b"1", spring("E", bad)), (b"b", b"2", spring("E", bad)), (b"c", b"3", spring("E"))
    )
    with scene.session() as session:
        found = adopted(session, topic)
        assert {(by, h.header, h.why): n for (by, h), n in found.unreadable.items()} == {
            (Format.SPRING_KAFKA, "kafka_dlt-original-offset", "2 bytes, not 8"): 2
        }
        assert [spoilt.name for spoilt in found.spoilt] == [f"{topic}/0-0", f"{topic}/0-1"]
        assert len(found.plan.targets) == 3
        connect = adopted(session, topic, Format.KAFKA_CONNECT)
        assert (connect.formats, connect.unreadable) == ({Format.KAFKA_CONNECT: 3}, {})


def test_a_topic_that_was_made_again_holds_other_records(scene: DlqScene) -> None:
    topic = foreign_topic(scene, (b"a", b"1", spring("E")))
    with scene.session() as session, running(scene.worker()):
        assert done(scene, session, adopted(session, topic).plan) == {"imported": 1}
        made_again(scene, topic)
        with scene._transaction() as produce:
            produce([Outgoing(topic, b"a", b"2", spring("E"), partition=0)])
        scene.world.read(topic)
        assert done(scene, session, adopted(session, topic).plan) == {"imported": 1}
        assert sorted(c[1] for c in contents(entries(session))) == [b"1", b"2"]


def test_a_plan_holds_so_much_and_the_next_one_the_rest(scene: DlqScene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importing, "MAX_RECORDS", 2)
    topic = foreign_topic(scene, *((b"%d" % n, b"v", spring("E")) for n in range(3)))
    with scene.session() as session, running(scene.worker()):
        first = adopted(session, topic)
        assert (len(first.plan.targets), first.complete) == (2, False)
        assert done(scene, session, first.plan) == {"imported": 2}
        rest = adopted(session, topic)
        assert (len(rest.plan.targets), len(rest.plan.left_out), rest.complete) == (1, 2, True)


def test_what_is_no_dead_letter_topic_of_another_system_is_refused(scene: DlqScene) -> None:
    subscription = scene.subscription
    scene.park((0, "a", State.DEAD, b"1"))
    copied = foreign_topic(scene, (b"a", b"1", spring("E", ("heddle-state", b"dead"))))
    with scene.session() as session:
        for topic, why in (
            ("no-such-topic", "no topic"),
            (subscription.topic, "a topic of"),
            (subscription.audit_topic, "a topic of"),
            (subscription.dead_letter_topic, "was written by Heddle"),
            (copied, "was written by Heddle"),
        ):
            with pytest.raises(UsageError, match=why):
                adopted(session, topic)
