"""An HTTP sink as a process: killed again and again while its target fails in every way; and its target away for long.

HEDDLE_FAULTS=full: 20,000 events, a tenth of all requests failing, 10 kills; an outage of a minute."""

from __future__ import annotations

import json
import math
import os
import random
import subprocess
import sys
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from faults_app import READY_TIMEOUT_S, moment
from faults_project import PARTITIONS, Shell, SmallProject, feed

sys.path.insert(0, str(Path(__file__).parents[1] / "integration"))
from http_target import NONE, Fault, Target, mixed_faults

from heddle.broker.kafka import KafkaBroker
from heddle.contracts import AvroCodec, ConfluentRegistry, contract_of
from heddle.delivery.envelope import KILLS as BLAMED
from heddle.delivery.metadata import Counts, PartitionMetadata
from heddle.integration import Outcome
from heddle.local import Stack
from heddle.settings import Settings

FULL = os.environ.get("HEDDLE_FAULTS") == "full"
EVENTS, KILLS = (20_000, 10) if FULL else (1_500, 3)
FEW_EVENTS = 1_500
OUTAGE_S = 60.0 if FULL else 8.0
ACCOUNTS = 200
RATE, LATE_S = 0.1, 0.4
TIMEOUT_S = 1800.0 if FULL else 150.0
BACK_WITHIN_S = 5.0
WINDOW_S = 1.0 if FULL else 0.4
RESTORED_SHARE = 0.8
SINK = "billing"
TELLING = "idempotency=IdempotencyKey(), emits=Bill, from_answer=billed"

_CONSUMER = """
from heddle import Breaker, Deadlines, Endpoint, HttpSink, IdempotencyKey, OnFailure, Retry
from schemas.{domain} import Bill, Order


def billed(order, answer):
    return Bill(account=order.account, seq=order.seq, cents=answer.json()["id"])


sink = HttpSink(
    "billing",
    reads=Order,
    url="{url}",
    call=Endpoint("POST", "/v1/accounts/{{account}}/orders"),
    {once},
    deadlines=Deadlines(connect_s=0.5, read_s=0.3, total_s=0.5),
    on_failure=OnFailure(transient=Retry(tries=100, first_delay_s=0.2, longest_delay_s=2)),
    owner="testers",
)
"""

LONG = pytest.mark.skipif(not FULL, reason="takes long; `make faults` runs it")

Report = Callable[[str, object], None]

pytestmark = [pytest.mark.stack, pytest.mark.faults, pytest.mark.timeout(2 * TIMEOUT_S)]


class Billing:
    """A small project with one HTTP sink, applied, and its target."""

    def __init__(
        self, root: Path, domain: str, stack: Stack, target: Target, once: str = "idempotency=IdempotencyKey()"
    ) -> None:
        self.target = target
        self.project = SmallProject(root, domain)
        (root / "consumers/billing.py").write_text(_CONSUMER.format(domain=domain, url=target.url, once=once))
        self.shell = Shell(self.project, stack)
        settings = Settings(bootstrap_servers=stack.bootstrap_servers, registry_url=stack.registry_url, local=True)
        self.broker = KafkaBroker(settings)
        self.topic, self.bill_topic = f"{domain}.order.v1", f"{domain}.bill.v1"
        self.shell.apply()
        self._registry = ConfluentRegistry(settings)
        self._codec = self.project.codec(self._registry)
        self._admin = self.broker.admin()

    def close(self) -> None:
        self._admin.close()
        self.target.stop()

    def feed(self, count: int, first: int = 0) -> None:
        order = self.project.types.Order
        records = []
        for seq in range(first, first + count):
            account = f"a{seq % ACCOUNTS}"
            value = self._codec.encode(order(account=account, seq=seq, cents=100, product="plan"))
            records.append((f"default/{account}".encode(), value))
        for start in range(0, count, 2_000):
            feed(self.broker, self.topic, records[start : start + 2_000], f"{SINK}-{first}-{start}")

    def bills(self) -> list[Any]:
        """What the target's answers became, as readers of committed records find it. `cents` is the target's own id."""
        codec: AvroCodec[Any] = AvroCodec(contract_of(self.project.types.Bill), self._registry)
        reader = self.broker.reader()
        try:
            return [
                codec.decode(record.value)
                for partition in range(PARTITIONS)
                for record in reader.read_range(self.bill_topic, partition, READY_TIMEOUT_S, settled=True)
            ]
        finally:
            reader.close()

    def counts(self) -> Counts:
        positions = self._admin.group_positions(SINK, self.topic, range(PARTITIONS)).values()
        return sum((PartitionMetadata.unpack(position.metadata).counts for position in positions), Counts())

    def done(self) -> int:
        """Effects, each counted once."""
        return len(set(self.target.counts()))

    def until(self, supervisor: subprocess.Popen[bytes], what: str, holds: Callable[[], bool]) -> None:
        deadline = time.monotonic() + TIMEOUT_S
        while not holds():
            assert supervisor.poll() is None, f"`heddle run` ended\n{self.project.last_lines()}"
            assert time.monotonic() < deadline, f"not in time: {what}\n{self.project.last_lines()}"
            moment(0.05)

    def kill_worker(self, supervisor: subprocess.Popen[bytes]) -> None:
        self.until(supervisor, "a worker", lambda: self.shell.worker(supervisor, SINK) is not None)
        worker = self.shell.worker(supervisor, SINK)
        if worker is not None:
            worker.kill()

    def blamed(self) -> int:
        """Records that were in hand alone when their worker was killed, again: they are dead, and wait for a person."""
        return sum(headers.get("heddle-code") == BLAMED.encode() for headers in self._unresolved())

    def replay(self) -> None:
        """What on-call does about these."""
        replay = ("dlq", "replay", "--json")
        plan = json.loads(self.shell.output(self.shell.begun(*replay, SINK, "--code", BLAMED)))["hash"]
        assert self.shell.done(self.shell.begun(*replay, "--apply", plan, "--reason", "it was us who killed it")) == 0

    def entries(self) -> Counter[str]:
        """Unresolved dead letters by state."""
        return Counter((headers["heddle-state"] or b"").decode() for headers in self._unresolved())

    def _unresolved(self) -> list[dict[str, bytes | None]]:
        """Their headers. Another test's on this stack, of another topic, are none of ours."""
        reader = self.broker.reader()
        try:
            newest = {
                (partition, record.key): record
                for partition in range(PARTITIONS)
                for record in reader.read_range(f"{SINK}.dlq", partition, READY_TIMEOUT_S, settled=True)
            }
        finally:
            reader.close()
        entries = [dict(record.headers) for record in newest.values() if record.value is not None]
        return [entry for entry in entries if entry["heddle-topic"] == self.topic.encode()]


