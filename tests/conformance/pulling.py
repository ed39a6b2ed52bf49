"""A source to be pulled whose upstream is a list, and a pull worker that a test drives turn by turn."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, cast

from delivery_harness import AUDIT_KEY, Scene, eventually

from heddle.broker.log import Outgoing, Record, TopicSpec
from heddle.delivery.drafts import Drafts
from heddle.delivery.flow_steps import ConvertStep
from heddle.delivery.pull import PullWorker
from heddle.delivery.worker import Worker
from heddle.errors import ContractError
from heddle.event import Draft
from heddle.integration import Pull, Pulled, PulledSource, Puller
from heddle.settings import Settings

WHEN = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Row:
    """What the upstream list holds."""

    number: int
    key: bytes
    value: str

    @property
    def id(self) -> str:
        return str(self.number)

    def drafts(self) -> Iterable[Draft[Any]]:
        if self.value.startswith("bad"):
            raise ContractError("bad value", path="value")
        return [Draft((self.key, self.value), self.id, WHEN)]

    def pack(self) -> bytes:
        return json.dumps([self.number, self.key.decode(), self.value]).encode()


@dataclass
class Upstream:
    """`confirmed`: how far it was told that it may forget. `restored`: what a puller had kept
    when it began, each time. `hook` is called at each step, by its name."""

    rows: list[Row] = field(default_factory=list)
    confirmed: int = 0
    opened: int = 0
    restored: list[dict[bytes, bytes]] = field(default_factory=list)
    hook: Callable[[str], None] = lambda _: None

    def add(self, *pairs: tuple[str, str]) -> None:
        for key, value in pairs:
            self.rows.append(Row(len(self.rows), key.encode(), value))


class ListPuller:
    def __init__(self, upstream: Upstream, batch: int) -> None:
        self._upstream = upstream
        self._batch = batch
        self._next = 0

    def begin(self, position: bytes | None) -> None:
        self._upstream.hook("begin")
        self._next = 0 if position is None else json.loads(position)["next"]

    def pull(self, max_records: int, max_wait_s: float) -> Pull | None:
        self._upstream.hook("pull")
        rows = self._upstream.rows[self._next : self._next + min(self._batch, max_records)]
        if not rows:
            return None
        self._next += len(rows)
        return Pull(rows, json.dumps({"next": self._next}).encode())

    def confirm(self, position: bytes) -> None:
        self._upstream.hook("confirm")
        self._upstream.confirmed = max(self._upstream.confirmed, json.loads(position)["next"])

    def close(self) -> None:
        self._upstream.hook("close")


class KeepingListPuller(ListPuller):
    """Keeps which numbers it has pulled, and forgets one again four numbers later."""

    def __init__(self, upstream: Upstream, batch: int) -> None:
        super().__init__(upstream, batch)
        self.kept: dict[bytes, bytes] = {}

    def restore(self, entries: Iterable[tuple[bytes, bytes | None]]) -> None:
        for key, value in entries:
            if value is None:
                self.kept.pop(key, None)
            else:
                self.kept[key] = value
        self._upstream.restored.append(dict(self.kept))

    def pull(self, max_records: int, max_wait_s: float) -> Pull | None:
        pull = super().pull(max_records, max_wait_s)
        if pull is None:
            return None
        changes: list[tuple[bytes, bytes | None]] = []
        for record in pull.records:
            assert isinstance(record, Row)
            changes += [(b"%d" % record.number, record.value.encode()), (b"%d" % (record.number - 4), None)]
        return pull._replace(kept=changes)


class ListSource(PulledSource):
    emits = ()
    keeps = False

    def __init__(self, name: str, upstream: Upstream, batch: int = 3) -> None:
        super().__init__(name, owner="tests")
        self.upstream = upstream
        self.batch = batch
        self.repaired: set[str] = set()

    @property
    def raw_topic(self) -> str:
        return f"{self.name}.in"

    def open(self) -> Puller:
        self.upstream.opened += 1
        return (KeepingListPuller if self.keeps else ListPuller)(self.upstream, self.batch)

    def convert_record(self, record: Record) -> Iterable[Draft[Any]]:
        number, key, value = json.loads(record.value or b"")
        if value in self.repaired:
            value = value.removeprefix("bad")
        return Row(number, key.encode(), value).drafts()


class EchoDrafts:
    """Drafts whose value is the record itself."""

    def __init__(self, topic: str) -> None:
        self.topic = topic
        self.before: Callable[[str], None] = lambda _: None

    def event(self, draft: Draft[Any], traceparent: bytes | None) -> Outgoing:
        key, value = draft.value
        self.before(value)
        return Outgoing(self.topic, key, f"{draft.id}:{value}".encode(), partition=0)


class Pulling:
    """One list source on topics of its own."""

    def __init__(self, scene: Scene) -> None:
        scene.admin.create_topics([TopicSpec(f"{scene.name}.position", 1, config={"cleanup.policy": "compact"})])
        self.scene = scene
        self.upstream = Upstream()
        self.source = ListSource(scene.name, self.upstream)
        self.drafts = EchoDrafts(scene.subscription.writes[0])
        self.stop = threading.Event()

    def copy(self, instance: str = "0") -> PullWorker:
        settings = Settings.model_validate({"instance": instance})
        worker = PullWorker(self.source, cast("Drafts", self.drafts), self.scene.broker, settings)
        worker.open()
        return worker

    def converter(self) -> Worker:
        step = ConvertStep(self.source, cast("Drafts", self.drafts), "0" * 64)
        return Worker(
            self.scene.subscription, step, self.scene.broker, Settings.model_validate({}), audit_key=AUDIT_KEY,
            operators=self.scene.operators,
        )  # fmt: skip

    def turns(self, worker: PullWorker, until: Callable[[], bool], what: str) -> None:
        def turned() -> bool:
            worker.turn(self.stop)
            return until()

        eventually(turned, what)

    def pull_all(self, worker: PullWorker) -> None:
        """Until upstream was told that all of it is taken."""
        self.turns(worker, lambda: self.upstream.confirmed == len(self.upstream.rows), "all of it is pulled")

    def outputs(self) -> list[str]:
        return self.scene.outputs()


__all__ = ["ListSource", "Pulled", "Pulling", "Row", "Upstream"]
