"""Dead letters while processes and the broker die: records that kill, replays that are interrupted or overlap, a dead
letter that is being written when Kafka goes away. Real processes of `heddle run`, real commands."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import psutil
import pytest
from faults_app import READY_TIMEOUT_S, moment
from faults_project import PARTITIONS, Shell, SmallProject, feed
from faults_watch import Watch

from heddle.audit import read as read_audit
from heddle.broker.kafka import KafkaBroker
from heddle.broker.log import Record
from heddle.contracts import AvroCodec, ConfluentRegistry, contract_of
from heddle.delivery import envelope
from heddle.delivery.command import Command
from heddle.delivery.envelope import State, entry_of
from heddle.delivery.metadata import PartitionMetadata
from heddle.delivery.subscription import Subscription
from heddle.errors import BrokerError
from heddle.integration import Outcome
from heddle.local import Stack
from heddle.settings import Settings

FULL = os.environ.get("HEDDLE_FAULTS") == "full"
LARGE = 5_000 if FULL else 1_500
TIMEOUT_S = 60.0
RECOVERY_TIMEOUT_S = 120.0
MEMORY_LIMIT_BYTES = 220 * 2**20
MOST_HOARDED_MB = 300
FREEZES = 200

_FLOW = """
import os
import time
from pathlib import Path

from heddle import ContractError, FailureBudget, Flow, OnFailure
from schemas.{domain} import Bill, Order

MENDED = Path(__file__).parents[1] / "mended"


def billed(order):
    if order.product == "exit" and "{name}" == "exits":
        os._exit(9)
    if order.product == "hoard" and "{name}" == "hoards":
        hoard()
    if order.product.startswith("bad") and order.product not in MENDED.read_text().split():
        raise ContractError("no such product", path="product")
    return Bill(account=order.account, seq=order.seq, cents=order.cents)


def hoard():
    kept = []
    while True:
        if len(kept) < {most}:
            kept.append(b"x" * 2**20)
        time.sleep(0.001)


