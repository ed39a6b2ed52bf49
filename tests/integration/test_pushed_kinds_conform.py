"""Pushed sources, the generic webhook and a vendor's, pass their checks on a real gateway before a real Kafka."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import httpx2
import psutil
import pytest
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic
from pushed_process import TEXT, shop, shop_delivery, shop_signed, stripe, stripe_delivery

from heddle import WebhookSource
from heddle.broker.log import Record
from heddle.local import Stack
from heddle.testing.conformance import Answer, Gateways, PushedSourceConformance, Sent

pytestmark = pytest.mark.stack

PROCESS = Path(__file__).parent / "pushed_process.py"
PROJECT = PROCESS.parents[2]
PARTITIONS = 3
START_LIMIT_S = 40.0


class RealGateway:
    """A process; `busy` counts what this client has sent to it, and asks whether its event loop has come round."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        folder.mkdir()
        self._state = folder / "gateway.json"
        self._process = subprocess.Popen([sys.executable, str(PROCESS), str(folder)], env=environment)
        self._client = httpx2.Client(timeout=20)
        self._lock, self._sent = threading.Lock(), 0
        self._url = ""

    def serve(self) -> RealGateway:
        deadline_s = time.monotonic() + START_LIMIT_S
        while not self._state.exists():
            assert time.monotonic() < deadline_s, "it does not serve"
            assert self._process.poll() is None, "it has ended"
            threading.Event().wait(0.02)
        self._url = json.loads(self._state.read_text(encoding="utf-8"))["url"]
        return self

    @property
    def is_alive(self) -> bool:
        return self._process.poll() is None

    def post(self, path: str, sent: Sent) -> Answer | None:
        with self._counted(1):
            try:
                answer = self._client.post(self._url + path, content=sent.body, headers=dict(sent.headers))
            except httpx2.TransportError:
                return None
        return Answer(answer.status_code, answer.headers.get("retry-after"))

    @contextlib.contextmanager
    def _counted(self, by: int) -> Iterator[None]:
        with self._lock:
            self._sent += by
        try:
            yield
        finally:
            with self._lock:
                self._sent -= by

    def busy(self) -> int:
        self._client.get(self._url + "/healthz")
        return self._sent

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait()

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        self._client.close()

    def done(self) -> None:
        """Kept, if it lives."""


class RealGateways:
    """Those that outlived their check serve the next one."""

    def __init__(self, stack: Stack, folder: Path) -> None:
        secrets = folder / "secrets" / "pushed"
        secrets.mkdir(parents=True)
        (secrets / "key").write_text(TEXT, encoding="utf-8")
        given = {
            "bootstrap_servers": stack.bootstrap_servers, "secrets_dir": secrets.parent, "gateway_port": 0,
            "gateway_deadline_s": 0.6,
        }  # fmt: skip
        settings = {f"HEDDLE_{name.upper()}": str(value) for name, value in given.items()}
        self._environment = os.environ | settings | {"PYTHONPATH": str(PROJECT)}
        self._stack, self._folder = stack, folder
        self._all: list[RealGateway] = []
        self._leased: list[RealGateway] = []
        self._consumer = Consumer(
            {
                "bootstrap.servers": stack.bootstrap_servers,
                "group.id": "unused",
                "enable.partition.eof": True,
                "fetch.wait.max.ms": 10,
            }
        )
        admin = AdminClient({"bootstrap.servers": stack.bootstrap_servers})
        topics = [NewTopic(source.raw_topic, PARTITIONS, 1) for source in (shop(), stripe())]
        for created in admin.create_topics(topics).values():
            created.result(20)

    def anew(self) -> RealGateways:
        self._leased.clear()
        return self

    def start(self, source: WebhookSource) -> RealGateway:
        """And begin a spare one, which gets ready while the first is at work."""
        idle = [one for one in self._all if one.is_alive and one not in self._leased]
        while len(idle) < 2:
            idle.append(RealGateway(self._folder / uuid.uuid4().hex, self._environment))
            self._all.append(idle[-1])
        self._leased.append(idle[0])
        return idle[0].serve()

    @contextlib.contextmanager
    def stalled(self) -> Iterator[None]:
        broker = psutil.Process(self._stack.kafka.pid)
        broker.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            broker.send_signal(signal.SIGCONT)

    def records(self, topic: str) -> list[Record]:
        consumer = self._consumer
        consumer.assign([TopicPartition(topic, partition, OFFSET_BEGINNING) for partition in range(PARTITIONS)])
        found, ended = [], set()
        while len(ended) < PARTITIONS:
            for message in consumer.consume(500, 0.1):
                if message.error() is None:
                    place = (topic, message.partition(), message.offset())
                    headers = list(message.headers() or [])
                    found.append(Record(*place, message.key(), message.value(), headers, message.timestamp()[1]))
                elif message.error().code() == KafkaError._PARTITION_EOF:
                    ended.add(message.partition())
        return found

    def close(self) -> None:
        for one in self._all:
            one.kill()
        self._consumer.close()


@pytest.fixture(scope="module")
def real(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealGateways]:
    with contextlib.closing(RealGateways(stack, tmp_path_factory.mktemp("gateways"))) as gateways:
        yield gateways


class _OnKafka(PushedSourceConformance):
    @pytest.fixture(autouse=True)
    def deliveries_of_its_own(self, real: RealGateways, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HEDDLE_SECRET_PUSHED_KEY", TEXT)
        self.real, self.mine = real.anew(), uuid.uuid4().hex[:8]

    def gateways(self) -> Gateways:
        return self.real


class TestGenericWebhook(_OnKafka):
    def source(self) -> WebhookSource:
        return shop()

    def delivery(self, number: int) -> Sent:
        return shop_delivery(number, self.mine)

    def poison(self) -> Sent:
        return shop_signed(b'{"id": "%s"}' % self.mine.encode(), f"E{self.mine}-9")


class TestStripeWebhook(_OnKafka):
    def source(self) -> WebhookSource:
        return stripe()

    def delivery(self, number: int) -> Sent:
        return stripe_delivery(number, self.mine)

    def poison(self) -> Sent:
        return stripe_delivery(9, self.mine, currency="shells")
