"""Transactional producer on Kafka."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import chain
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Message, TopicPartition
from confluent_kafka import Producer as Client

from heddle.broker.kafka.config import producer_config
from heddle.broker.kafka.consumer import KafkaGroupMetadata
from heddle.broker.kafka.failures import AUTH, FENCED, STALE, TOO_LARGE, Reasons, configured, failure, translated
from heddle.broker.log import (
    ANY_PARTITION,
    UNPLACED,
    GroupMetadata,
    Outgoing,
    OutgoingBatch,
    Position,
)
from heddle.errors import (
    AuthError,
    BrokerDownError,
    BrokerError,
    CommitUnknownError,
    HeddleError,
    StaleGenerationError,
    TransactionExpiredError,
)
from heddle.settings import Settings

_QUEUE_FULL_WAIT_S = 0.05
_INIT_SLICE_S = 1.0  # the call resumes; between two we learn why it takes long
_CLOSE_TIMEOUT_S = 5.0
_ASK_TIMEOUT_S = 2.0


class KafkaProducer:
    """No delivery callbacks but for placed records: what could not be delivered fails the commit."""

    def __init__(self, settings: Settings, transactional_id: str) -> None:
        self._id = transactional_id
        self._transaction_timeout_s = settings.transaction_timeout_s
        self._reasons = Reasons()
        self._began_s = 0.0
        self._is_open = False
        self._batches: list[Sequence[Outgoing | OutgoingBatch]] = []
        self._has_placed = self._is_place_unknown = False
        with configured():
            self._client = Client(producer_config(settings, self._reasons, transactional_id))

    def init(self, timeout_s: float) -> None:
        doing, deadline = f"initialising {self._id}", time.monotonic() + timeout_s
        while True:
            left = deadline - time.monotonic()
            try:
                return self._client.init_transactions(max(min(left, _INIT_SLICE_S), 0.001))
            except KafkaException as error:
                self._serve_events(doing)
                if refusal := self._reasons.refusal(doing):
                    raise refusal from error
                reason: KafkaError = error.args[0]
                if not reason.retriable() or time.monotonic() >= deadline:
                    raise failure(reason, doing, self._reasons) from error

    def begin(self) -> None:
        doing = f"beginning a transaction of {self._id}"
        self._serve_events(doing)
        with translated(doing, self._reasons):
            self._client.begin_transaction()
        self._is_open, self._began_s = True, time.monotonic()
        self._forget()

    def produce(self, records: Iterable[Outgoing | OutgoingBatch]) -> None:
        batch = records if isinstance(records, Sequence) else list(records)
        self._batches.append(batch)
        produce = self._client.produce
        for record in batch:
            if isinstance(record, OutgoingBatch):
                self._produce_batch(record)
                continue
            topic, key, value, headers, partition = record
            try:
                produce(topic, value, key, partition, None, None, 0, list(headers))
            except BufferError:
                self._produce_when_possible(record)
            except KafkaException as error:
                raise self._failure(error.args[0], "producing") from error

    def _produce_batch(self, batch: OutgoingBatch) -> None:
        """The hot path: arguments by place, because names cost 0.4 µs a record; and headers are let go at once, because
        after the batch, when they have left the core's cache, that costs up to 0.4 µs."""
        produce, topic, given = self._client.produce, batch.topic, batch.headers
        for place, (key, value) in enumerate(zip(batch.keys, batch.values, strict=True)):
            headers = given[place]
            if headers is None:
                continue
            given[place] = None
            try:
                produce(topic, value, key, ANY_PARTITION, None, None, 0, headers)  # type: ignore[arg-type]
            except BufferError:
                self._produce_when_possible(Outgoing(topic, key, value, headers))
            except KafkaException as error:
                raise self._failure(error.args[0], "producing") from error

    def produce_placed(self, records: Iterable[Outgoing]) -> list[int]:
        batch = list(records)
        if not batch:
            return []
        offsets = [UNPLACED] * len(batch)
        self._batches.append(batch)
        self._has_placed = True
        for index, record in enumerate(batch):
            self._produce_when_possible(record, on_delivery=partial(self._place, offsets, index))
        return offsets

    def send_offsets(self, topic: str, positions: Mapping[int, Position], group: GroupMetadata) -> None:
        """The records go first: what an abort purges on its way out leaves a gap in the sequence numbers, which the
        broker holds against the next transaction (seen in one of eight rebalances under load). A commit would have
        waited for them anyway."""
        assert isinstance(group, KafkaGroupMetadata)
        if group.generation < 0:  # the coordinator would take it unchecked
            raise StaleGenerationError("this consumer is no member of its group", hint="abort, poll, re-run")
        with self._serving("sending offsets"):
            self._client.flush(self._transaction_timeout_s)
        offsets = [TopicPartition(topic, p, position.offset, position.metadata) for p, position in positions.items()]
        try:
            self._send_offsets(offsets, group)
        except KafkaException as error:
            raise self._failure(error.args[0], "sending offsets") from error

    def commit(self, timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        if self._has_placed:
            self._know_places(timeout_s)
        try:
            self._client.commit_transaction(max(deadline - time.monotonic(), 0.001))
        except KafkaException as error:
            reason: KafkaError = error.args[0]
            if reason.retriable():
                raise CommitUnknownError(
                    f"committing a transaction of {self._id}: no answer in time ({reason.name()})",
                    hint="call commit again, or exit and let a successor decide it",
                ) from error
            raise self._failure(reason, "committing") from error
        self._ended()

    def abort(self, timeout_s: float) -> None:
        try:
            self._client.abort_transaction(timeout_s)
        except KafkaException as error:
            raise self._failure(error.args[0], "aborting") from error
        self._ended()

    def close(self) -> None:
        """Never raises: a producer that is fatally broken would say so again here, over the error that matters.

        librdkafka ends with the last reference to it; its own `close` would abort once more, and warn."""
        if self._is_open:
            with contextlib.suppress(BrokerError, AuthError):
                self.abort(_CLOSE_TIMEOUT_S)
        del self._client

    def _serve_events(self, doing: str) -> None:
        """librdkafka's error and log events; nothing else polls a producer. A fatal one is raised by the poll."""
        with translated(doing, self._reasons):
            self._client.poll(0)

    @contextlib.contextmanager
    def _serving(self, doing: str) -> Iterator[None]:
        """Around a poll or a flush: they raise what is fatal, too, for example that somebody else has our name now."""
        try:
            yield
        except KafkaException as error:
            raise self._failure(error.args[0], doing) from error

    def _send_offsets(self, offsets: list[TopicPartition], group: KafkaGroupMetadata) -> None:
        """When the records of this transaction are refused meanwhile, librdkafka calls that a wrong state; asked again
        it names the refusal. Offsets that were taken after all may be sent twice."""
        arguments = (offsets, group.serialised, self._transaction_timeout_s)
        try:
            self._client.send_offsets_to_transaction(*arguments)
        except KafkaException as error:
            if error.args[0].code() != KafkaError._STATE:
                raise
            self._client.send_offsets_to_transaction(*arguments)

    def _produce_when_possible(self, record: Outgoing, **options: Any) -> None:
        """Where the local queue is full, wait for deliveries, at most as long as the transaction may last."""
        topic, key, value, headers, partition = record
        while time.monotonic() - self._began_s < self._transaction_timeout_s:
            try:
                return self._client.produce(topic, value, key, partition, headers=list(headers), **options)
            except BufferError:
                with self._serving("producing"):
                    self._client.poll(_QUEUE_FULL_WAIT_S)
            except KafkaException as error:
                raise self._failure(error.args[0], "producing") from error
        raise BrokerDownError(f"producing to {record.topic}: the local queue stays full", hint="check the brokers")

    def _place(self, offsets: list[int], index: int, error: KafkaError | None, message: Message[Any, Any]) -> None:
        if error is None:
            offset = message.offset()
            offsets[index] = UNPLACED if offset is None else offset
            self._is_place_unknown |= offsets[index] < 0

    def _know_places(self, timeout_s: float) -> None:
        """An acknowledgement that was lost can leave librdkafka with a record that is there, but not with its offset:
        such a transaction is not committed."""
        with self._serving("committing"):
            self._client.flush(timeout_s)
        if self._is_place_unknown:
            raise BrokerError(
                f"committing a transaction of {self._id}: the log did not say where it put a record",
                hint="start the worker anew",
            )

    def _ended(self) -> None:
        self._is_open = False
        self._forget()

    def _forget(self) -> None:
        self._batches.clear()
        self._has_placed = self._is_place_unknown = False

    def _failure(self, error: KafkaError, doing: str) -> HeddleError:
        code, doing = error.code(), f"{doing} in a transaction of {self._id}"
        if code in TOO_LARGE:
            return BrokerError(f"{doing}: a record is too large for its topic; largest: {self._largest()}")
        if code in (KafkaError._INCONSISTENT, KafkaError.TOPIC_AUTHORIZATION_FAILED):
            return self._undelivered(error, doing)
        if code in FENCED and time.monotonic() - self._began_s >= self._transaction_timeout_s:
            return TransactionExpiredError(
                f"{doing}: the transaction outlived its time-out of {self._transaction_timeout_s:g} s",
                hint="the broker has ended it, nobody has replaced us; start the worker anew",
            )
        if error.fatal() and code not in FENCED | STALE | AUTH:
            return BrokerError(f"{doing}: {error.str()} ({error.name()}, fatal)", hint="start the worker anew")
        return failure(error, doing, self._reasons)

    def _undelivered(self, error: KafkaError, doing: str) -> HeddleError:
        """librdkafka says that records were not delivered, not whereto: ask each topic."""
        topics = sorted({record.topic for batch in self._batches for record in batch})
        for topic in topics:
            with contextlib.suppress(KafkaException):
                problem = self._client.list_topics(topic, _ASK_TIMEOUT_S).topics[topic].error
                if problem is not None:
                    return failure(problem, f"{doing}: writing to {topic}", self._reasons)
        return failure(error, f"{doing}: writing to {', '.join(topics)}", self._reasons)

    def _largest(self) -> str:
        sizes: dict[str, int] = {}
        for record in chain.from_iterable(self._batches):
            for key, value in _bodies(record):
                size = len(key or b"") + len(value or b"")
                sizes[record.topic] = max(size, sizes.get(record.topic, 0))
        return ", ".join(f"{size} bytes to {topic}" for topic, size in sorted(sizes.items()))


def _bodies(record: Outgoing | OutgoingBatch) -> Iterable[tuple[bytes | None, bytes | None]]:
    return [record[1:3]] if isinstance(record, Outgoing) else zip(record.keys, record.values, strict=True)
