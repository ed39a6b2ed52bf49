"""The pull worker over a log in memory, for the checks that need more than a puller: copies of it die, freeze, stop."""

from __future__ import annotations

import contextlib
import copy
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, cast

from heddle.broker.log import Broker, Consumer, OnRelease, Outgoing, Producer, Record, TopicSpec
from heddle.broker.memory import MemoryBroker
from heddle.contracts import MemoryRegistry, contract_of
from heddle.delivery.clock import SystemClock
from heddle.delivery.drafts import Drafts
from heddle.delivery.pull import PullWorker, packed_position
from heddle.delivery.subscription import subscription_of
from heddle.event import Draft, parse_headers
from heddle.integration import KeepingPuller, Pull, Pulled, PulledSource, Puller
from heddle.settings import Settings

DRAIN_LIMIT_S = 30.0
PAUSE_S = 0.05
TIMEOUT_S = 30.0
Emitted = tuple[str, bytes | None, str]
"""Topic, key and id of an event."""


class Watched:
    """A puller that tells the scene of its steps, and of what it pulled."""

    def __init__(self, puller: Puller, scene: PullScene) -> None:
        self._puller, self._scene = puller, scene
        self._closed = False

    def begin(self, position: bytes | None) -> None:
        self._puller.begin(position)

    def pull(self, max_records: int, max_wait_s: float) -> Pull | None:
        self._scene.at("pull")
        pull = self._puller.pull(max_records, max_wait_s)
        for record in () if pull is None else pull.records:
            self._scene.pulled.setdefault(record.id, record)
        return pull

    def confirm(self, position: bytes) -> None:
        self._scene.at("confirm")
        self._puller.confirm(position)
        self._scene.at("confirmed")

    def close(self) -> None:
        """Once: the second time does nothing."""
        closed, self._closed = self._closed, True
        if not closed:
            self._puller.close()


class WatchedKeeping(Watched):
    def restore(self, entries: Iterable[tuple[bytes, bytes | None]]) -> None:
        cast("KeepingPuller", self._puller).restore(entries)


class _WatchedDrafts:
    def __init__(self, drafts: Drafts, scene: PullScene) -> None:
        self._drafts, self._scene = drafts, scene

    def event(self, draft: Draft[Any], traceparent: bytes | None) -> Outgoing:
        self._scene.at("convert")
        return self._drafts.event(draft, traceparent)


class _WatchedProducer:
    def __init__(self, producer: Producer, scene: PullScene) -> None:
        self._producer, self._scene = producer, scene

    def commit(self, timeout_s: float) -> None:
        self._scene.at("commit")
        self._producer.commit(timeout_s)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._producer, name)


class _WatchedBroker:
    """Of one copy. `member`: it, in the group."""

    def __init__(self, scene: PullScene) -> None:
        self._scene = scene
        self.member: Consumer | None = None

    def consumer(self, group: str, topic: str, on_release: OnRelease | None = None) -> Consumer:
        self.member = self._scene.broker.consumer(group, topic, on_release)
        return self.member

    def producer(self, transactional_id: str) -> Producer:
        return cast("Producer", _WatchedProducer(self._scene.broker.producer(transactional_id), self._scene))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._scene.broker, name)


class _Hasty(SystemClock):
    """Pauses are counted and cut short."""

    def __init__(self) -> None:
        self.pauses = 0

    def wait(self, stop: threading.Event, seconds: float) -> bool:
        self.pauses += 1
        return super().wait(stop, min(seconds, PAUSE_S))


