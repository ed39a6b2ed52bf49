"""Signed 2 KB deliveries through the real gateway process to a real Kafka: requests per CPU-second, p50 and p99.

    python -m benchmarks.gateway [--deliveries N] [--runs R] [--connections C]

The gateway is a process of its own, and so is the loader. CPU is user + system of the gateway process between the
first and the last measured request; every 2xx stands for a broker's acknowledgement (acks=all). Deliveries are
Standard Webhooks with distinct ids, made and signed before the clock starts. Uses the running stack's settings when
HEDDLE_BOOTSTRAP_SERVERS is set, else starts a throw-away stack. Writes benchmarks/out/gateway.json.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import httptools
import orjson
import psutil
import uvloop

from benchmarks.machine import machine, write_result
from heddle.broker.log import Admin, TopicSpec
from heddle.secrets import secret
from heddle.settings import load_settings
from heddle.sources.signatures import StandardWebhooks
from heddle.sources.webhook import WebhookSource

TARGET_PER_CPU_SECOND = 1_500
BODY_BYTES = 2_048
PARTITIONS = 6
SECRET = "whsec_" + "c2VjcmV0IG9mIHRoZSBiZW5jaG1hcms="
SOURCE = "bench-deals"
ROOT = Path(__file__).resolve().parents[1]
PROGRAM = [sys.executable, "-m", "benchmarks.gateway"]
Result = dict[str, Any]

source = WebhookSource(
    SOURCE,
    path="/hooks/bench",
    signature=StandardWebhooks(secret("bench/webhook")),
    emits=dict,
    convert=lambda _: (),
    entity="deal.id",
    owner="benchmarks",
)


def body_of(number: int) -> bytes:
    """A deal of exactly 2 KB; the same number gives the same bytes."""
    deal = {
        "id": f"D-{number % 5_000:05}",
        "stage": "WON",
        "amount": f"{number % 9_973}.50",
        "contact": {"first_name": "Zoë", "last_name": "Grün", "email": "zoe@example.com"},
        "lines": [{"sku": f"SKU-{n}", "qty": n + 1, "price": "19.99", "note": "as agreed"} for n in range(16)],
        "padding": "",
    }
    missing = BODY_BYTES - len(orjson.dumps({"deal": deal}))
    deal["padding"] = "x" * missing
    return orjson.dumps({"deal": deal})


def request_of(number: int, run: int) -> bytes:
    """A whole signed HTTP request."""
    verifier = StandardWebhooks(secret("bench/webhook")).verifier([SECRET])
    body, now = body_of(number), str(int(time.time()))
    event_id = f"msg_{run}_{number:07}"
    signature = verifier.scheme.sign(verifier.keys[0], f"{event_id}.{now}.".encode() + body)
    head = (
        "POST /hooks/bench HTTP/1.1\r\nhost: hooks.example.com\r\ncontent-type: application/json\r\n"
        "user-agent: Bench-Webhooks/1.0\r\naccept: */*\r\naccept-encoding: gzip, br\r\n"
        f"webhook-id: {event_id}\r\nwebhook-timestamp: {now}\r\nwebhook-signature: v1,{signature}\r\n"
        f"content-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


class Client(asyncio.Protocol):
    """One keep-alive connection that sends the next request when the last is answered."""

    def __init__(self, requests: Iterator[bytes], latencies_s: list[float], statuses: dict[int, int]) -> None:
        self._requests = requests
        self._latencies_s = latencies_s
        self._statuses = statuses
        self._parser = httptools.HttpResponseParser(self)
        self._sent_at = 0.0
        self.done = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._next()

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def connection_lost(self, error: Exception | None) -> None:
        if not self.done.done():
            self.done.set_exception(error or ConnectionError("the gateway closed the connection"))

    def on_message_complete(self) -> None:
        self._latencies_s.append(time.perf_counter() - self._sent_at)
        status = self._parser.get_status_code()
        self._statuses[status] = self._statuses.get(status, 0) + 1
        self._parser = httptools.HttpResponseParser(self)
        self._next()

    def _next(self) -> None:
        request = next(self._requests, None)
        if request is None:
            if not self.done.done():
                self.done.set_result(None)
            self._transport.close()
            return
        self._sent_at = time.perf_counter()
        self._transport.write(request)


async def load(url: str, requests: list[bytes], connections: int) -> Result:
    host, port = url.removeprefix("http://").split(":")
    latencies_s: list[float] = []
    statuses: dict[int, int] = {}
    shared = iter(requests)
    loop = asyncio.get_running_loop()
    began = time.perf_counter()
    clients = []
    for _ in range(connections):
        _, client = await loop.create_connection(lambda: Client(shared, latencies_s, statuses), host, int(port))
        clients.append(client)
    await asyncio.gather(*(client.done for client in clients))
    wall_s = time.perf_counter() - began
    latencies_s.sort()
    return {"wall_s": wall_s, "statuses": statuses, "p50_ms": at(latencies_s, 0.50), "p99_ms": at(latencies_s, 0.99)}


def at(ordered_s: list[float], share: float) -> float:
    return round(ordered_s[min(int(len(ordered_s) * share), len(ordered_s) - 1)] * 1000, 2)


def loader(url: str, pid: int, deliveries: int, connections: int, run: int) -> None:
    """The loader process: warm up, then measure; one JSON line on standard output."""
    warm_up = [request_of(number, run) for number in range(-deliveries // 5, 0)]
    measured = [request_of(number, run) for number in range(deliveries)]
    uvloop.run(load(url, warm_up, connections))
    gateway = psutil.Process(pid)
    before = gateway.cpu_times()
    result = uvloop.run(load(url, measured, connections))
    after = gateway.cpu_times()
    cpu_s = after.user - before.user + after.system - before.system
    rates = {"per_cpu_second": round(deliveries / cpu_s), "per_second": round(deliveries / result["wall_s"])}
    print(json.dumps({**result, "cpu_s": round(cpu_s, 2), **rates}))


@contextlib.contextmanager
def bootstrap_servers() -> Iterator[str]:
    given = os.environ.get("HEDDLE_BOOTSTRAP_SERVERS")
    if given:
        yield given
        return
    from heddle.local import running_stack

    print("starting a throw-away Kafka …", file=sys.stderr)
    with running_stack() as stack:
        yield stack.bootstrap_servers


@contextlib.contextmanager
def topic(servers: str) -> Iterator[Admin]:
    """The raw topic, fresh."""
    from heddle.broker.kafka import KafkaBroker

    admin = KafkaBroker(load_settings(bootstrap_servers=servers)).admin()
    with contextlib.suppress(Exception):
        admin.delete_topics([source.raw_topic])
    admin.create_topics([TopicSpec(source.raw_topic, PARTITIONS, 1)])
    yield admin
    admin.delete_topics([source.raw_topic])
    admin.close()


@contextlib.contextmanager
def gateway(servers: str, folder: Path) -> Iterator[tuple[str, int]]:
    """The gateway process; (url, pid)."""
    environment = {**os.environ, "HEDDLE_BOOTSTRAP_SERVERS": servers, "HEDDLE_SECRET_BENCH_WEBHOOK": SECRET}
    process = subprocess.Popen([*PROGRAM, "--serve", str(folder)], cwd=ROOT, env=environment)
    try:
        state = folder / "gateway.json"
        deadline = time.monotonic() + 30
        while not state.exists():
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit("the gateway did not start")
            time.sleep(0.05)
        found = json.loads(state.read_text(encoding="utf-8"))
        yield found["url"], found["pid"]
    finally:
        process.terminate()
        process.wait(20)


def serve(folder: Path) -> None:
    from heddle.sources.gateway import run_gateway
    from heddle.telemetry.logs import configure_logs

    settings = load_settings(gateway_port=0, log_level="warning")
    configure_logs(settings)
    run_gateway([source], settings, state_dir=folder)


def one_run(url: str, pid: int, deliveries: int, connections: int, run: int) -> Result:
    command = [*PROGRAM, "--load", url, str(pid), str(run)]
    command += ["--deliveries", str(deliveries), "--connections", str(connections)]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    result: Result = json.loads(done.stdout)
    if result["statuses"] != {"200": deliveries}:
        raise SystemExit(f"not every delivery was accepted: {result['statuses']}")
    return result


def main(deliveries: int, runs: int, connections: int) -> None:
    with (
        tempfile.TemporaryDirectory() as folder,
        bootstrap_servers() as servers,
        topic(servers) as admin,
        gateway(servers, Path(folder)) as (url, pid),
    ):
        results = [one_run(url, pid, deliveries, connections, run) for run in range(runs)]
        kept = sum(admin.end_offsets({source.raw_topic: range(PARTITIONS)})[source.raw_topic].values())
        accepted = runs * (deliveries + deliveries // 5)
        if kept != accepted:
            raise SystemExit(f"{accepted} deliveries were accepted, the topic holds {kept}")
    report(results, deliveries, connections)


def report(results: list[Result], deliveries: int, connections: int) -> None:
    median = {
        key: statistics.median(result[key] for result in results)
        for key in ("per_cpu_second", "per_second", "p50_ms", "p99_ms")
    }
    verdict = "meets" if median["per_cpu_second"] >= TARGET_PER_CPU_SECOND else "misses"
    print(f"\n{machine()}\n{deliveries:,} signed deliveries of {BODY_BYTES:,} bytes, medians of {len(results)} runs\n")
    print(f"{median['per_cpu_second']:,.0f} a CPU-second, {verdict} the target of {TARGET_PER_CPU_SECOND:,}")
    print(f"{median['per_second']:,.0f} per second over {connections} connections")
    print(f"2xx after the broker's acknowledgement: p50 {median['p50_ms']} ms, p99 {median['p99_ms']} ms")
    figures = {
        "deliveries": deliveries,
        "body_bytes": BODY_BYTES,
        "connections": connections,
        "target_per_cpu_second": TARGET_PER_CPU_SECOND,
        "median": median,
        "runs": results,
    }
    write_result("gateway", figures)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--deliveries", type=int, default=20_000)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--load", nargs=3, metavar=("URL", "PID", "RUN"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options.serve)
    elif options.load:
        loader(options.load[0], int(options.load[1]), options.deliveries, options.connections, int(options.load[2]))
    else:
        main(options.deliveries, options.runs, options.connections)