@pytest.fixture
def billing(own_stack: Stack, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Billing]:
    dedupes, domain, *once = request.param
    made = Billing(tmp_path, domain, own_stack, Target(dedupes=dedupes), *once)
    yield made
    made.close()


@LONG
@pytest.mark.parametrize(
    "billing", [(True, "dedupes", TELLING), (False, "naive")], indirect=True, ids=["deduplicating", "naive"]
)
def test_each_event_takes_effect_once_through_faults_and_kills(billing: Billing, record_property: Report) -> None:
    """A naive target keeps no keys: it makes an effect of each try. Its double count is told, not hidden. What the
    other one answers becomes an event, once too."""
    target, dice = billing.target, random.Random(11)
    target.fault = mixed_faults(RATE, 11, LATE_S, target.injected)
    began = time.monotonic()
    with billing.shell.running(SINK) as supervisor:
        billing.feed(EVENTS)
        for number in range(1, KILLS + 1):
            share = EVENTS * number // (KILLS + 1)
            billing.until(supervisor, f"{share} effects", lambda share=share: billing.done() >= share)  # type: ignore[misc]
            moment(dice.random() * 0.1)
            billing.kill_worker(supervisor)
        billing.until(supervisor, "all settled", lambda: billing.counts().total == EVENTS)
        replayed = billing.blamed()
        if replayed:
            billing.replay()
        billing.until(supervisor, "nothing is parked", lambda: not billing.entries())
    took_s = time.monotonic() - began
    bodies = billing.target.counts()
    doubles = sum(bodies.values()) - len(bodies)
    kinds = ", ".join(f"{name} {count}" for name, count in sorted(target.injected.items()))
    record_property(
        "summary",
        f"{EVENTS} events, {KILLS} kills, {sum(target.injected.values())} faults ({kinds}), "
        f"{took_s:.0f} s: {len(bodies)} effects, {doubles} of them doubled; {replayed} records were blamed for kills, "
        "and replayed",
    )
    assert len(bodies) == EVENTS
    if target.dedupes:
        assert doubles == 0
        assert_in_order(target)
        assert sorted(bill.cents for bill in billing.bills()) == list(range(1, EVENTS + 1))
        assert {bill.seq for bill in billing.bills()} == set(range(EVENTS))
    else:
        assert doubles > 0


def per_s(times: Sequence[float]) -> float:
    """Mean rate of events that happened at these times, which rise."""
    return (len(times) - 1) / (times[-1] - times[0])


def restored_after_s(times: Sequence[float], back: float, wanted_per_s: float) -> float:
    """From `back` until events came that fast, which they went on to do for `WINDOW_S`; endless for never."""
    for index, began in enumerate(times):
        if bisect_left(times, began + WINDOW_S) - index >= wanted_per_s * WINDOW_S:
            return began - back
    return math.inf


