"""With which versions of secrets a source was pulled stands in an audit trail, before what was pulled with them."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

import pytest
from broker_world import World
from delivery_harness import AUDIT_KEY, Scene, eventually
from pulling import Pulling

from heddle.audit import AuditRecord, first_break, read
from heddle.broker.log import TopicSpec
from heddle.delivery.clock import SystemClock
from heddle.delivery.pull import PullWorker
from heddle.delivery.pull_audit import PullAudit, audit_topic
from heddle.errors import DependencyDownError
from heddle.operations.state import SubscriptionState, subscription_states
from heddle.secrets import Use
from heddle.settings import Settings

TIMEOUT_S = 30.0


class Crash(BaseException):
    """What no code catches."""


class Hurried(SystemClock):
    """Nobody waits."""

    def wait(self, event: threading.Event, timeout_s: float) -> bool:
        return event.is_set()


class Audited(Pulling):
    """With a trail, and the secrets that a test says are in use."""

    def __init__(self, scene: Scene) -> None:
        super().__init__(scene)
        scene.admin.create_topics([TopicSpec(audit_topic(self.source), 1)])
        self.uses = self.of("7")
        self.asked = 0

    @staticmethod
    def of(version: str) -> tuple[Use, ...]:
        return (Use("crm/key", "vault", version),)

    def copy(self, instance: str = "0") -> PullWorker:
        audit = PullAudit(self.source, instance, AUDIT_KEY, lambda: self.uses)
        settings = Settings.model_validate({"instance": instance})
        worker = PullWorker(
            self.source,
            self.drafts,
            self.scene.broker,
            settings,
            Hurried(),
            audit=audit,  # type: ignore[arg-type]
        )
        worker.open()
        return worker

    def trail(self) -> list[AuditRecord]:
        with contextlib.closing(self.scene.broker.reader()) as reader:
            return list(read(reader, audit_topic(self.source), 0, TIMEOUT_S))

    def state(self) -> SubscriptionState:
        (state,) = subscription_states(self.scene.broker, [self.scene.subscription], [self.source])
        return state

    def is_down(self, step: str) -> None:
        """A hook of upstream."""
        if step in ("begin", "pull"):
            self.asked += 1
            raise DependencyDownError("it does not answer")

    def told(self) -> list[str]:
        return [each.body["in_use"][0]["version"] if each.kind == "secrets" else each.kind for each in self.trail()]


@pytest.fixture
def pulling(world: World) -> Iterator[Audited]:
    scene = Scene(world.broker, partitions=1)
    yield Audited(scene)
    scene.close()


def test_a_version_is_told_when_it_begins_to_be_used(pulling: Audited) -> None:
    worker = pulling.copy()
    for version, value in (("7", "v0"), ("7", "v1"), ("8", "v2")):
        pulling.uses = pulling.uses if version == pulling.uses[0].version else pulling.of(version)
        pulling.upstream.add(("k", value))
        pulling.pull_all(worker)
    worker.close()
    pulling.upstream.add(("k", "v3"))
    successor = pulling.copy()
    pulling.pull_all(successor)
    successor.close()
    assert pulling.told() == ["7", "8", "8"], "a successor tells it anew"
    assert first_break(pulling.trail()) is None


def test_what_was_not_committed_is_told_by_the_next(pulling: Audited) -> None:
    worker = pulling.copy()
    pulling.upstream.add(("k", "v0"))

    def crash(timeout_s: float) -> None:
        raise Crash

    pulling.pull_all(worker)
    pulling.uses = pulling.of("8")
    worker._producer.commit = crash  # type: ignore[method-assign]
    pulling.upstream.add(("k", "v1"))
    with pytest.raises(Crash):
        pulling.turns(worker, lambda: False, "it crashes")
    worker.abandon()
    successor = pulling.copy()
    pulling.pull_all(successor)
    successor.close()
    assert pulling.told() == ["7", "8"]
    assert first_break(pulling.trail()) is None


def test_a_trail_that_somebody_else_has_written_to_is_told(pulling: Audited) -> None:
    worker = pulling.copy()
    pulling.upstream.add(("k", "v0"))
    pulling.pull_all(worker)
    worker.close()
    forged = PullAudit(pulling.source, "9", AUDIT_KEY, lambda: pulling.of("6"))
    records, _ = forged._trail.event(0, pulling.trail()[-1].hash, "forged", {})
    producer = pulling.scene.broker.producer("somebody")
    producer.init(TIMEOUT_S)
    producer.begin()
    producer.produce(records)
    producer.commit(TIMEOUT_S)
    producer.close()
    pulling.upstream.add(("k", "v1"))
    successor = pulling.copy()
    pulling.pull_all(successor)
    successor.close()
    assert pulling.told() == ["7", "forged", "external-reset", "7"]
    assert first_break(pulling.trail()) is None


def test_an_upstream_that_is_down_is_told_once_and_shown_until_it_answers(pulling: Audited) -> None:
    worker = pulling.copy()
    pulling.upstream.add(("k", "v0"))
    pulling.pull_all(worker)
    assert pulling.state().pauses == ()
    pulling.upstream.hook = pulling.is_down
    pulling.turns(worker, lambda: pulling.asked >= 4, "it was asked some times")
    (pause,) = pulling.state().pauses or ()
    name = pulling.source.name
    assert str(pause) == f"{name}.pull reads nothing new, and nothing is parked: it does not answer"
    assert pause.document() == {
        "partitions": [], "reason": "dependency-down: it does not answer", "process": f"{name}.pull"
    }  # fmt: skip
    pulling.upstream.hook = lambda _: None
    pulling.turns(worker, lambda: pulling.state().pauses == (), "the pause is over, though nothing new came")
    pulling.upstream.add(("k", "v1"))
    pulling.pull_all(worker)
    worker.close()
    assert pulling.told() == ["7", "paused", "resumed"]
    assert first_break(pulling.trail()) is None


def test_a_pause_is_left_to_the_successor_and_is_no_crash(pulling: Audited) -> None:
    worker = pulling.copy()
    pulling.upstream.add(("k", "v0"))
    pulling.pull_all(worker)
    pulling.upstream.hook = pulling.is_down
    pulling.turns(worker, lambda: pulling.asked >= 2, "it is paused")
    worker.close()
    eventually(lambda: pulling.scene.members(f"{pulling.source.name}.pull") == 0, "the group is empty")
    (pause,) = pulling.state().pauses or ()
    assert str(pause).startswith(f"{pulling.source.name}.pull was paused when the worker stopped")
    assert pause.hint == f"start it: heddle run {pulling.source.name}"
    pulling.upstream.hook = lambda _: None
    successor = pulling.copy()
    pulling.turns(successor, lambda: successor.is_leader, "it leads")
    assert successor._standing is not None
    assert successor._standing.started == 1, "who stops in a pause has not crashed"
    pulling.turns(successor, lambda: pulling.state().pauses == (), "its pause is over")
    successor.close()
    assert first_break(pulling.trail()) is None