flow = Flow(
    "{name}", reads=Order, writes=Bill, do=billed, owner="testers", on_failure=OnFailure(budget=FailureBudget(ratio=1))
)
"""

Report = Callable[[str, object], None]

pytestmark = [pytest.mark.stack, pytest.mark.faults, pytest.mark.timeout(400)]


@dataclass
class Shop:
    """A small project on a stack, applied, with these flows."""

    root: Path
    stack: Stack
    flows: tuple[str, ...]
    fed: int = 0
    _names: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.project = SmallProject(self.root, self.flows[0])
        for name in self.flows:
            text = _FLOW.format(domain=self.flows[0], name=name, most=MOST_HOARDED_MB)
            (self.root / f"topologies/{name}.py").write_text(text)
        self.shell = Shell(self.project, self.stack, HEDDLE_BATCH_MAX_RECORDS="100")
        self.settings = Settings(
            bootstrap_servers=self.stack.bootstrap_servers, registry_url=self.stack.registry_url, local=True
        )
        self.broker = KafkaBroker(self.settings)
        self.registry = ConfluentRegistry(self.settings)
        self.shell.apply()

    @cached_property
    def watch(self) -> Watch:
        return Watch(self)  # type: ignore[arg-type]  # of an application it asks for these two alone

    @property
    def subscriptions(self) -> list[Subscription]:
        order, bill = contract_of(self.project.types.Order), contract_of(self.project.types.Bill)
        return [Subscription(name, order.topic, (bill.topic,)) for name in self.flows]

    def feed(self, *orders: tuple[str, str], cents: int = 1) -> None:
        """(account, product) pairs, numbered as they come."""
        order = self.project.types.Order
        codec, key_of = self.project.codec(self.registry), contract_of(order).key_of
        values = [
            order(account=account, seq=self.fed + n, cents=cents, product=product)
            for n, (account, product) in enumerate(orders)
        ]
        self.fed += len(orders)
        feed(self.broker, contract_of(order).topic, [(key_of(v), codec.encode(v)) for v in values], self.flows[0])

    def look_anew(self) -> None:
        """With another client: one that was asking when its broker died can go on timing out."""
        self.watch.close()
        del self.watch

    def until(
        self, what: str, holds: Callable[[], bool], timeout_s: float = TIMEOUT_S, seen: object = ""
    ) -> None:  # fmt: skip
        deadline = time.monotonic() + timeout_s
        while not holds():
            late = time.monotonic() > deadline
            assert not late, f"not within {timeout_s:g} s: {what} {seen}\n{self.project.last_lines()}"
            moment(0.02)

    def settled(self, count: int) -> Callable[[], bool]:
        return lambda: all(self.watch.settled(name) == count for name in self.flows)

    def entry_runs(self, name: str) -> int:
        """Runs of dead-letter entries that are committed."""
        topic = contract_of(self.project.types.Order).topic
        admin = self.broker.admin()
        try:
            found = admin.group_positions(name, topic, range(PARTITIONS)).values()
        finally:
            admin.close()
        return sum(PartitionMetadata.unpack(position.metadata).entry_counts.total for position in found)

    def worker(self, supervisor: subprocess.Popen[bytes], name: str) -> psutil.Process:
        found: list[psutil.Process] = []

        def is_there() -> bool:
            worker = self.shell.worker(supervisor, name)
            found[:] = [] if worker is None else [worker]
            return bool(found)

        self.until(f"{name} has a process", is_there, READY_TIMEOUT_S)
        return found[0]

    def read(self, topic: str) -> list[Record]:
        reader = self.broker.reader()
        try:
            return [r for p in range(PARTITIONS) for r in reader.read_range(topic, p, TIMEOUT_S, settled=True)]
        finally:
            reader.close()

    def bills(self, name: str) -> list[tuple[str, int]]:
        """(account, seq) of what a flow emitted."""
        bill = contract_of(self.project.types.Bill)
        codec: AvroCodec[Any] = AvroCodec(bill, self.registry)
        records = [r for r in self.read(bill.topic) if dict(r.headers)["ce_source"] == f"/faults/{name}".encode()]
        values, failures = codec.decode_batch([record.value for record in records])
        assert not failures
        return [(value.account, value.seq) for value in values]

    def versions(self, name: str) -> Counter[tuple[int, int]]:
        """How often each entry was written, by its origin; without tombstones."""
        entries = [entry_of(record) for record in self.read(f"{name}.dlq") if record.value is not None]
        return Counter((entry.partition, entry.offset) for entry in entries)

    def unresolved(self, name: str) -> list[tuple[State, str]]:
        """State and code, or what it waits for."""
        newest = {record.key: record for record in self.read(f"{name}.dlq")}
        found = []
        for record in newest.values():
            if record.value is not None:
                headers = {header: (value or b"").decode() for header, value in record.headers}
                found.append((entry_of(record).state, headers.get(envelope.CODE, "")))
        return sorted(found)

    def resolutions(self, name: str) -> Counter[str]:
        """How often the audit trail says of each entry that it was resolved."""
        reader = self.broker.reader()
        try:
            lines = [
                line for p in range(PARTITIONS) for r in read_audit(reader, f"{name}.audit", p, TIMEOUT_S)
                for line in r.lines
            ]  # fmt: skip
        finally:
            reader.close()
        return Counter(line.entry for line in lines if line.state == "resolved")

    def plan(self, *words: str) -> str:
        """The hash of a replay's plan."""
        return str(self.json("dlq", "replay", *words)["hash"])

    def json(self, *words: str) -> Any:
        process = self.shell.begun(*words, "--json")
        out = self.shell.output(process)
        assert process.returncode == 0, self.project.last_lines()
        return json.loads(out)

    def apply_plan(self, plan: str, operator: str = "ada") -> subprocess.Popen[str]:
        words = ("dlq", "replay", "--apply", plan, "--reason", "mended", "--json")
        return self.shell.begun(*words, HEDDLE_OPERATOR=operator)

    def receipt(self, applying: subprocess.Popen[str]) -> Any:
        out = self.shell.output(applying, RECOVERY_TIMEOUT_S)
        assert applying.returncode == 0, f"{applying.returncode} {out}\n{self.project.last_lines()}"
        return json.loads(out)

    def jobs(self, name: str) -> set[str]:
        return {Command.unpack(record.value or b"").job for record in self.read(f"{name}.commands")}


ShopOf = Callable[..., Shop]


