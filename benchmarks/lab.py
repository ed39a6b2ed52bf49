"""Where sides are compared: a throw-away Kafka, topics that are loaded once, processes that are started and awaited."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import confluent_kafka as kafka

from benchmarks.orders import (
    APP,
    SOURCE,
    START,
    TARGET,
    Frames,
    bad_ones,
    frame,
    headers,
    key,
    schema_file,
    time_text,
    values,
)
from benchmarks.sides import Job, Result
from heddle.broker.kafka import KafkaBroker
from heddle.broker.log import Record, TopicSpec
from heddle.contracts import ConfluentRegistry, load_contract
from heddle.delivery.subscription import Subscription
from heddle.local import Stack, running_stack
from heddle.on_failure import Order
from heddle.operations.declared import HEADERS_BYTES, own_topics
from heddle.settings import Settings, load_settings
from heddle.wire.native_engine import native_engine

ROOT = Path(__file__).resolve().parents[1]
TIMEOUT_S = 60.0
POLL_S = 0.05
TARGET_PARTITIONS = 4
MAX_VALUE_BYTES = 2**20


@dataclass(frozen=True, slots=True)
class Side:
    """`codec`: what HEDDLE_CODEC says."""

    label: str
    program: str
    codec: str = ""
    order: Order = "park"
    audited: bool = True


SIDES: Mapping[str, Side] = {
    "copy": Side("raw copy: same bytes, same seven headers", "copy"),
    # Beside the copy in time, because it is the copy that they are compared with, and machines have moods.
    "native-unaudited": Side("heddle, native engine, no audit trail", "heddle", "native", audited=False),
    "native": Side("heddle, native engine", "heddle", "native"),
    "python": Side("heddle, Python engine", "heddle", "python"),
    "unaudited": Side("heddle, Python engine, no audit trail", "heddle", "python", audited=False),
    "continue": Side("heddle, Python engine, order=continue", "heddle", "python", order="continue"),
    "fastavro": Side("by hand: fastavro and a dict", "by_hand"),
    "objects": Side("heddle, object path", "heddle", "objects"),
}


def available(names: Iterable[str]) -> dict[str, Side]:
    """Of these sides those that this machine can run; what it cannot is said."""
    sides = {name: SIDES[name] for name in names}
    if native_engine() is None and any(side.codec == "native" for side in sides.values()):
        print("native engine: not installed here (`make native` builds it), so not measured")
        return {name: side for name, side in sides.items() if side.codec != "native"}
    return sides


@dataclass(slots=True)
class Topic:
    """`value_bytes`: mean of what was loaded."""

    partitions: int
    value_bytes: float = 0.0


@dataclass(slots=True)
class Lab:
    """`environment`: what Heddle's processes get. `topics`: of orders; they are loaded once and read by every side."""

    stack: Stack
    environment: dict[str, str]
    settings: Settings
    broker: KafkaBroker
    frames: Frames
    topics: dict[str, Topic] = field(default_factory=dict)
    processes: list[subprocess.Popen[str]] = field(default_factory=list)
    _number: Iterator[int] = field(default_factory=lambda: count(1))

    def create(self, topic: str, partitions: int = TARGET_PARTITIONS) -> None:
        """An empty one, for orders."""
        self.broker.admin().create_topics([_spec(topic, partitions)])
        self.topics[topic] = Topic(partitions)

    def load(self, topic: str, records: int, *, lines: int = 3, extra_headers: int = 0) -> None:
        """Orders 0 to `records`, bad ones among them."""
        producer = kafka.Producer({"bootstrap.servers": self.stack.bootstrap_servers, "linger.ms": 50})
        size, time_of_all = 0, time_text(START)
        for number, value in enumerate(values(range(records), self.frames.source, lines)):
            size += len(value)
            producer.produce(topic, value, key(number), headers=headers(number, time_of_all, extra_headers))
            if number % 1_000 == 0:
                producer.poll(0)
        if producer.flush(TIMEOUT_S):
            sys.exit(f"{topic} could not be loaded")
        self.topics[topic].value_bytes = size / records

    def job(self, side: Side, topic: str, **more: Any) -> Job:
        """Its own names, and its own topics beside them."""
        partitions = self.topics[topic].partitions
        job = Job(
            program=side.program, name=f"bench-{next(self._number)}", servers=self.stack.bootstrap_servers,
            source_id=int.from_bytes(self.frames.source, "big"), target_id=int.from_bytes(self.frames.target, "big"),
            topic=topic, partitions=partitions, order=side.order, audited=side.audited, **more,
        )  # fmt: skip
        specs = own_topics(Subscription(job.name, topic), _spec(topic, partitions), self.settings)
        self.broker.admin().create_topics(list(specs))
        return job

    def start(self, side: Side, job: Job) -> subprocess.Popen[str]:
        environment = self.environment | {
            "HEDDLE_BATCH_MAX_RECORDS": str(job.batch),
            "HEDDLE_BATCH_MAX_WAIT_S": str(job.wait_s),
            "HEDDLE_INSTANCE": str(job.instance),
        }
        if side.codec:
            environment["HEDDLE_CODEC"] = side.codec
        command = [sys.executable, "-m", "benchmarks.sides", job.text()]
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)
        self.processes.append(process)
        return process

    def run(self, side: Side, job: Job) -> Result:
        """One process, to its end; refused when it did not do exactly what it should have."""
        result = ended(self.start(side, job), side)
        if result["engine"] != side.codec:
            sys.exit(f"{side.label}: its records were done by {result['engine']}")
        if side.program != "copy" and result["parked"] != bad_ones(result["records"]):
            sys.exit(f"{side.label}: {result['parked']} of {result['records']} records were parked")
        return result

    def target_ends(self) -> dict[int, int]:
        return self.broker.admin().end_offsets({TARGET: range(TARGET_PARTITIONS)})[TARGET]

    def written_since(self, starts: Mapping[int, int]) -> list[Record]:
        """Committed records of the target topic from these offsets on."""
        return self.read(TARGET, starts)

    def read(self, topic: str, starts: Mapping[int, int]) -> list[Record]:
        """Committed records, partition by partition."""
        reader = self.broker.reader()
        found = [reader.read_range(topic, p, TIMEOUT_S, start, settled=True) for p, start in starts.items()]
        reader.close()
        return [record for part in found for record in part]

    def drained(self, job: Job, processes: Sequence[subprocess.Popen[str]]) -> None:
        """Wait until all that is in the job's topic is committed."""
        admin, partitions = self.broker.admin(), range(job.partitions)
        ends = admin.end_offsets({job.topic: partitions})[job.topic]
        self.until(
            lambda: {p: at.offset for p, at in admin.group_positions(job.name, job.topic, partitions).items()} == ends,
            processes,
            f"{job.name} to come to its end",
        )

    def until(self, holds: Callable[[], bool], processes: Sequence[subprocess.Popen[str]], what: str) -> None:
        deadline = time.monotonic() + 4 * TIMEOUT_S
        while not holds():
            if any(process.poll() for process in processes) or time.monotonic() > deadline:
                sys.exit(f"waited in vain for {what}")
            time.sleep(POLL_S)


