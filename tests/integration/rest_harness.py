"""Rest sources on a broker in memory, pulled turn by turn; what comes out is the drafts themselves."""

from __future__ import annotations

import json
import threading
import uuid
from collections.abc import Iterable, Iterator
from typing import Any, cast

from rest_server import Api, RestServer

from heddle.broker.log import Broker, Outgoing, Record, TopicSpec
from heddle.broker.memory import MemoryBroker
from heddle.delivery.drafts import Drafts
from heddle.delivery.pull import PullWorker
from heddle.delivery.pull_audit import audit_topic
from heddle.delivery.subscription import subscription_of
from heddle.event import Draft
from heddle.http.rate import RateLimit
from heddle.integration import Puller
from heddle.settings import Settings
from heddle.sources.rest import Cursor, Feed, HighWater, IdDiff, PolledRow, Resource, RestSource

TIMEOUT_S = 30.0
FAST = RateLimit(per_s=100_000, burst=100_000)
CURSOR = Cursor("cursor", at="next", more="has_more")


def told(row: PolledRow) -> Iterable[Draft[Any]]:
    yield Draft((row.id, row.value["name"]), row.event_id, row.changed_at)


def gone(row: PolledRow) -> Iterable[Draft[Any]]:
    yield Draft((row.id, None), row.event_id, row.changed_at)


def deals(**changed: Any) -> Resource:
    declared: dict[str, Any] = {
        "path": "deals",
        "rows": "data",
        "paging": CURSOR,
        "follow": HighWater(changed="updatedAt", since="updated_since", overlap_s=60),
        "convert": told,
        "every_s": 0,
        "limit": FAST,
    }
    return Resource("deals", **(declared | changed))


def deletions(restart: Any = "full") -> Resource:
    return Resource(
        "deleted-deals", path="deals/deleted", rows="data", paging=Cursor("cursor", at="cursor"),
        follow=Feed(restart=restart), entity="deals", convert=gone, every_s=0, limit=FAST,
    )  # fmt: skip


def comparison(every_s: float = 0, **changed: Any) -> Resource:
    """Of the ids of `deals`."""
    declared: dict[str, Any] = {"paging": CURSOR, "listings": 1} | changed
    paging = declared.pop("paging")
    return Resource(
        "deal-ids", path="deals", rows="data", paging=paging, follow=IdDiff(every_s=every_s, **declared),
        params={"fields": "id"}, entity="deals", convert=gone, every_s=0, limit=FAST,
    )  # fmt: skip


def source(server: RestServer, *resources: Resource, **changed: Any) -> RestSource:
    declared: dict[str, Any] = {"base_url": f"{server.url}/v1", "version": None, "emits": (), "owner": "tests"}
    return RestSource(f"t{uuid.uuid4().hex[:10]}", resources=resources, **(declared | changed))


def pulls(puller: Puller, until_idle: int = 3, most: int = 10_000) -> Iterator[tuple[list[Any], bytes]]:
    """Rows and position of each pull, until so many in a row brought no rows."""
    idle = 0
    for _ in range(most):
        pull = puller.pull(1000, 0.01)
        idle = 0 if pull is not None and pull.records else idle + 1
        if idle == until_idle:
            return
        if pull is not None:
            yield list(pull.records), pull.position
    raise AssertionError(f"not idle after {most} pulls")


def names(puller: Puller, **how: int) -> list[str]:
    """Of all rows, in the order in which they came."""
    return [record.row.value["name"] for records, _ in pulls(puller, **how) for record in records]


class Echo:
    def __init__(self, topic: str) -> None:
        self.topic = topic

    def event(self, draft: Draft[Any], traceparent: bytes | None) -> Outgoing:
        key, name = draft.value
        value = None if name is None else json.dumps([name, draft.id]).encode()
        return Outgoing(self.topic, key.encode(), value, partition=0)


class World:
    """One source, its topics, and a worker at a time."""

    def __init__(self, api: Api, declared: RestSource, broker: Broker | None = None) -> None:
        self.api = api
        self.source = declared
        self.broker = broker or MemoryBroker()
        self.stop = threading.Event()
        self.output = f"{declared.name}.out"
        subscription = subscription_of(declared)
        topics = [TopicSpec(declared.position_topic, 1, config={"cleanup.policy": "compact"})]
        for name in (
            self.output, subscription.topic, subscription.dead_letter_topic, subscription.command_topic,
            subscription.audit_topic, audit_topic(declared),
        ):  # fmt: skip
            topics.append(TopicSpec(name, 1))
        admin = self.broker.admin()
        admin.create_topics(topics)
        admin.close()

    def worker(self) -> PullWorker:
        worker = PullWorker(
            self.source, cast("Drafts", Echo(self.output)), self.broker, Settings.model_validate({"instance": "0"})
        )
        worker.open()
        return worker

    def records(self) -> list[Record]:
        reader = self.broker.reader()
        try:
            return list(reader.scan(self.output, 0, TIMEOUT_S, 0, settled=True))
        finally:
            reader.close()

    def state(self) -> dict[int, str]:
        """As a reader of the topic has it at its end."""
        found: dict[int, str] = {}
        for record in self.records():
            number = int(record.key or b"")
            if record.value is None:
                found.pop(number, None)
            else:
                found[number] = json.loads(record.value)[0]
        return found
