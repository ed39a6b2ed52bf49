"""What is compared, each in a process of its own: a raw copy, a worker written by hand, Heddle's worker.

    python -m benchmarks.sides JOB

`JOB` is a `Job` as JSON; the answer is one line of JSON. CPU is user + system of the process, librdkafka's threads
included, from before the first poll to the last commit; start-up of Python is not counted."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import confluent_kafka as kafka

from benchmarks.by_hand import HandWritten
from benchmarks.orders import APP, SOURCE, TARGET, Frames, frame

if TYPE_CHECKING:
    from heddle.delivery.steps import Step
    from heddle.on_failure import Order

TIMEOUT_S = 30
FIRST_WAIT_S = 0.25  # as Heddle waits for a first record

Result = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What one process does. `name`: of the group and all that belongs to it. `records`: after so many it ends; 0: with
    SIGTERM. `instance` of `instances`: which of the processes that share the work. `source_id`, `target_id`: of the
    schemas in the registry. The rest is for Heddle alone; its settings come from the environment."""

    program: str
    name: str
    servers: str
    source_id: int
    target_id: int
    topic: str = SOURCE
    records: int = 0
    batch: int = 2_000
    wait_s: float = 0.02
    instance: int = 0
    instances: int = 1
    partitions: int = 4
    order: Order = "park"
    audited: bool = True

    def text(self) -> str:
        return json.dumps(asdict(self))


class Meter:
    """CPU of this process and wall time, read at each commit. CPU counts from the start; what is `steady`, and the
    rate, from the first commit on, so that joining a group and filling the first fetch do not count as slowness."""

    def __init__(self) -> None:
        self._cpu, self._wall = time.process_time(), time.monotonic()
        self._first: tuple[int, float, float] | None = None
        self._last = (0, self._cpu, self._wall)

    def committed(self, records: int) -> None:
        self._last = (records, time.process_time(), time.monotonic())
        if self._first is None:
            self._first = self._last

    def result(self, **more: Any) -> Result:
        records, cpu, wall = self._last
        first_records, first_cpu, first_wall = self._first or self._last
        if first_records == records:  # all in one transaction
            first_records, first_cpu, first_wall = 0, self._cpu, self._wall
        return {
            "records": records,
            "cpu_us_per_record": (cpu - self._cpu) / max(records, 1) * 1e6,
            "cpu_us_per_record_steady": (cpu - first_cpu) / max(records - first_records, 1) * 1e6,
            "records_per_s": (records - first_records) / (wall - first_wall) if records else 0.0,
            "rss_mib": peak_rss_mib(),
            **more,
        }


def peak_rss_mib() -> float:
    """Of this program. What getrusage says includes the process that started it."""
    status = Path("/proc/self/status")
    if status.exists():
        [line] = [line for line in status.read_text().splitlines() if line.startswith("VmHWM")]
        return int(line.split()[1]) / 1024
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # in KiB, but for macOS, where it is bytes


def copy(job: Job) -> Result:
    """What any Python program on this client pays: value, key and the seven headers, untouched."""

    def handle(produce: Callable[..., None], messages: list[Any]) -> int:
        for message in messages:
            produce(TARGET, message.value(), message.key(), headers=message.headers())
        return 0

    return _loop(job, handle)


def by_hand(job: Job) -> Result:
    """The worker that one writes without Heddle. What cannot be mapped goes to a dead-letter topic, in the same
    transaction; later events of its key do not wait for it, and nobody hashes or counts anything."""
    written = HandWritten(Frames(frame(job.source_id), frame(job.target_id)))
    dead_letters = f"{job.name}.dlq"

    def handle(produce: Callable[..., None], messages: list[Any]) -> int:
        parked = 0
        for message in messages:
            data, headers = message.value(), message.headers()
            try:
                value, given = written.value(data), written.headers(headers)
            except Exception as error:
                parked += 1
                told = [*headers, ("error", f"{type(error).__name__}: {error}".encode())]
                produce(dead_letters, data, message.key(), headers=told)
            else:
                produce(TARGET, value, message.key(), headers=given)
        return parked

    return _loop(job, handle)


