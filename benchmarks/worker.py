"""One worker process, Avro order → mapping → Avro, transactional, on a real broker, against a raw copy of its topic.

Each run is a process of its own, and both kinds take turns. CPU is user + system of that process, librdkafka's threads
included, from before the first poll until the last record is committed; start-up of Python is not counted.
`--worker NAME` runs one side; without it this is the conductor."""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import statistics
import subprocess
import sys
import threading
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

from machine import machine, write_result

APP = Path(__file__).resolve().parent / "app"
SOURCE, TARGET = "orders.order.v1", "fulfilment.pick.v1"
NAMES = ["Ana", "Björk", "Chloé", "Dmitri", "Élodie", "Fritz", "Grüße", "Hélène", "Jörg", "Łukasz", "Noël", "Petra"]


def main() -> None:
    options = _options()
    if options.worker:
        os.chdir(APP)
        print(json.dumps(SIDES[options.worker](options.records, options.group)))
        return
    from heddle.local import running_stack

    with running_stack() as stack:
        environment = os.environ | {
            "HEDDLE_BOOTSTRAP_SERVERS": stack.bootstrap_servers,
            "HEDDLE_REGISTRY_URL": stack.registry_url,
            "HEDDLE_LOCAL": "true",
            "HEDDLE_LOG_LEVEL": "warning",
            "HEDDLE_BATCH_MAX_RECORDS": str(options.batch),
        }
        subprocess.run([sys.executable, "-m", "heddle", "apply"], cwd=APP, env=environment, check=True)
        print(f"loading {options.records:,} orders …", flush=True)
        _side("load", options, environment, 0)
        results: dict[str, list[dict[str, Any]]] = {"copy": [], "worker": [], "continue": []}
        for number in range(options.runs + 1):  # the first pair warms caches and counts for nothing
            for side, runs in results.items():
                result = _side(side, options, environment, number)
                if number:
                    runs.append(result)
        _report(results, options)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=60_000)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--batch", type=int, default=2_000, help="records per transaction, both sides")
    parser.add_argument("--worker", choices=list(SIDES), help=argparse.SUPPRESS)
    parser.add_argument("--group", default="", help=argparse.SUPPRESS)
    return parser.parse_args()


def _side(side: str, options: argparse.Namespace, environment: dict[str, str], number: int) -> dict[str, Any]:
    command = [sys.executable, __file__, "--worker", side, "--records", str(options.records), "--batch"]
    command += [str(options.batch), "--group", f"bench-{side}-{number}"]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if result.returncode:
        sys.exit(f"{side} failed:\n{result.stderr[-3000:]}")
    measured: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])
    return measured


def _report(results: dict[str, list[dict[str, Any]]], options: argparse.Namespace) -> None:
    rows = {}
    print(f"\n{machine()}\n{options.records:,} records, {options.batch:,} a transaction, {options.runs} runs\n")
    print(f"{'':<26}{'CPU µs/record':>16}{'records/s wall':>16}{'peak RSS MiB':>14}")
    for side, label in (
        ("copy", "raw confluent-kafka copy"),
        ("worker", "heddle worker, mapping"),
        ("continue", "the same, order=continue"),
    ):
        cpu = [run["cpu_s"] / run["records"] * 1e6 for run in results[side]]
        wall = [run["records"] / run["wall_s"] for run in results[side]]
        rss = statistics.median(run["rss_mib"] for run in results[side])
        rows[side] = {"cpu_us": cpu, "records_per_s": wall, "rss_mib": rss}
        print(f"{label:<26}{statistics.median(cpu):>16.1f}{statistics.median(wall):>16,.0f}{rss:>14.0f}")
    ratios = [w / c for w, c in zip(rows["worker"]["cpu_us"], rows["copy"]["cpu_us"], strict=True)]
    print(
        f"\nworker / copy, pair by pair: median {statistics.median(ratios):.2f}, {min(ratios):.2f} to {max(ratios):.2f}"
    )
    parking = [w / c for w, c in zip(rows["worker"]["cpu_us"], rows["continue"]["cpu_us"], strict=True)]
    print(
        f"parking on / off, nothing parked: median {statistics.median(parking):.3f}, "
        f"{min(parking):.3f} to {max(parking):.3f}"
    )
    figures = {"records": options.records, "batch": options.batch, **rows, "ratio": ratios, "parking": parking}
    write_result("worker", figures)


def load(records: int, _: str) -> dict[str, Any]:
    """Deterministic orders of about 230 bytes, with the seven event headers."""
    from heddle.broker.kafka import KafkaBroker
    from heddle.broker.log import Outgoing
    from heddle.contracts import AvroCodec, ConfluentRegistry, contract_of
    from heddle.event import Identity, Lineage, event_headers, event_time
    from heddle.project import load_project
    from heddle.settings import load_settings

    load_project()
    from schemas.orders import Order

    contract = contract_of(Order)
    codec: AvroCodec[Order] = AvroCodec(contract, ConfluentRegistry(load_settings()))
    producer = KafkaBroker(load_settings()).producer("bench-loader")
    producer.init(30)
    dice, trace = random.Random(7), b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"
    for start in range(0, records, 5_000):
        producer.begin()
        batch = []
        for number in range(start, min(start + 5_000, records)):
            fields = order(number, dice)
            identity = Identity("/sources/shop", f"evt_{number}")
            time_text = event_time(fields["event_ts"]).encode()
            headers = event_headers(identity, contract.name, time_text, Lineage("load.0", identity).pack(), trace, [])
            batch.append(Outgoing(SOURCE, contract.key_of(fields), codec.encode_dict(fields), headers))
        producer.produce(batch)
        producer.commit(30)
    producer.close()
    return {"bytes": sum(len(record.value or b"") for record in batch) / len(batch)}


