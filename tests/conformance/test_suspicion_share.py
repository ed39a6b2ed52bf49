"""What a suspicion costs those whom nobody suspects, on both brokers."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import pytest
from broker_world import World
from delivery_harness import Driven, Scene

from heddle.broker.log import Record
from heddle.errors import RetryLater
from heddle.on_failure import Breaker, FailureBudget, OnFailure, Retry

AT_ONCE = Retry(tries=9, first_delay_s=0.001, longest_delay_s=0.001)
QUICK = OnFailure(transient=AT_ONCE, unknown=AT_ONCE, breaker=Breaker(keys=1_000), budget=FailureBudget(ratio=1))


class Killed(BaseException):
    """The process dies."""


@pytest.fixture
def scene(world: World) -> Iterator[Scene]:
    scene = Scene(world.broker, on_failure=QUICK)
    yield scene
    scene.close()


def crash(scene: Scene, times: int) -> None:
    """A process that dies of its first record."""

    def before(_: Record) -> None:
        raise Killed

    for _ in range(times):
        step = scene.step()
        step.before = before
        driven = Driven(scene.worker(step))
        driven.open()
        with pytest.raises(Killed):
            driven.until(lambda: False)
        driven.abandon()


def test_other_partitions_run_in_large_batches_beside_one_that_is_suspected(scene: Scene) -> None:
    scene.feed(*[(f"k{n}", f"v{n}") for n in range(40)])
    crash(scene, 2)
    scene.feed(*[(f"k{n}", f"w{n}") for n in range(1_500)], partition=1)
    with Driven(scene.worker(scene.step())) as driven:
        driven.until(lambda: scene.counts().total == 1_540)
    batches = [record.partition for record in scene.audit() if record.kind == "batch"]
    assert batches.count(0) >= 40
    assert batches.count(1) < 100
    assert len(scene.outputs()) == 1_540


def test_retries_get_their_turns_while_records_run_one_by_one(scene: Scene) -> None:
    scene.feed(*[(f"k{n}", f"v{n}") for n in range(40)])
    crash(scene, 2)
    failed, order = set[bytes](), list[bytes]()

    def before(record: Record) -> None:
        value = record.value or b""
        if value in (b"v0", b"v1") and value not in failed:
            failed.add(value)
            raise RetryLater("not yet", after=timedelta(0))
        order.append(value)

    step = scene.step()
    step.before = before
    with Driven(scene.worker(step)) as driven:
        driven.until(lambda: len(scene.outputs()) == 40)
    assert order.index(b"v0") < 38
    assert scene.unresolved() == []