@LONG
def test_an_api_without_keys_is_never_called_twice(own_stack: Stack, tmp_path: Path, record_property: Report) -> None:
    """It would act on each call: each event has had its effect once, or is unknown, and then once at most."""
    target, dice = Target(dedupes=False), random.Random(12)
    billing = Billing(tmp_path, "once", own_stack, target, once="at_most_once=True")
    target.fault = mixed_faults(RATE, 12, LATE_S, target.injected)
    try:
        with billing.shell.running(SINK) as supervisor:
            billing.feed(FEW_EVENTS)
            for number in range(1, KILLS + 1):
                share = FEW_EVENTS * number // (KILLS + 2)
                billing.until(supervisor, f"{share} run", lambda share=share: billing.counts().total >= share)  # type: ignore[misc]
                moment(dice.random() * 0.1)
                billing.kill_worker(supervisor)
            billing.until(supervisor, "all have run", lambda: billing.counts().total == FEW_EVENTS)
            billing.until(supervisor, "none is tried again", lambda: not billing.entries()["retrying"])
        bodies, parked = target.counts(), billing.entries()
    finally:
        billing.close()
    record_property(
        "summary",
        f"{FEW_EVENTS} events, {KILLS} kills, {sum(target.injected.values())} faults: {len(bodies)} effects, "
        f"{sum(bodies.values()) - len(bodies)} of them doubled; {parked['unknown']} unknown, "
        f"{parked['waiting']} wait behind these",
    )
    assert set(bodies.values()) == {1}
    assert parked.keys() <= {"unknown", "waiting"}
    assert len(bodies) + parked.total() >= FEW_EVENTS


def assert_in_order(target: Target) -> None:
    """Of each account, as the target took them (I4)."""
    last: dict[str, int] = {}
    for effect in target.effects:
        order = effect.json
        assert order["seq"] > last.get(order["account"], -1), f"{order['account']} is out of order"
        last[order["account"]] = order["seq"]


@pytest.mark.parametrize(
    "billing",
    [
        pytest.param((True, "gone"), id="gone"),
        pytest.param(
            (True, "failing"), id="failing", marks=pytest.mark.skipif(not FULL, reason="`make faults` runs it")
        ),
    ],
    indirect=True,
)
def test_an_outage_parks_nothing_and_is_over_soon_after_it_ends(billing: Billing, record_property: Report) -> None:
    """Nobody there pauses the sink; a target that answers 500 to everything opens its circuit breaker."""
    target, count, is_gone = billing.target, EVENTS, billing.project.domain == "gone"
    with billing.shell.running(SINK) as supervisor:
        billing.feed(count)
        billing.until(supervisor, "it works", lambda: billing.done() >= count // 4)
        if is_gone:
            target.stop()
        else:
            target.fault = lambda _: Fault(status=500)
        down, before_per_s = len(target.effects), per_s(target.effect_times)
        ends_at = time.monotonic() + OUTAGE_S
        while time.monotonic() < ends_at:
            moment(0.5)
            assert supervisor.poll() is None
        assert billing.entries() == Counter()
        assert billing.done() <= down  # of the last effects the offsets may have come a moment later
        if is_gone:
            target.start()
        else:
            target.fault = lambda _: NONE
        back = time.monotonic()
        billing.until(supervisor, "all settled", lambda: billing.counts().total == count)
        assert billing.entries() == Counter()
    outcomes = billing.counts().by_outcome
    times = [at for at in target.effect_times if at >= back]
    restored_s = restored_after_s(times, back, RESTORED_SHARE * before_per_s)
    silence_s, silent_from = max((later - at, at) for at, later in pairwise(times))
    summary = (
        f"{OUTAGE_S:.0f} s {billing.project.domain}; {before_per_s:.0f}/s before, {per_s(times):.0f}/s after; "
        f"first effect {times[0] - back:.1f} s after its return, "
        f"{RESTORED_SHARE:.0%} of the rate {restored_s:.1f} s after it; "
        f"silent for at most {silence_s:.1f} s, from {silent_from - back:.1f} s on; "
        f"the last after {times[-1] - back:.1f} s"
    )
    record_property("summary", summary)
    assert outcomes[Outcome.APPLIED] == count
    assert target.counts() == Counter(dict.fromkeys(target.counts(), 1))
    assert times[0] - back < BACK_WITHIN_S, summary
    # A rate needs a machine of its own: the two phases of a short run meet different neighbours.
    assert not FULL or restored_s < BACK_WITHIN_S, f"{summary}\n{billing.project.last_lines()}"