def _loop(job: Job, handle: Callable[[Callable[..., None], list[Any]], int]) -> Result:
    """Batches of as many records and as much waiting as Heddle's, one transaction each. Its partitions it takes by
    hand: what a group costs is not counted."""
    stop = _stopped_by_signal()
    consumer = kafka.Consumer(
        {
            "bootstrap.servers": job.servers,
            "group.id": job.name,
            "enable.auto.commit": False,
            "isolation.level": "read_committed",
        }
    )
    producer = kafka.Producer(
        {"bootstrap.servers": job.servers, "transactional.id": f"{job.name}.{job.instance}", "linger.ms": 5}
    )
    producer.init_transactions(TIMEOUT_S)
    meter, done, parked = Meter(), 0, 0
    ours = range(job.instance, job.partitions, job.instances)
    consumer.assign([kafka.TopicPartition(job.topic, p, kafka.OFFSET_BEGINNING) for p in ours])
    while not stop.is_set() and (not job.records or done < job.records):
        messages = _batch(consumer, job)
        if not messages:
            continue
        producer.begin_transaction()
        parked += handle(producer.produce, messages)
        ends = {message.partition(): message.offset() + 1 for message in messages}
        offsets = [kafka.TopicPartition(job.topic, partition, offset) for partition, offset in ends.items()]
        producer.send_offsets_to_transaction(offsets, consumer.consumer_group_metadata(), TIMEOUT_S)
        producer.commit_transaction(TIMEOUT_S)
        done += len(messages)
        meter.committed(done)
    result = meter.result(parked=parked, engine="")
    consumer.close()
    return result


def _batch(consumer: Any, job: Job) -> list[Any]:
    messages = consumer.consume(1, FIRST_WAIT_S)
    if messages:
        messages += consumer.consume(job.batch - 1, job.wait_s)
    for message in messages:
        if message.error() is not None:
            raise kafka.KafkaException(message.error())
    return list(messages)


def heddle(job: Job) -> Result:
    """Heddle's worker as `heddle run` starts it."""
    from heddle.broker.kafka import KafkaBroker
    from heddle.contracts import ConfluentRegistry
    from heddle.delivery.build import open_step
    from heddle.delivery.subscription import subscription_of
    from heddle.delivery.worker import Worker
    from heddle.operators import Operators
    from heddle.project import load_project, sources_digest
    from heddle.settings import load_settings
    from heddle.telemetry.logs import configure_logs

    stop = _stopped_by_signal()
    os.chdir(APP)
    project, settings = load_project(), load_settings()
    configure_logs(settings)
    flow = project.component("order-to-pick")
    step = open_step(flow, project.name, sources_digest(project.root), ConfluentRegistry(settings), settings)
    # Names of its own for each run, which a component never has: every run reads the topic from its start.
    subscription = replace(subscription_of(flow), name=job.name, topic=job.topic, order=job.order)
    broker = KafkaBroker(settings)
    meter: Meter

    class Metered(Worker):
        """Reads the meter after each turn, as the other sides do after each commit."""

        def turn(self) -> bool:
            worked, total = super().turn(), self.totals.total
            if worked:
                meter.committed(total)
            if job.records and total >= job.records:
                stop.set()
            return worked

    worker = Metered(subscription, step, broker, settings, audit_key=b"a benchmark's", operators=Operators())
    if not job.audited:
        from benchmarks.unaudited import Unaudited

        worker._trail = Unaudited(job.name, job.topic, subscription.audit_topic, "bench", b"")
    meter = Meter()
    worker.run(stop)
    outcomes = {str(outcome): n for outcome, n in worker.totals.by_outcome.items() if n}
    return meter.result(parked=outcomes.get("parked", 0), engine=engine_of(step), outcomes=outcomes)


def engine_of(step: Step) -> str:
    """What does the mapping's records: an engine's name, or `objects`."""
    engine = getattr(step._transcoder, "_engine", None)  # type: ignore[attr-defined]
    return "objects" if engine is None else str(engine.name)


def _stopped_by_signal() -> threading.Event:
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    return stop


PROGRAMS: dict[str, Callable[[Job], Result]] = {"copy": copy, "by_hand": by_hand, "heddle": heddle}

if __name__ == "__main__":
    given = Job(**json.loads(sys.argv[1]))
    print(json.dumps(PROGRAMS[given.program](given)))
