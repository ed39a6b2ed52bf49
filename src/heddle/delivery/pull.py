"""The worker of a pulled source: one leader goes to the source; events and position are one transaction.

Any number of copies may run. The owner of the position topic's only partition is the leader; each of its transactions
commits a position of that group, so that one who has lost the partition commits nothing more. It reads its position
only after its predecessor's last transaction is decided, and upstream is told only after its own has committed.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Generator, Mapping, Sequence
from datetime import UTC, datetime

import orjson
import stamina
import structlog
from structlog.typing import FilteringBoundLogger

from heddle.broker.log import Broker, GroupMetadata, Outgoing, Position
from heddle.delivery.classify import failure_of, interruption, message_of
from heddle.delivery.clock import Clock, SystemClock
from heddle.delivery.diverted import Diverted
from heddle.delivery.drafts import Drafts
from heddle.delivery.metadata import Counts, PartitionMetadata
from heddle.delivery.patience import growing_delays
from heddle.delivery.pull_audit import PullAudit
from heddle.delivery.subscription import subscription_of
from heddle.delivery.topics import needed_topics
from heddle.delivery.watchdog import Watchdog, within
from heddle.errors import (
    CommitUnknownError,
    DependencyDownError,
    FormatError,
    HeddleError,
    StaleGenerationError,
    UsageError,
)
from heddle.event import Identity, Lineage, event_headers, event_time
from heddle.integration import KeepingPuller, Outcome, Pull, Pulled, PulledSource, Puller
from heddle.on_failure import holds_keys
from heddle.settings import Settings

TIMEOUT_S = 30.0
CLOSE_LIMIT_S = 15.0
HANDSHAKE_LIMIT_S = 120.0
COMMIT_TRIES = 3
IDLE_WAIT_S = 0.25
FORMAT_VERSION = 1
MAX_POSITION_BYTES = 100 * 2**10
PARTITION = 0
KEPT_PREFIX = b"kept:"
"""Begins the keys of what a source keeps beside its position. No source's name has a colon."""
CRASHES_THAT_RAISE_DOUBTS = 2
"""After so many in a row what comes next is not converted here: the raw topic's subscription finds what kills."""