class Copy:
    """One process of the source, as `heddle run` starts it."""

    def __init__(self, scene: PullScene, instance: str) -> None:
        self._broker, self._clock = _WatchedBroker(scene), _Hasty()
        self._scene = scene
        self._pullers: list[Puller] = []
        self.stop = threading.Event()
        source = copy.copy(scene.source)
        source.open = self._opened  # type: ignore[method-assign]
        self.worker = PullWorker(
            source, cast("Drafts", scene.drafts), cast("Broker", self._broker),
            Settings.model_construct(instance=instance, batch_max_records=2), self._clock,
        )  # fmt: skip

    def turn(self) -> bool:
        return self.worker.turn(self.stop)

    def drain(self, count: int) -> None:
        """Until so many records were pulled in all, and nothing more comes."""
        deadline_s = time.monotonic() + DRAIN_LIMIT_S
        while self.turn() or not self.worker.is_leader or len(self._scene.pulled) < count:
            pulled = len(self._scene.pulled)
            assert time.monotonic() < deadline_s, (
                f"{pulled} of {count} records were pulled within {DRAIN_LIMIT_S:.0f} s: a copy that takes over has to "
                "be given all that stands behind the last position; look at what `begin` does with it, and whether "
                "`close` lets go of everything that keeps others out"
            )

    def attempt(self, count: int) -> None:
        """As `drain`, or until upstream does not let it in."""
        deadline_s = time.monotonic() + DRAIN_LIMIT_S
        while self._clock.pauses == 0 and (self.turn() or len(self._scene.pulled) < count):
            assert time.monotonic() < deadline_s, "a second copy is let in by upstream, and is given nothing there"

    def expel(self) -> None:
        """Its membership ends, and it does not know."""
        assert self._broker.member is not None
        self._broker.member.close()

    def die(self) -> None:
        """As by kill -9: connections end, and nothing is said to anybody."""
        self.worker.abandon()
        for puller in self._pullers:
            with contextlib.suppress(Exception):
                puller.close()

    def _opened(self) -> Puller:
        puller = self._scene.source.open()
        watched = (WatchedKeeping if isinstance(puller, KeepingPuller) else Watched)(puller, self._scene)
        self._pullers.append(watched)
        return watched


class PullScene:
    """`pulled`: every record that any copy pulled, by id, in the order of the first time. `hook`: is told of each step
    (pull, convert, commit, confirm, confirmed), and may raise or wait."""

    def __init__(self, source: PulledSource, position: bytes | None) -> None:
        self.source = source
        self.broker = MemoryBroker()
        self.pulled: dict[str, Pulled] = {}
        self.hook: Callable[[str], None] = lambda _: None
        registry = MemoryRegistry([contract_of(kind) for kind in source.emits])
        self._plain = Drafts(source, registry, "0" * 64)
        self.drafts = _WatchedDrafts(self._plain, self)
        subscription = subscription_of(source)
        topics = [subscription.topic, *subscription.writes, subscription.dead_letter_topic]
        topics += [subscription.command_topic, subscription.audit_topic, source.position_topic]
        with contextlib.closing(self.broker.admin()) as admin:
            admin.create_topics([TopicSpec(name, 1) for name in dict.fromkeys(topics)])
        self._writes = tuple(dict.fromkeys(subscription.writes))
        if position is not None:
            self._begin_at(position)

    def at(self, step: str) -> None:
        self.hook(step)

    @contextlib.contextmanager
    def copy(self, instance: str = "0") -> Iterator[Copy]:
        """In its group, and driven by `turn`. It dies at the end."""
        running = Copy(self, instance)
        running.worker.open()
        try:
            yield running
        finally:
            running.die()

    def emitted(self) -> list[Emitted]:
        """What is committed, by topic."""
        return [_emitted(topic, record) for topic in self._writes for record in self.read(topic)]

    def trouble(self) -> str:
        """Why a record does not become events: of the first one that does not; empty when all do."""
        for record in self.pulled.values():
            try:
                for draft in record.drafts():
                    self._plain.event(draft, None)
            except Exception as error:
                return f"{type(error).__name__}: {error}"
        return ""

    def expected(self) -> list[Emitted]:
        """Each record that was pulled, converted once."""
        self.hook = lambda _: None
        events = [self._plain.event(draft, None) for record in self.pulled.values() for draft in record.drafts()]
        found = [(event.topic, event.key, dict(event.headers)["ce_id"]) for event in events]
        return [(t, key, (id or b"").decode()) for topic in self._writes for t, key, id in found if t == topic]

    def read(self, topic: str) -> list[Record]:
        with contextlib.closing(self.broker.reader()) as reader:
            return list(reader.read_range(topic, 0, TIMEOUT_S, settled=True))

    def _begin_at(self, position: bytes) -> None:
        with contextlib.closing(self.broker.producer("beginning")) as producer:
            producer.init(TIMEOUT_S)
            producer.begin()
            producer.produce([packed_position(self.source, position)])
            producer.commit(TIMEOUT_S)


def _emitted(topic: str, record: Record) -> Emitted:
    parsed = parse_headers(record.headers, topic, record.partition, record.offset, record.timestamp_ms)
    return topic, record.key, parsed.identity.id
