"""The gateway while Kafka is slow, dead, or not there yet: 503 with Retry-After, and no 2xx without a record."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import psutil
import pytest
from gateway_process import DEALS
from gateway_support import Running, create_topics, gateway, ids, standard, wait_for

from heddle.local import Stack

pytestmark = pytest.mark.stack

BODY = b'{"deal":{"id":"D"}}'


@contextlib.contextmanager
def frozen(stack: Stack) -> Iterator[None]:
    """Kafka accepts connections and answers nothing."""
    broker = psutil.Process(stack.kafka.pid)
    broker.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        broker.send_signal(signal.SIGCONT)


@contextlib.contextmanager
def dead(stack: Stack) -> Iterator[None]:
    stack.kafka.kill()
    try:
        yield
    finally:
        stack.kafka.start()


def accepts(running: Running, event_id: str) -> bool:
    return running.deliver(event_id, BODY).status_code == 200


def assert_unavailable(response: httpx2.Response) -> None:
    assert (response.status_code, response.content) == (503, b"")
    assert int(response.headers["retry-after"]) > 0


def test_the_deadline_when_kafka_is_slow_and_the_same_identity_when_sent_again(stack: Stack, tmp_path: Path) -> None:
    with gateway(stack.bootstrap_servers, tmp_path) as running:
        assert accepts(running, "before")
        with frozen(stack):
            started = time.monotonic()
            assert_unavailable(running.deliver("late", BODY))
            assert 2.4 < time.monotonic() - started < 6
            assert httpx2.get(running.url + "/healthz").status_code == 200
            assert httpx2.get(running.url + "/readyz", timeout=10).status_code == 503
        # The vendor sends again; the first try may have landed all the same, under the same identity.
        wait_for(lambda: accepts(running, "late"))
        assert set(ids(running.records(DEALS))) == {"before", "late"}
        assert running.status()["refused"]["deadline"] >= 1
        assert running.status()["in_flight"] == {"requests": 0, "bytes": 0}
        wait_for(lambda: httpx2.get(running.url + "/readyz", timeout=10).status_code == 200)


def test_kafka_killed_under_load_loses_nothing_that_was_accepted(stack: Stack, tmp_path: Path) -> None:
    with gateway(stack.bootstrap_servers, tmp_path) as running:
        accepted: list[str] = []
        statuses: set[int] = set()
        done = threading.Event()

        def send(sender: int) -> None:
            with httpx2.Client(base_url=running.url, timeout=20) as client:
                for number in range(100_000):
                    event_id = f"{sender}-{number}"
                    status = client.post("/hooks/deals", content=BODY, headers=standard(event_id, BODY)).status_code
                    statuses.add(status)
                    if status == 200:
                        accepted.append(event_id)
                    if done.is_set():
                        return

        senders = [threading.Thread(target=send, args=(number,)) for number in range(8)]
        for sender in senders:
            sender.start()
        try:
            wait_for(lambda: len(accepted) > 100)
            with dead(stack):
                wait_for(lambda: 503 in statuses)
                assert_unavailable(running.deliver("while-dead", BODY))
                before = len(accepted)
            wait_for(lambda: len(accepted) > before + 100)
        finally:
            done.set()
            for sender in senders:
                sender.join()
        assert statuses == {200, 503}
        assert set(accepted) <= set(ids(running.records(DEALS)))


def test_a_gateway_that_starts_before_kafka(stack: Stack, tmp_path: Path) -> None:
    with dead(stack), gateway(stack.bootstrap_servers, tmp_path, topics=False) as running:
        assert_unavailable(running.deliver("early", BODY))
        assert httpx2.get(running.url + "/readyz", timeout=10).status_code == 503
        assert [line["event"] for line in running.log()].count("gateway.no_broker") == 1
        stack.kafka.start()
        create_topics(stack.bootstrap_servers, running.prefix)
        wait_for(lambda: httpx2.get(running.url + "/readyz", timeout=10).status_code == 200)
        wait_for(lambda: accepts(running, "early"))
        assert ids(running.records(DEALS)) == ["early"]


def test_a_raw_topic_that_is_not_there_is_no_2xx(stack: Stack, tmp_path: Path) -> None:
    with gateway(stack.bootstrap_servers, tmp_path, topics=False) as running:
        assert_unavailable(running.deliver("nowhere", BODY))
