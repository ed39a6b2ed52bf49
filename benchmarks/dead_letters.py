"""100,000 parked entries of 1 KB in four partitions, ten versions written of each, nothing compacted yet: what the
first page of `heddle dlq list` takes, what its groups take, and what a worker needs to restore one partition.

The commands are run as one types them, in processes of their own, and timed from start to end, Python's start-up
included. With headers and stack a record has 2.8 KB, as a real one has."""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.machine import machine, write_result

ROOT = Path(__file__).resolve().parents[1]

if TYPE_CHECKING:
    from heddle.broker.log import Outgoing, Reader, Record
    from heddle.delivery.envelope import Envelope
    from heddle.errors import Failure

SUBSCRIPTION, INPUT = "deal-to-invoice", "crm.deal.v1"
LIMITS_S = {"page": 2.0, "grouped": 10.0, "restore": 5.0}
COMMANDS = {"page": [], "grouped": ["--group-by", "fingerprint"]}
MINUTE_MS = 60_000


def main() -> None:
    options = _options()
    if options.side:
        print(json.dumps(SIDES[options.side](options)))
        return
    from heddle.local import running_stack

    with running_stack() as stack:
        environment = os.environ | {
            "HEDDLE_BOOTSTRAP_SERVERS": stack.bootstrap_servers,
            "HEDDLE_REGISTRY_URL": stack.registry_url,
            "HEDDLE_LOCAL": "true",
        }
        print(f"writing {options.entries:,} entries, {options.versions} versions each …", flush=True)
        filled = _side("fill", options, environment)
        results: dict[str, list[dict[str, Any]]] = {"page": [], "grouped": [], "restore": []}
        for _ in range(options.runs):
            for side, runs in results.items():
                runs.append(_side(side, options, environment))
        _report(options, filled, results)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--entries", type=int, default=100_000)
    parser.add_argument("--versions", type=int, default=10)
    parser.add_argument("--partitions", type=int, default=4)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--side", choices=list(SIDES), help=argparse.SUPPRESS)
    return parser.parse_args()


def _side(side: str, options: argparse.Namespace, environment: dict[str, str]) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.dead_letters", "--side", side, "--entries", str(options.entries)]
    command += ["--versions", str(options.versions), "--partitions", str(options.partitions)]
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    if result.returncode:
        sys.exit(f"{side} failed:\n{result.stderr[-3000:]}")
    measured: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])
    return measured


def _report(options: argparse.Namespace, filled: dict[str, Any], results: dict[str, list[dict[str, Any]]]) -> None:
    print(f"\n{machine()}\n{filled['records']:,} records, {filled['bytes'] / 2**20:,.0f} MiB, {options.runs} runs\n")
    print(f"{'':<34}{'median s':>10}{'slowest s':>11}{'limit s':>9}{'peak RSS MiB':>14}")
    labels = {
        "page": "first page",
        "grouped": "grouped by fingerprint",
        "restore": f"restore of {options.entries // options.partitions:,} entries",
    }
    for side, runs in results.items():
        seconds = [run["wall_s"] for run in runs]
        rss = max(run["rss_mib"] for run in runs)
        print(
            f"{labels[side]:<34}{statistics.median(seconds):>10.2f}{max(seconds):>11.2f}"
            f"{LIMITS_S[side]:>9.0f}{rss:>14.0f}"
        )
    sizes = {"entries": options.entries, "versions_of_each": options.versions, "partitions": options.partitions}
    write_result("dead_letters", {**sizes, **filled, **results})


def fill(options: argparse.Namespace) -> dict[str, Any]:
    """Version by version over all entries, so that the newest of each lies in the last tenth."""
    from heddle.broker.kafka import KafkaBroker
    from heddle.broker.log import TopicSpec
    from heddle.delivery.envelope import Envelope
    from heddle.settings import load_settings

    broker = KafkaBroker(load_settings())
    admin = broker.admin()
    config = {
        "cleanup.policy": "compact",
        "segment.bytes": str(16 * 2**20),
        "min.compaction.lag.ms": str(60 * MINUTE_MS),
        "message.timestamp.type": "LogAppendTime",
    }
    dead_letters = f"{SUBSCRIPTION}.dlq"
    admin.create_topics(
        [TopicSpec(INPUT, options.partitions), TopicSpec(dead_letters, options.partitions, None, config)]
    )
    envelope = Envelope(SUBSCRIPTION, dead_letters, admin.topics([INPUT])[INPUT].topic_id, "5f" * 32)
    producer = broker.producer("bench-filler")
    producer.init(30)
    records = total_bytes = 0
    for batch in _batches(options, envelope):
        producer.begin()
        producer.produce(batch)
        producer.commit(60)
        records += len(batch)
        total_bytes += sum(map(_size, batch))
    return {"records": records, "bytes": total_bytes}


