"""A pushed source's side of its contract with the gateway and with whoever sends, on a gateway that is killed, stopped,
and whose log takes nothing for a while.

What is promised (guarantees.md, sources): what was acknowledged is in the raw topic for good, and what was not is for
the sender to send again; then it may be there twice, under one id, and the sink's inbox drops the second.
"""

from __future__ import annotations

import contextlib
import itertools
import threading
import time
import unittest
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import ClassVar

from heddle.broker.log import Record
from heddle.event import parse_headers
from heddle.sources.webhook import WebhookSource
from heddle.testing.conformance.gateways import Answer, Gateway, Gateways, MemoryGateways, Sent
from heddle.testing.harness import Harness

DELIVERIES = 9
SENDERS = 4
ACKNOWLEDGED_BEFORE_STOP = 12
LIMIT_S = 30.0
PAUSE_S = 0.02
SAME_ID = (
    "the id has to be the vendor's own (delivery_id=, or the scheme's), or come from the body alone: never from the "
    "clock, from a counter, or from a header that is new with each attempt"
)


class PushedSourceConformance(ABC):
    """Subclass it in a test module as `Test...`, give the three methods, and pytest runs the checks.

    Each test gets an instance of its own. Without `gateways` it runs on Heddle's gateway in this process, over a log
    in memory. `unsupported`: checks that the kind cannot pass (acknowledged, crash, redelivery, second-copy, order,
    poison, convert, backpressure, shutdown, forged), each with the reason, with which they are skipped.
    `stop_limit_s`: within it a gateway has to stop."""

    unsupported: ClassVar[Mapping[str, str]] = {}
    stop_limit_s: ClassVar[float] = 15.0

    @abstractmethod
    def source(self) -> WebhookSource:
        """The source, as each process declares it anew."""

    @abstractmethod
    def delivery(self, number: int) -> Sent:
        """What the vendor sends of the entity `number % 3`, signed now. The same number is the same delivery, sent
        again; bodies of others differ."""

    @abstractmethod
    def poison(self) -> Sent:
        """Signed as well, and nothing that the source can convert."""

    def gateways(self) -> Gateways:
        """Where the source is served; asked once for each test."""
        return MemoryGateways()

    def test_what_was_acknowledged_survives_a_crash(self) -> None:
        self._require("acknowledged")
        with self._scene() as scene:
            for number in range(2):
                gateway = scene.start()
                self._taken(gateway, number)
                gateway.kill()
                assert scene.of(self.delivery(number)), (
                    "a delivery was acknowledged, the gateway was killed, and it is not in the raw topic: the answer "
                    "has to wait until the log has it on all replicas"
                )

    def test_what_a_crash_left_unanswered_is_sent_again_and_taken(self) -> None:
        """While it was being written: the first try may have landed or not."""
        self._require("crash")
        numbers = range(3)
        with self._scene() as scene:
            gateway = scene.start()
            with ThreadPoolExecutor(len(numbers)) as senders:
                with scene.gateways.stalled():
                    tries = [senders.submit(gateway.post, scene.path, self.delivery(n)) for n in numbers]
                    _until(
                        lambda: gateway.busy() == len(numbers) or all(one.done() for one in tries), "deliveries arrive"
                    )
                    gateway.kill()
                answers = [one.result() for one in tries]
            assert not [one for one in answers if one is not None and one.status < 300], (
                f"the log took nothing, and senders were told {answers}: nothing may be acknowledged before it is "
                "written, for a crash then loses it"
            )
            successor = scene.start()
            for number in numbers:
                self._taken(successor, number)
            self._each_has_one_id(scene, numbers)

    def test_a_redelivery_carries_the_same_id(self) -> None:
        """Also at another time, and to another process."""
        self._require("redelivery")
        with self._scene() as scene:
            for gateway, number in ((scene.start(), 0), (scene.start(), 0)):
                self._taken(gateway, number)
                self._taken(gateway, 1)
            self._each_has_one_id(scene, range(2), copies=2)

    def test_a_second_copy_loses_nothing_and_doubles_under_one_id_only(self) -> None:
        """Two gateways serve at once, and one of them dies. Nobody fences them: what they write is independent."""
        self._require("second-copy")
        with self._scene() as scene:
            first, second = scene.start(), scene.start()
            for number in range(3):
                self._taken((first, second)[number % 2], number)
                self._taken(second, number)
            first.kill()
            for number in range(2, 5):
                self._taken(second, number)
            self._each_has_one_id(scene, range(5))

    def test_deliveries_of_an_entity_stay_in_order(self) -> None:
        self._require("order")
        with self._scene() as scene:
            gateway = scene.start()
            for number in range(DELIVERIES):
                self._taken(gateway, number)
            written = self._first(scene, range(DELIVERIES))
            keys = [record.key for record in written]
            assert None not in keys, (
                "records have no key, so that deliveries of one entity overtake each other: declare entity=, or name "
                '"order" in unsupported, when versions decide'
            )
            assert keys == keys[:3] * (DELIVERIES // 3) and len(set(keys)) == 3, (  # noqa: PT018 - one finding
                f"of 3 entities in turn the keys are {keys}: entity= has to name the id of the business entity, the "
                "same in each of its deliveries, and no other's"
            )
            for key in set(keys):
                places = [(record.partition, record.offset) for record in written if record.key == key]
                assert places == sorted(places) and len({p for p, _ in places}) == 1, (  # noqa: PT018 - one finding
                    f"deliveries of {key!r} stand at {places}: in one partition, in the order in which they were "
                    "acknowledged, is what is wanted"
                )

    def test_poison_is_kept_raw_or_refused_and_others_flow(self) -> None:
        """Kept: the converter fails on it, so that it is parked with its bytes. Refused: nothing of it is kept."""
        self._require("poison")
        bad = self.poison()
        with self._scene() as scene:
            gateway = scene.start()
            self._taken(gateway, 0)
            answer = gateway.post(scene.path, bad)
            self._taken(gateway, 1)
            assert answer is not None, "a delivery that the source cannot read gets no answer, and ends the connection"
            assert answer.status < 500, (
                f"a delivery that the source cannot read is answered with {answer.status}, so that the vendor sends it "
                "for ever: entity= and delivery_id= have to return None where they find nothing, and what is wrong "
                "with it has to raise in convert="
            )
            kept = scene.of(bad)
            assert len(kept) == (1 if answer.status < 300 else 0), (
                f"it was answered with {answer.status}, and the raw topic holds {len(kept)} records of its very bytes"
            )
            assert not any(self._converts(record) for record in kept), (
                "what the source cannot read is converted all the same: convert= has to raise, for then it is parked "
                "with its bytes, and nothing is lost"
            )
            if kept:
                self._is_parked(bad, _id_of(kept[0]))
            for record in self._first(scene, range(2)):
                assert self._converts(record), "a delivery beside it does not convert"

    def test_a_raw_record_makes_the_same_events_each_time(self) -> None:
        self._require("convert")
        with self._scene() as scene:
            gateway = scene.start()
            for number in range(3):
                self._taken(gateway, number)
            records = self._first(scene, range(3))
            first = [list(self.source().convert_record(record)) for record in records]
            again = [list(self.source().convert_record(record)) for record in records]
            assert first == again, (
                f"a raw record that is converted again makes other events: {again}, not {first}. A replay would take "
                "effect twice: ids, values and times have to come from the delivery, never from the clock or by chance"
            )
            ids = [draft.id for drafts in first for draft in drafts]
            assert len(set(ids)) == len(ids), f"two events have one id, and one of them would be dropped: {ids}"

    def test_while_the_log_takes_nothing_the_sender_is_told_to_come_again(self) -> None:
        self._require("backpressure")
        with self._scene() as scene:
            gateway = scene.start()
            self._taken(gateway, 0)
            with scene.gateways.stalled():
                for number in (1, 2):
                    answer = gateway.post(scene.path, self.delivery(number))
                    assert answer is not None and answer.status == 503, (  # noqa: PT018 - one finding
                        f"the log takes nothing, and the sender gets {answer}: only a 503 makes all vendors send again "
                        "(a 2xx loses the event, a 4xx makes some of them give up)"
                    )
                    assert (answer.retry_after or "").isdecimal() and int(answer.retry_after or 0) > 0, (  # noqa: PT018
                        f"a 503 with Retry-After {answer.retry_after!r}: it has to say after how many seconds"
                    )
            for number in range(3):
                self._taken(gateway, number)
            self._each_has_one_id(scene, range(3))

    def test_a_stop_keeps_what_it_acknowledged_and_refuses_the_rest(self) -> None:
        self._require("shutdown")
        numbers, answers = itertools.count(), dict[int, Answer | None]()
        with self._scene() as scene:
            gateway = scene.start()

            def send() -> None:
                while None not in answers.values():
                    number = next(numbers)
                    answers[number] = gateway.post(scene.path, self.delivery(number))

            with ThreadPoolExecutor(SENDERS) as pool, contextlib.ExitStack() as ended:
                ended.callback(gateway.kill)  # also when a check fails: it is what ends the senders
                senders = [pool.submit(send) for _ in range(SENDERS)]
                _until(lambda: len(answers) >= ACKNOWLEDGED_BEFORE_STOP, "deliveries are answered")
                stopping = threading.Thread(target=gateway.stop, daemon=True)
                stopping.start()
                stopping.join(self.stop_limit_s)
                assert not stopping.is_alive(), f"the gateway does not stop within {self.stop_limit_s:g} s"
                for sender in senders:
                    sender.result(LIMIT_S)
            taken = [number for number, answer in answers.items() if answer is not None and answer.status < 300]
            others = {answer.status for answer in answers.values() if answer is not None} - {200, 503}
            assert not others, (
                f"while it stops senders are told {others}: 200, 503 or no answer is what they understand"
            )
            lost = [number for number, records in self._found(scene, taken).items() if not records]
            assert not lost, (
                f"{len(lost)} of {len(taken)} deliveries that were acknowledged before the stop are not in the raw "
                "topic: what is in flight has to land before the process ends"
            )
            successor = scene.start()
            for number in sorted(set(answers) - set(taken)):
                self._taken(successor, number)
            self._each_has_one_id(scene, answers)

    def test_what_nobody_signed_is_refused(self) -> None:
        self._require("forged")
        signed = self.delivery(0)
        forged = signed._replace(body=signed.body + b" ")
        with self._scene() as scene:
            gateway = scene.start()
            answer = gateway.post(scene.path, forged)
            assert answer is not None and 400 <= answer.status < 500, (  # noqa: PT018 - one finding
                f"a body that was changed after it was signed is answered with {answer}: the signature has to cover "
                "every byte of the raw body"
            )
            assert not scene.of(forged), "a body that was changed after it was signed is in the raw topic"
            self._taken(gateway, 0)

    # What the checks share

    def _require(self, check: str) -> None:
        if reason := self.unsupported.get(check):
            raise unittest.SkipTest(f"{check}: {reason}")

    @contextlib.contextmanager
    def _scene(self) -> Iterator[_Scene]:
        with contextlib.closing(_Scene(self)) as scene:
            yield scene

    def _taken(self, gateway: Gateway, number: int) -> None:
        """Sent until it is acknowledged, as a vendor does."""
        deadline_s = time.monotonic() + LIMIT_S
        while True:
            answer = gateway.post(self.source().path, self.delivery(number))
            if answer is not None and answer.status < 300:
                return
            assert answer is not None and answer.status == 503 and time.monotonic() < deadline_s, (  # noqa: PT018
                f"delivery {number} is answered with {answer}: is it signed with the source's secret, over the body "
                "as it is sent, and with the time of now?"
            )
            time.sleep(PAUSE_S)

    def _each_has_one_id(self, scene: _Scene, numbers: Iterable[int], copies: int = 1) -> None:
        found = self._found(scene, numbers)
        missing = [number for number, records in found.items() if len(records) < copies]
        assert not missing, f"deliveries {missing} were acknowledged, and are not in the raw topic byte for byte"
        ids = {number: {_id_of(record) for record in records} for number, records in found.items()}
        torn = {number: several for number, several in ids.items() if len(several) > 1}
        assert not torn, (
            f"a delivery that was sent again has other ids, so that it takes effect twice: {torn}; {SAME_ID}"
        )
        one_of_each = sorted(itertools.chain.from_iterable(ids.values()))
        assert len(set(one_of_each)) == len(ids), (
            f"different deliveries have one id, and all but the first would be dropped: {one_of_each}; delivery_id= "
            "has to name the delivery, not its entity"
        )
        keys = {number: {record.key for record in records} for number, records in found.items()}
        assert all(len(each) == 1 for each in keys.values()), f"a delivery that was sent again has another key: {keys}"

    def _found(self, scene: _Scene, numbers: Iterable[int]) -> dict[int, list[Record]]:
        """The raw records of deliveries, as they stand in the topic now."""
        records = scene.records()
        return {number: records.get(self.delivery(number).body, []) for number in numbers}

    def _first(self, scene: _Scene, numbers: Iterable[int]) -> list[Record]:
        """Of each delivery the first record."""
        found = self._found(scene, numbers)
        assert all(found.values()), "a delivery was acknowledged, and is not in the raw topic byte for byte"
        return [records[0] for records in found.values()]

    def _is_parked(self, bad: Sent, its_id: str) -> None:
        """By the subscription over the raw topic."""
        with Harness(self.source()) as engine:
            engine.deliver(bad.body, headers=bad.headers, id=its_id)
            found = [(letter.state, letter.value) for letter in engine.run().dead_letters]
        assert found == [("dead", bad.body)], (
            f"what does not convert is not parked as it came, but as {found}: let convert= raise ContractError, so "
            "that it is not tried again"
        )

    def _converts(self, record: Record) -> bool:
        try:
            list(self.source().convert_record(record))
        except Exception:
            return False
        return True