@pytest.fixture
def shop_of(own_stack: Stack, tmp_path: Path) -> Iterator[ShopOf]:
    made: list[Shop] = []

    def make(*flows: str) -> Shop:
        made.append(Shop(tmp_path / "shop", own_stack, flows))
        return made[-1]

    yield make
    for shop in made:
        shop.watch.close()


def test_a_record_that_kills_the_process_is_dead_after_its_third_crash_and_its_neighbours_are_not(
    shop_of: ShopOf, record_property: Report
) -> None:
    """By `os._exit`, and by memory. The kernel's killer is played by the test: it sends the same SIGKILL once the
    process holds more than it may; a memory group is not for a test to make."""
    shop = shop_of("exits", "hoards")
    orders = [(f"A{n % 40}", "tea") for n in range(300)]
    orders[150:150] = [("killer", "exit"), ("killer", "tea"), ("hoarder", "hoard"), ("hoarder", "tea")]
    shop.feed(*orders)
    began = time.monotonic()
    with shop.shell.running("exits", "hoards") as supervisor, memory_bounded(shop, supervisor, "hoards") as ended:
        shop.until("every order has settled", shop.settled(len(orders)), RECOVERY_TIMEOUT_S)
        lasted_s = time.monotonic() - began
    log = " ".join(shop.project.log.read_text().split())
    for name, why in (("exits", "'exit code 9'"), ("hoards", "'killed by SIGKILL'")):
        restarts = re.findall(rf"restarting component={name} in_s=(\S+) why={why}", log)
        assert len(restarts) == 3, restarts
        assert shop.unresolved(name) == [(State.DEAD, "kills-the-process"), (State.WAITING, "")]
        assert len(shop.bills(name)) == len(set(shop.bills(name))) == len(orders) - 2
        counts = shop.watch.counts(name).by_outcome
        assert (counts[Outcome.PARKED], counts[Outcome.DIVERTED]) == (1, 1)
        record_property(f"restarts of {name}", restarts)
    assert len(ended) == 3
    record_property("summary", f"dead after 3 crashes each, by exit and by memory, within {lasted_s:.0f} s")


