"""Giving up the position of a pulled source: a captured database is read again by a new slot, an outbox as it is."""

from __future__ import annotations

from contextlib import closing

from heddle.broker.log import Broker
from heddle.delivery.pull import packed_position
from heddle.integration import PulledSource
from heddle.operations.rewind_apply import StillRunningError
from heddle.sources.postgres.position import RESTART

TIMEOUT_S = 30.0


def restart_source(source: PulledSource, broker: Broker) -> None:
    """Raises `StillRunningError` while the source runs."""
    group = f"{source.name}.pull"
    with closing(broker.admin()) as admin:
        if admin.group_members([group])[group]:
            raise StillRunningError(f"{source.name} runs", hint="stop it first: it would go on at its old position")
    with closing(broker.producer(f"{group}.restart")) as producer:
        producer.init(TIMEOUT_S)
        producer.begin()
        producer.produce([packed_position(source, RESTART)])
        producer.commit(TIMEOUT_S)