class PullWorker:
    """Runs one pulled source until `stop` is set.

    `audit`: told of the secrets in use; without it nobody is.

    `run` raises `PositionLostError`, `AuthError`, `FormatError` (a newer Heddle wrote the position), `FencedError`,
    `UsageError` (topics missing), `BrokerError`, `BrokerDownError`."""

    def __init__(
        self, source: PulledSource, drafts: Drafts, broker: Broker, settings: Settings, clock: Clock | None = None, *,
        audit: PullAudit | None = None,
    ) -> None:  # fmt: skip
        self._source = source
        self._drafts = drafts
        self._broker = broker
        self._settings = settings
        self._clock = clock or SystemClock()
        self._audit = audit
        self._log: FilteringBoundLogger = structlog.get_logger(source=source.name)
        self._subscription = subscription_of(source)
        self._by_key = holds_keys(source.order)
        self._metadata: PartitionMetadata | None = None
        self._standing: PartitionMetadata | None = None  # what was committed last, also while we have let go
        self._puller: Puller | None = None
        self._confirmed = b""
        self._has_led = self._doubts = self._is_paused = False
        self._totals = Counts()
        self._delays = growing_delays()
        self._watchdog = Watchdog(lambda: self._log.error("a call will not end; ending the process"))

    @property
    def is_leader(self) -> bool:
        return self._metadata is not None

    @property
    def counts(self) -> Counts:
        """Of the source since its first record, by outcome: `emitted`, and `diverted` into the raw topic."""
        return self._metadata.counts if self._metadata else Counts()

    @property
    def totals(self) -> Counts:
        """Of this process alone."""
        return self._totals

    def run(self, stop: threading.Event) -> None:
        """Blocks."""
        self.open()
        try:
            while not stop.is_set():
                self.turn(stop)
            self._log.info("stopped")
        finally:
            self.close()

    def open(self) -> None:
        """Join the group; nothing is pulled yet."""
        source = self._source
        with contextlib.closing(self._broker.admin()) as admin:
            needed_topics(self._subscription, admin)
            for topic in (source.position_topic, *([self._audit.topic] if self._audit else ())):
                if not admin.topics([topic]):
                    raise UsageError(f"{source.name}: no topic {topic}", hint="run `heddle apply`")
        self._group = f"{source.name}.pull"
        self._producer = self._broker.producer(f"{self._group}.{self._settings.instance}")
        self._producer.init(TIMEOUT_S)
        self._reader = self._broker.reader()
        self._diverted = Diverted(self._subscription, self._broker, self._clock)
        self._consumer = self._broker.consumer(self._group, source.position_topic, on_release=self._release)

    def turn(self, stop: threading.Event) -> bool:
        """One round; whether anything was pulled."""
        self._consumer.consume(1, 0.0, first_wait_s=0.0 if self.is_leader else IDLE_WAIT_S)
        group = self._consumer.group_metadata()
        change = self._consumer.take_rebalance()
        if change.revoked or change.lost:
            self._let_go()
            self._standing, self._has_led = None, False
        if PARTITION not in self._consumer.assignment():
            return False
        try:
            if self._metadata is None:
                with self._watchdog.armed(within(HANDSHAKE_LIMIT_S)):
                    self._take_over(group)
            assert self._puller is not None
            self._diverted.release()
            pull = self._puller.pull(self._settings.batch_max_records, IDLE_WAIT_S)
            if pull is not None:
                self._settle(pull, group)
            self._go_on(group)
        except StaleGenerationError:
            self._forget_turn()
            return False
        except DependencyDownError as error:
            self._pause(error, group, stop)
            return False
        if pull is None:
            return False
        self._delays = growing_delays()
        return bool(pull.records)

    def close(self) -> None:
        """Leave the group; what was not committed is pulled again by whoever leads next."""
        self._release()
        self._let_go()
        self.abandon()

    def abandon(self) -> None:
        """As if the process had died: connections end, nothing is given back."""
        for part in (self._consumer, self._diverted, self._reader, self._producer):
            try:
                with self._watchdog.armed(within(CLOSE_LIMIT_S)):
                    part.close()
            except Exception as error:
                self._log.warning("did not close cleanly", error=str(error))
        self._watchdog.end()

    # Leading

    def _take_over(self, group: GroupMetadata) -> None:
        """The order is the guarantee: a predecessor's transaction is decided, ours proves that we lead, and only then
        is the position read and anything pulled."""
        found = self._consumer.committed([PARTITION], TIMEOUT_S)[PARTITION]
        metadata = PartitionMetadata.unpack(found.metadata)
        resets: list[Outgoing] = []
        if self._audit is not None:
            resets, metadata = self._audit.resets(metadata, self._reader, self._log)
        self._commit(resets, metadata, group)
        self._is_paused = self._audit is not None and self._audit.tells_of_pause
        tail = self._reader.tails(self._source.position_topic, [PARTITION], TIMEOUT_S)[PARTITION]
        position = None if tail is None else unpacked_position(self._source, tail.value or b"")
        self._diverted.restore()
        puller = self._source.open()
        try:
            if isinstance(puller, KeepingPuller):
                with contextlib.closing(self._kept()) as kept:
                    puller.restore(kept)
            puller.begin(position)
            if position is not None:
                puller.confirm(position)
            if not self._has_led:  # to begin again after a pause is no crash, and neither is an upstream that is away
                metadata = metadata.taken_over(1)
                self._commit([], metadata, group)
        except BaseException:
            puller.close()
            raise
        self._puller, self._metadata, self._confirmed = puller, metadata, position or b""
        self._doubts, self._has_led = metadata.started > CRASHES_THAT_RAISE_DOUBTS, True
        self._log.info("leading", crashes_before=metadata.started - 1, diverted_keys=len(self._diverted))

    def _kept(self) -> Generator[tuple[bytes, bytes | None]]:
        records = self._reader.scan(self._source.position_topic, PARTITION, TIMEOUT_S, settled=True)
        for record in records:
            if record.key is not None and record.key.startswith(KEPT_PREFIX):
                yield record.key.removeprefix(KEPT_PREFIX), record.value

    def _release(self, _partitions: frozenset[int] = frozenset()) -> None:
        """A clean end of our lead. Best effort: without it the successor takes it for a crash."""
        standing, self._standing = self._standing, None
        if standing is None or not self._has_led:  # then it is a predecessor's
            return
        try:
            self._commit([], standing.released(), self._consumer.group_metadata())
            self._standing = None
        except HeddleError as error:
            self._log.warning("could not give the lead back", error=str(error))
            with contextlib.suppress(HeddleError):
                self._producer.abort(TIMEOUT_S)

    def _let_go(self) -> None:
        """Of the source. What was pulled and not committed is forgotten."""
        puller, self._puller, self._metadata = self._puller, None, None
        if puller is not None:
            try:
                with self._watchdog.armed(within(CLOSE_LIMIT_S)):
                    puller.close()
            except Exception as error:
                self._log.warning("did not close cleanly", error=str(error))

    def _forget_turn(self) -> None:
        """The group has moved on."""
        self._producer.abort(TIMEOUT_S)
        self._let_go()
        self._standing = None

    # Waiting

    def _pause(self, error: DependencyDownError, group: GroupMetadata, stop: threading.Event) -> None:
        """The audit trail says why, once, for `heddle status`; connections end, and the lead stays ours."""
        delay_s = next(self._delays)
        self._log.warning("paused: the source does not answer", error=str(error), retry_in_s=delay_s)
        self._let_go()
        if not self._is_paused:
            try:
                self._tell("paused", {"why": f"{error.code}: {message_of(error)}"}, group)
            except StaleGenerationError:
                return self._forget_turn()
            self._is_paused = True
        self._clock.wait(stop, delay_s)
        return None

    def _go_on(self, group: GroupMetadata) -> None:
        """After a pull that went well. The pause may have been a predecessor's."""
        if self._is_paused:
            self._metadata = self._tell("resumed", {}, group)
            self._is_paused = False

    def _tell(self, kind: str, detail: Mapping[str, str], group: GroupMetadata) -> PartitionMetadata | None:
        """An audit record of its own. What stands now."""
        if self._audit is not None and self._standing is not None:
            records, metadata = self._audit.event(self._standing, kind, detail)
            self._commit(records, metadata, group)
        return self._standing

    # Settling

    def _settle(self, pull: Pull, group: GroupMetadata) -> None:
        assert self._puller is not None
        assert self._metadata is not None
        if not (pull.records or pull.kept) and pull.position == self._confirmed:
            return
        outputs: list[Outgoing] = []
        newly: set[bytes] = set()
        diverted = 0
        for record in pull.records:
            waits = self._doubts or record.key in self._diverted or record.key in newly
            events = None if waits else self._converted(record)
            if events is None:
                diverted += 1
                outputs.append(self._raw(record))
                if self._by_key:
                    newly.add(record.key)
            else:
                outputs += events
        emitted = len(pull.records) - diverted
        counts = Counts(Counts().by_outcome | {Outcome.EMITTED: emitted, Outcome.DIVERTED: diverted})
        metadata = self._metadata.settled(counts, Counts())
        if self._audit is not None:
            news, metadata = self._audit.news(metadata)
            outputs += news
        topic = self._source.position_topic
        outputs += [Outgoing(topic, KEPT_PREFIX + key, value, (), PARTITION) for key, value in pull.kept]
        outputs.append(packed_position(self._source, pull.position))  # the last: it is found at the topic's end
        self._commit(outputs, metadata, group)
        self._metadata, self._doubts = metadata, False
        self._totals += counts
        for key in newly:
            self._diverted.add(key)
        if diverted:
            self._log.warning("diverted into the raw topic", records=diverted, topic=self._source.raw_topic)
        self._puller.confirm(pull.position)
        self._confirmed = pull.position

    def _converted(self, record: Pulled) -> list[Outgoing] | None:
        """Its events; None where the raw topic's subscription has to see to it. Raises what says nothing about the
        record: a registry that does not answer."""
        try:
            return [self._drafts.event(draft, None) for draft in record.drafts()]
        except Exception as error:
            interrupted = interruption(failure_of(0, error))
            if interrupted is not None:
                raise interrupted from error
            return None

    def _raw(self, record: Pulled) -> Outgoing:
        identity = Identity(f"/sources/{self._source.name}", record.id)
        lineage = Lineage("", identity).pack()
        time = event_time(datetime.fromtimestamp(self._clock.wall_ms() / 1000, UTC)).encode()
        headers = event_headers(identity, self._source.raw_topic, time, lineage, None, [])
        return Outgoing(self._source.raw_topic, record.key, record.pack(), headers)

    def _commit(self, outputs: Sequence[Outgoing], metadata: PartitionMetadata, group: GroupMetadata) -> None:
        with self._watchdog.armed(within(2 * self._settings.transaction_timeout_s)):
            self._producer.begin()
            self._producer.produce(outputs)
            positions = {PARTITION: Position(0, metadata.pack())}
            self._producer.send_offsets(self._source.position_topic, positions, group)
        for attempt in stamina.retry_context(on=CommitUnknownError, attempts=COMMIT_TRIES, timeout=None):
            with attempt:
                self._producer.commit(TIMEOUT_S)
        self._standing = metadata


def packed_position(source: PulledSource, position: bytes) -> Outgoing:
    """The record that says where the source goes on. Raises `UsageError` for a position that is too long."""
    if len(position) > MAX_POSITION_BYTES:
        raise UsageError(f"{source.name}: a position of {len(position)} bytes; at most {MAX_POSITION_BYTES} are kept")
    value = orjson.dumps({"v": FORMAT_VERSION, "position": orjson.Fragment(position)})
    return Outgoing(source.position_topic, source.name.encode(), value, (), PARTITION)


def unpacked_position(source: PulledSource, value: bytes) -> bytes:
    """Raises `FormatError`."""
    try:
        found = orjson.loads(value)
        if found["v"] != FORMAT_VERSION:
            raise ValueError(found["v"])
        return orjson.dumps(found["position"])
    except (ValueError, LookupError, TypeError) as error:
        raise FormatError(
            f"{source.position_topic} holds a position that cannot be read here",
            hint="a newer Heddle or another program wrote it: run that version",
        ) from error