def _batches(options: argparse.Namespace, envelope: Envelope, size: int = 5_000) -> Iterator[list[Outgoing]]:
    from heddle.delivery.envelope import State

    failures = [_failure(cause) for cause in range(12)]
    for version in range(options.versions):
        last = version == options.versions - 1
        batch = []
        for number in range(options.entries):
            failure = failures[number % len(failures)]
            state = State.DEAD if last and number % 3 else State.RETRYING
            batch.append(envelope.failed(_record(number, options), failure, state, retry_after_ms=MINUTE_MS))
            if len(batch) == size:
                yield batch
                batch = []
        if batch:
            yield batch


def _record(number: int, options: argparse.Namespace) -> Record:
    """A deal of 1 KB with the seven event headers."""
    from heddle.broker.log import Record
    from heddle.event import Identity, Lineage, event_headers

    identity = Identity("/sources/crm-deals", f"evt-{number:08}")
    trace = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"
    headers = event_headers(
        identity, INPUT, b"2026-03-01T09:30:00.000000Z", Lineage("5f5f.0", identity).pack(), trace, []
    )
    body = random.Random(number).randbytes(1019)
    partition, offset = number % options.partitions, number // options.partitions
    return Record(INPUT, partition, offset, b"default/D-%d" % (number // 2), b"\0\0\0\0\1" + body, headers, 0)


def _failure(cause: int) -> Failure:
    """Raised for real, a few frames deep, so that the stack is what a stack is."""
    from heddle.delivery.classify import failure_of
    from heddle.errors import ContractError

    def price_of(product: str) -> None:
        raise ContractError(f"no price for the product in catalogue {product}", path=f"lines[{cause}].product_{cause}")

    def invoice_of(depth: int) -> None:
        if depth:
            invoice_of(depth - 1)
        price_of("of 2026")

    try:
        invoice_of(5)
    except ContractError as error:
        return failure_of(0, error)
    raise AssertionError


def _size(record: Outgoing) -> int:
    return len(record.key or b"") + len(record.value or b"") + sum(len(n) + len(v or b"") for n, v in record.headers)


def page(_: argparse.Namespace) -> dict[str, Any]:
    return _listed("page")


def grouped(_: argparse.Namespace) -> dict[str, Any]:
    return _listed("grouped")


def _listed(side: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "heddle", "dlq", "list", SUBSCRIPTION, *COMMANDS[side]]
    began = time.perf_counter()
    result = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    wall_s = time.perf_counter() - began
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    last = result.stdout.splitlines()[-1]
    return {"wall_s": wall_s, "cpu_s": used.ru_utime + used.ru_stime, "rss_mib": used.ru_maxrss / 1024, "said": last}


def restore(_: argparse.Namespace) -> dict[str, Any]:
    """As the handshake does it, from the first read to an index that answers."""
    from heddle.broker.kafka import KafkaBroker
    from heddle.settings import load_settings

    broker = KafkaBroker(load_settings())
    topic_id = broker.admin().topics([INPUT])[INPUT].topic_id
    began, began_cpu = time.perf_counter(), time.process_time()
    entries = _restored(broker.reader(), topic_id)
    used = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "wall_s": time.perf_counter() - began,
        "cpu_s": time.process_time() - began_cpu,
        "rss_mib": used.ru_maxrss / 1024,
        "entries": entries,
    }


def _restored(reader: Reader, topic_id: str) -> int:
    from heddle.broker.newest import settled_newest
    from heddle.delivery.index import PartitionIndex

    index = PartitionIndex(topic_id, "park")
    index.restore(settled_newest(reader, f"{SUBSCRIPTION}.dlq", 0), time.monotonic(), time.time_ns() // 1_000_000)
    return len(index)


SIDES = {"fill": fill, "page": page, "grouped": grouped, "restore": restore}

if __name__ == "__main__":
    main()