def test_a_worker_killed_in_the_middle_of_a_large_replay_is_followed_by_one_that_finishes_it(
    shop_of: ShopOf, record_property: Report
) -> None:
    count = LARGE
    shop = shop_of("replays")
    shop.feed(*((f"A{n}", "bad") for n in range(count)))
    with shop.shell.running("replays") as supervisor:
        shop.until("all of it is parked", shop.settled(count), RECOVERY_TIMEOUT_S)
        shop.project.mend("bad")
        plan = shop.plan("replays", "--rate", "300")
        applying = shop.apply_plan(plan)
        shop.until("it is under way", lambda: shop.entry_runs("replays") > count // 5, RECOVERY_TIMEOUT_S)
        shop.worker(supervisor, "replays").kill()
        ran, began = shop.entry_runs("replays"), time.monotonic()
        receipt = shop.receipt(applying)
        lasted_s = time.monotonic() - began
        (job,) = shop.jobs("replays")
        told = shop.json("dlq", "jobs", job)
    assert ran < count
    assert (receipt["complete"], receipt["counts"]) == (True, {"emitted": count})
    assert (told["state"], told["targets"], told["done"], told["failed"]) == ("done", count, count, 0)
    assert told["receipt"]["complete"]
    assert sorted(shop.bills("replays")) == sorted((f"A{n}", n) for n in range(count))
    assert set(shop.resolutions("replays").values()) == {1}
    assert shop.unresolved("replays") == []
    record_property("summary", f"killed after {ran:,} of {count:,}; receipt complete {lasted_s:.1f} s later")


def test_overlapping_replays_of_two_people_at_once_run_each_entry_once(
    shop_of: ShopOf, record_property: Report
) -> None:
    """Both have planned, and both commands are there, before the owner looks at either."""
    count = 400
    shop = shop_of("overlaps")
    shop.feed(*((f"A{n}", "bad") for n in range(count)))
    with shop.shell.running("overlaps") as supervisor:
        shop.until("all of it is parked", shop.settled(count), RECOVERY_TIMEOUT_S)
        shop.project.mend("bad")
        plans = [shop.plan("overlaps", "--where", where) for where in ("value.seq < 300", "value.seq >= 100")]
        worker = shop.worker(supervisor, "overlaps")
        worker.suspend()
        applying = [shop.apply_plan(plan, who) for plan, who in zip(plans, ("ada", "grace"), strict=True)]
        shop.until("both are sent", lambda: len(shop.jobs("overlaps")) == 2)
        worker.resume()
        receipts = [shop.receipt(each) for each in applying]
        for job in shop.jobs("overlaps"):
            assert shop.json("dlq", "jobs", job)["state"] == "done"
    assert [receipt["complete"] for receipt in receipts] == [True, True]
    counts = [Counter(receipt["counts"]) for receipt in receipts]
    assert counts[0] + counts[1] == {"emitted": count, "skipped": 200}
    assert sorted(shop.bills("overlaps")) == sorted((f"A{n}", n) for n in range(count))
    assert set(shop.resolutions("overlaps").values()) == {1}
    record_property("summary", f"{dict(counts[0])} and {dict(counts[1])} of {count} entries")


@pytest.mark.skipif(not FULL, reason="takes long; `make faults` runs it")
def test_kafka_goes_away_while_a_dead_letter_is_written(
    shop_of: ShopOf, own_stack: Stack, record_property: Report
) -> None:
    """Frozen with entries on the dead-letter topic and no commit, woken when no broker answers any more."""
    shop = shop_of("parks")
    part, bodies = 60, "x" * 20_000
    with shop.shell.running("parks") as supervisor:
        shop.feed(*((f"A{n}", "tea") for n in range(part)))
        shop.until("it works", shop.settled(part), READY_TIMEOUT_S)
        bad = frozen_while_parking(shop, shop.worker(supervisor, "parks"), part, bodies)
        own_stack.kafka.kill()
        began = time.monotonic()
        shop.worker(supervisor, "parks").resume()
        own_stack.kafka.start()

        seen: list[object] = []

        def looked_until_settled() -> bool:
            try:
                counts = shop.watch.counts("parks")
                entries = len(shop.versions("parks"))
            except BrokerError as error:  # as long as Kafka is on its way up
                seen[:] = [error]
                shop.look_anew()
                return False
            seen[:] = [counts, entries, shop.fed]
            assert counts.by_outcome[Outcome.PARKED] <= entries, "an offset moved without its dead letter"
            return counts.total == shop.fed

        try:
            shop.until("everything has settled", looked_until_settled, RECOVERY_TIMEOUT_S)
        finally:
            record_property("seen last", seen)
        lasted_s = time.monotonic() - began
    versions = shop.versions("parks")
    assert len(versions) == bad
    assert set(versions.values()) == {1}
    assert shop.watch.counts("parks").by_outcome[Outcome.PARKED] == bad
    assert len(shop.bills("parks")) == part
    record_property("summary", f"{bad} dead letters, each there once, {lasted_s:.1f} s after Kafka was killed")


@contextmanager
def memory_bounded(shop: Shop, supervisor: subprocess.Popen[bytes], name: str) -> Iterator[list[int]]:
    """Whatever process of the component holds more than the limit is killed. Yields the bytes that each held."""
    ended: list[int] = []
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.02):
            with suppress(psutil.Error):
                worker = shop.shell.worker(supervisor, name)
                if worker is not None and (held := worker.memory_info().rss) > MEMORY_LIMIT_BYTES:
                    worker.send_signal(signal.SIGKILL)
                    worker.wait(TIMEOUT_S)
                    ended.append(held)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield ended
    finally:
        over.set()
        thread.join()


def frozen_while_parking(shop: Shop, worker: psutil.Process, part: int, bodies: str) -> int:
    """Feeds orders that fail until the worker is caught with their entries written and not committed. Returns how many
    were fed."""
    fed, topic = 0, "parks.dlq"
    for _ in range(FREEZES):
        if shop.watch.settled("parks") == shop.fed:
            shop.feed(*((f"B{fed + n}", f"bad{bodies}") for n in range(part)))
            fed += part
        worker.suspend()
        if shop.watch.is_transaction_left_open(topic):
            return fed
        worker.resume()
        moment(0.003)
    raise AssertionError("it was never caught inside a transaction")
