"""What the gateway's tests share: a gateway process, signed requests, raw topics read with a plain Kafka client."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, Message, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic
from gateway_process import sources

from heddle.secrets import secret
from heddle.sources.signatures import SCHEMES

STANDARD_SECRET = "whsec_dGVzdCBzZWNyZXQ="
NEW_SECRET = "whsec_bmV3IHNlY3JldA=="
TEXT_SECRET = "text-secret"
PROCESS = Path(__file__).parent / "gateway_process.py"


def wait_for(condition: Callable[[], Any], timeout_s: float = 40.0) -> Any:
    """The first true answer; fails when none comes in time."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        answer = condition()
        if answer:
            return answer
        time.sleep(0.02)
    raise AssertionError(f"not so within {timeout_s} s: {condition}")


@dataclass(frozen=True)
class Running:
    """A gateway process that serves."""

    process: subprocess.Popen[bytes]
    url: str
    prefix: str
    bootstrap_servers: str
    log_file: Path
    secrets: Path

    @property
    def address(self) -> tuple[str, int]:
        host, port = self.url.removeprefix("http://").split(":")
        return host, int(port)

    def post(self, path: str, body: bytes | Iterator[bytes], headers: dict[str, str], **more: Any) -> httpx2.Response:
        return httpx2.post(self.url + path, content=body, headers=headers, timeout=20, **more)

    def deliver(self, event_id: str, body: bytes = b"{}", **headers: str) -> httpx2.Response:
        """One signed delivery to the deals source."""
        return self.post("/hooks/deals", body, standard(event_id, body) | headers)

    def connect(self) -> socket.socket:
        return socket.create_connection(self.address, timeout=20)

    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = httpx2.get(self.url + "/statusz").json()
        return found

    def topic(self, source: str) -> str:
        return f"{self.prefix}-{source}.raw"

    def records(self, source: str) -> list[Message]:
        return read_topic(self.bootstrap_servers, self.topic(source))

    def log(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log_file.read_text(encoding="utf-8").splitlines() if line[:1] == "{"]


@contextlib.contextmanager
def gateway(
    bootstrap_servers: str, folder: Path, *, topics: bool = True, audited: bool = False, **settings: object
) -> Iterator[Running]:
    """A fresh gateway with topics of its own, but for those of audits. `settings` by their names, for example
    `gateway_deadline_s=1`."""
    prefix = f"g{uuid.uuid4().hex[:8]}"
    if topics:
        create_topics(bootstrap_servers, prefix)
    secrets = folder / "secrets" / "test"
    secrets.mkdir(parents=True)
    for name, value in (("standard", STANDARD_SECRET), ("text", TEXT_SECRET), ("token", "meta-token")):
        (secrets / name).write_text(value, encoding="utf-8")
    given = {"bootstrap_servers": bootstrap_servers, "secrets_dir": secrets.parent, "gateway_port": 0, **settings}
    environment = os.environ | {f"HEDDLE_{name.upper()}": str(value) for name, value in given.items()}
    log_file = folder / "gateway.log"
    command = [sys.executable, str(PROCESS), prefix, str(folder), *(["audited"] if audited else [])]
    with log_file.open("wb") as log:
        process = subprocess.Popen(command, env=environment, stderr=log)
    try:
        state = folder / "gateway.json"
        wait_for(lambda: state.exists() or process.poll() is not None)
        assert process.poll() is None, log_file.read_text(encoding="utf-8")
        url = json.loads(state.read_text(encoding="utf-8"))["url"]
        yield Running(process, url, prefix, bootstrap_servers, log_file, secrets)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()


def standard(event_id: str, body: bytes, at: float | None = None, key: str = STANDARD_SECRET) -> dict[str, str]:
    """Standard Webhooks headers for `body`."""
    stamp = str(int(time.time() if at is None else at))
    verifier = SCHEMES["standard-webhooks"](secret("test/standard")).verifier([key])
    signature = verifier.scheme.sign(verifier.keys[0], f"{event_id}.{stamp}.".encode() + body)
    return {
        "content-type": "application/json",
        "webhook-id": event_id,
        "webhook-timestamp": stamp,
        "webhook-signature": f"v1,{signature}",
    }


def signature(scheme: str, message: bytes) -> str:
    """By one of the schemes whose secret is text."""
    return SCHEMES[scheme](secret("test/text")).sign(TEXT_SECRET.encode(), message)


def status_of(running: Running, key: str) -> int:
    """Of a delivery to the deals source that is signed with `key`."""
    body = b"{}"
    return running.post("/hooks/deals", body, standard(uuid.uuid4().hex, body, key=key)).status_code


def replace(file: Path, text: str) -> None:
    """At once: a file that is empty for a moment is a secret that is gone for a moment."""
    scratch = file.with_name("scratch")
    scratch.write_text(text, encoding="utf-8")
    scratch.replace(file)


def raw_request(event_id: str, body: bytes, sent: bytes | None = None) -> bytes:
    """A signed request as bytes; `sent` is the part of the body to send now."""
    head = "".join(f"{name}: {value}\r\n" for name, value in standard(event_id, body).items())
    start = f"POST /hooks/deals HTTP/1.1\r\nhost: gateway\r\ncontent-length: {len(body)}\r\n{head}\r\n"
    return start.encode() + (body if sent is None else sent)


def answer(connection: socket.socket) -> tuple[int, str]:
    """(status, head) of the next response, whose body is taken to be empty."""
    received = b""
    while b"\r\n\r\n" not in received:
        chunk = connection.recv(65536)
        if not chunk:
            break
        received += chunk
    assert received.startswith(b"HTTP/1.1 "), received
    return int(received[9:12]), received.decode().lower()


def create_topics(bootstrap_servers: str, prefix: str) -> None:
    admin = AdminClient({"bootstrap.servers": bootstrap_servers})
    config = {"max.message.bytes": str(2 * 2**20)}
    wanted = [NewTopic(source.raw_topic, 3, 1, config=config) for source in sources(prefix)]
    for done in admin.create_topics(wanted).values():
        done.result(20)


def read_topic(bootstrap_servers: str, topic: str) -> list[Message]:
    """Everything that is durable in a topic now."""
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap_servers,
            "group.id": f"read-{uuid.uuid4().hex}",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
        }
    )
    partitions = consumer.list_topics(topic, 20).topics[topic].partitions
    consumer.assign([TopicPartition(topic, partition, OFFSET_BEGINNING) for partition in partitions])
    found: list[Message] = []
    ended: set[int] = set()
    while len(ended) < len(partitions):
        for message in consumer.consume(500, 0.1):
            error = message.error()
            if error is None:
                found.append(message)
            elif error.code() == KafkaError._PARTITION_EOF:
                ended.add(message.partition())
    consumer.close()
    return found


def header(message: Message, name: str) -> str | None:
    return next((value.decode("latin-1") for key, value in message.headers() or [] if key == name), None)


def ids(messages: list[Message]) -> list[str | None]:
    return sorted((header(message, "ce_id") for message in messages), key=str)
