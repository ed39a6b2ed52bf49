"""One suite, two brokers: everything that delivery believes of the log is shown on Kafka and in memory alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest
from broker_world import KafkaWorld, MemoryWorld, World

if TYPE_CHECKING:
    from heddle.local import Stack


@pytest.fixture(scope="session")
def kafka_world(stack: Stack) -> Iterator[KafkaWorld]:
    world = KafkaWorld(stack.bootstrap_servers)
    yield world
    world.close()


@pytest.fixture(params=["memory", pytest.param("kafka", marks=pytest.mark.stack)])
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    """The broker under test, with the means to prepare it and to play accidents."""
    if request.param == "memory":
        memory = MemoryWorld()
        yield memory
        memory.close()
    else:
        kafka: KafkaWorld = request.getfixturevalue("kafka_world")
        yield kafka
        kafka.close_clients()


@pytest.fixture
def until() -> Callable[..., None]:
    """Wait for a condition, at most `timeout_s`."""

    def wait(condition: Callable[[], object], timeout_s: float = 30.0) -> None:
        deadline = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < deadline, "condition not met in time"
            time.sleep(0.01)

    return wait
