"""Which version of a secret a worker uses stands in its audit trail, before the batch that was made with it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from broker_world import World
from delivery_harness import AUDIT_KEY, Scene, running

from heddle.delivery.worker import Worker
from heddle.secrets import Use
from heddle.settings import Settings


@pytest.fixture
def scene(world: World) -> Iterator[Scene]:
    scene = Scene(world.broker, partitions=1)
    yield scene
    scene.close()


def test_a_worker_tells_which_version_it_uses_when_it_begins_to(scene: Scene) -> None:
    uses = [(Use("ledger/dsn", "vault", "7"),)]

    def worker() -> Worker:
        return Worker(
            scene.subscription, scene.step(), scene.broker, Settings(), audit_key=AUDIT_KEY, operators=scene.operators,
            secrets=lambda: uses[-1],
        )  # fmt: skip

    with running(worker()):
        scene.feed(("a", "one"))
        scene.settled(1)
        scene.feed(("a", "two"))
        scene.settled(2)
        uses.append((Use("ledger/dsn", "vault", "8"),))
        scene.feed(("a", "three"))
        scene.settled(3)
    with running(worker()):
        scene.feed(("a", "four"))
        scene.settled(4)
    told = [
        record.body["in_use"][0]["version"] if record.kind == "secrets" else record.kind for record in scene.audit()
    ]
    assert told == ["7", "batch", "batch", "8", "batch", "8", "batch"], "a successor tells it anew"
    assert scene.chain_break() is None