class _Scene:
    """The gateways of one test."""

    def __init__(self, check: PushedSourceConformance) -> None:
        self._check = check
        self._started: list[Gateway] = []
        self.gateways = check.gateways()
        source = check.source()
        self.path, self._topic = source.path, source.raw_topic

    def start(self) -> Gateway:
        self._started.append(self.gateways.start(self._check.source()))
        return self._started[-1]

    def of(self, sent: Sent) -> list[Record]:
        """Raw records of that very body."""
        return self.records().get(sent.body, [])

    def records(self) -> dict[bytes | None, list[Record]]:
        """The raw topic by body: one read of it."""
        found: dict[bytes | None, list[Record]] = {}
        for record in self.gateways.records(self._topic):
            found.setdefault(record.value, []).append(record)
        return found

    def close(self) -> None:
        for gateway in self._started:
            gateway.done()


def _id_of(record: Record) -> str:
    parsed = parse_headers(record.headers, record.topic, record.partition, record.offset, record.timestamp_ms)
    return parsed.identity.id


def _until(holds: Callable[[], bool], what: str) -> None:
    deadline_s = time.monotonic() + LIMIT_S
    while not holds():
        assert time.monotonic() < deadline_s, f"not within {LIMIT_S:.0f} s: {what}"
        time.sleep(PAUSE_S)
