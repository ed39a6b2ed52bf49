"""A polled API on a real Kafka: what is told, the place to go on from, and the ids that are known, through deaths."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import pytest
from rest_harness import World, comparison, deals, source
from rest_server import START_S, Api, RestServer

from heddle.broker.kafka import KafkaBroker
from heddle.delivery.pull import PullWorker
from heddle.local import Stack
from heddle.settings import Settings

pytestmark = pytest.mark.stack

ROWS = 120


class Crash(BaseException):
    """What no code catches."""


@pytest.fixture
def api() -> Api:
    made = Api()
    for number in range(ROWS):
        made.put(number, f"n{number}", at=START_S - ROWS + number)
    return made


@pytest.fixture
def world(api: Api, stack: Stack) -> Iterator[World]:
    server = RestServer(api)
    settings = Settings(bootstrap_servers=stack.bootstrap_servers, registry_url=stack.registry_url, local=True)
    yield World(api, source(server, deals(), comparison()), KafkaBroker(settings))
    server.close()


def turned(world: World, worker: PullWorker, holds: Callable[[], bool]) -> None:
    """Turns until it holds, some thousands at most."""
    for _ in range(4_000):
        worker.turn(world.stop)
        if holds():
            return
    raise AssertionError("it does not come to hold")


@pytest.mark.parametrize("after", [False, True], ids=["before-commit", "after-commit"])
def test_rows_and_deletions_are_told_once_whoever_dies(api: Api, world: World, after: bool) -> None:
    worker = world.worker()
    turned(world, worker, lambda: worker.counts.total >= ROWS)

    def die(timeout_s: float) -> None:
        if after:
            commit(timeout_s)
        raise Crash

    for told, number in enumerate((3, 60, 119), 1):
        api.delete(number)
        commit = worker._producer.commit
        worker._producer.commit = die  # type: ignore[method-assign]
        with pytest.raises(Crash):
            turned(world, worker, lambda: False)
        worker.abandon()
        worker = world.worker()
        turned(world, worker, lambda: worker.counts.total >= ROWS + told)  # noqa: B023 - it is called here alone
    worker.close()
    records = world.records()
    assert world.state() == {row["id"]: row["name"] for row in api.rows.values()}
    ids = [json.loads(record.value)[1] for record in records if record.value is not None]
    assert (len(ids), len(set(ids))) == (ROWS, ROWS)
    assert [record.key for record in records if record.value is None] == [b"3", b"60", b"119"]