def order(number: int, dice: random.Random) -> dict[str, Any]:
    """The record of the hot-path measurements: 12 fields, a nested customer, three lines."""
    return {
        "order_id": f"ORD-{number:08}",
        "event_ts": datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=number),
        "amount": Decimal(dice.randrange(100, 10_000_000)).scaleb(-2),
        "currency": dice.choice(["EUR", "USD", "GBP"]),
        "status": dice.choice(["NEW", "PAID", "SHIPPED", "CANCELLED"]),
        "coupon": dice.choice([None, "SPRING-10"]),
        "note": dice.choice([None, "please ring twice"]),
        "priority": dice.choice([None, 1, 2]),
        "channel": dice.choice(["web", "store", "phone"]),
        "customer": {
            "id": f"C-{dice.randrange(100_000)}",
            "first": dice.choice(NAMES),
            "last": dice.choice(NAMES),
            "email": f"c{dice.randrange(100_000)}@example.com",
            "vip": dice.random() < 0.1,
        },
        "lines": [
            {
                "sku": f"SKU-{dice.randrange(10_000):05}",
                "qty": dice.randrange(1, 9),
                "price": Decimal(dice.randrange(100, 99_999)).scaleb(-2),
            }
            for _ in range(3)
        ],
        "source_system": "shop-eu",
    }


def copy(records: int, group: str) -> dict[str, Any]:
    """What any Python program on this client pays: consume, pass value and headers on, transaction with offsets."""
    import confluent_kafka as kafka

    servers = os.environ["HEDDLE_BOOTSTRAP_SERVERS"]
    batch = int(os.environ["HEDDLE_BATCH_MAX_RECORDS"])
    consumer = kafka.Consumer(
        {
            "bootstrap.servers": servers,
            "group.id": group,
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
            "isolation.level": "read_committed",
        }
    )
    producer = kafka.Producer({"bootstrap.servers": servers, "transactional.id": group, "linger.ms": 5})
    clock = Clock()
    producer.init_transactions(30)
    consumer.subscribe([SOURCE])
    done = 0
    while done < records:
        messages = [message for message in consumer.consume(batch, 0.25) if message.error() is None]
        if not messages:
            continue
        producer.begin_transaction()
        for message in messages:
            producer.produce(TARGET, message.value(), message.key(), headers=message.headers())
        ends = {message.partition(): message.offset() + 1 for message in messages}
        offsets = [kafka.TopicPartition(SOURCE, partition, offset) for partition, offset in ends.items()]
        producer.send_offsets_to_transaction(offsets, consumer.consumer_group_metadata(), 30)
        producer.commit_transaction(30)
        done += len(messages)
    result = clock.stop(done)
    consumer.close()
    return result


def worker_without_parking(records: int, group: str) -> dict[str, Any]:
    """As `worker`, where nothing would wait for anything."""
    return worker(records, group, order="continue")


def worker(records: int, group: str, order: str = "park") -> dict[str, Any]:
    """Heddle's worker as `heddle run` starts it, stopped once it has settled everything."""
    from heddle.broker.kafka import KafkaBroker
    from heddle.contracts import ConfluentRegistry
    from heddle.delivery.build import open_step
    from heddle.delivery.subscription import subscription_of
    from heddle.delivery.worker import Worker
    from heddle.operators import Operators
    from heddle.project import load_project, sources_digest
    from heddle.settings import load_settings
    from heddle.telemetry.logs import configure_logs

    project, settings = load_project(), load_settings()
    configure_logs(settings)
    flow = project.component("order-to-pick")
    broker = KafkaBroker(settings)
    step = open_step(flow, project.name, sources_digest(project.root), ConfluentRegistry(settings), settings)
    subscription = subscription_of(flow)
    # A group of its own for each run, which `heddle run` never has: every run reads the topic from its start.
    type(subscription).group = property(lambda _: group)  # type: ignore[assignment,method-assign]
    subscription = replace(subscription, order=order)
    running = Worker(subscription, step, broker, settings, audit_key=b"a benchmark's", operators=Operators())
    stop, clock = threading.Event(), Clock()

    def watch() -> None:
        pace = threading.Event()
        while running.totals.total < records:
            pace.wait(0.02)
        stop.set()

    threading.Thread(target=watch, daemon=True).start()
    running.run(stop)
    result = clock.stop(running.totals.total)
    parked = running.totals.total - running.totals.by_outcome["emitted"]  # type: ignore[index]
    if parked:
        sys.exit(f"{parked} records were not emitted")
    return result


class Clock:
    """CPU of this process and wall time since it was made."""

    def __init__(self) -> None:
        self._cpu, self._wall = time.process_time(), time.monotonic()

    def stop(self, records: int) -> dict[str, Any]:
        return {
            "records": records,
            "cpu_s": time.process_time() - self._cpu,
            "wall_s": time.monotonic() - self._wall,
            "rss_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        }


SIDES = {"load": load, "copy": copy, "worker": worker, "continue": worker_without_parking}

if __name__ == "__main__":
    main()