@contextmanager
def open_lab() -> Iterator[Lab]:
    """On a throw-away stack, with the benchmark's schemas and topics applied."""
    print("starting a throw-away stack …", flush=True)
    with running_stack() as stack:
        environment = os.environ | {
            "HEDDLE_BOOTSTRAP_SERVERS": stack.bootstrap_servers,
            "HEDDLE_REGISTRY_URL": stack.registry_url,
            "HEDDLE_LOCAL": "true",
            "HEDDLE_LOG_LEVEL": "error",
        }
        subprocess.run(
            [sys.executable, "-m", "heddle", "apply"], cwd=APP, env=environment, check=True, stdout=subprocess.DEVNULL
        )
        settings = load_settings(bootstrap_servers=stack.bootstrap_servers, registry_url=stack.registry_url, local=True)
        registry = ConfluentRegistry(settings)
        ids = [registry.id_of(load_contract(schema_file(topic))) for topic in (SOURCE, TARGET)]
        lab = Lab(stack, environment, settings, KafkaBroker(settings), Frames(*map(frame, ids)))
        try:
            yield lab
        finally:
            for process in lab.processes:
                process.kill()


def _spec(topic: str, partitions: int) -> TopicSpec:
    return TopicSpec(topic, partitions, 1, {"max.message.bytes": str(MAX_VALUE_BYTES + HEADERS_BYTES)})


def ended(process: subprocess.Popen[str], side: Side) -> Result:
    """What it said last. Its standard error is ours."""
    try:
        output, _ = process.communicate(timeout=4 * TIMEOUT_S)
    except subprocess.TimeoutExpired:
        sys.exit(f"{side.label} does not come to its end")
    if process.returncode:
        sys.exit(f"{side.label} failed")
    result: Result = json.loads(output.splitlines()[-1])
    return result


# What the runs say


def summary(runs: Sequence[Result], cpu: str = "cpu_us_per_record") -> Result:
    """Medians, the highest peak of memory, and the runs themselves. `cpu`: the figure that counts as such."""
    return {
        "cpu_us_per_record": statistics.median(run[cpu] for run in runs),
        "records_per_s": statistics.median(run["records_per_s"] for run in runs),
        "rss_mib": max(run["rss_mib"] for run in runs),
        "runs": list(runs),
    }


def pairs(runs: Sequence[Result], baseline: Sequence[Result], figure: str = "cpu_us_per_record") -> Result:
    """Run by run against the baseline of the same round."""
    ratios = [run[figure] / base[figure] for run, base in zip(runs, baseline, strict=True)]
    return {"median": statistics.median(ratios), "low": min(ratios), "high": max(ratios)}


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """The first column to the left, figures to the right."""
    cells = [tuple(heads), *map(tuple, rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(heads))]
    return "\n".join(
        "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        )
        for row in cells
    )
