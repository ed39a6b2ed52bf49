"""librdkafka settings of each kind of client. `HEDDLE_KAFKA` wins over our tuning, never over what keeps data safe."""

from __future__ import annotations

import logging
from typing import Any

from heddle.broker.kafka.failures import Reasons
from heddle.settings import Settings

MAX_POLL_INTERVAL_S = 300.0
HEARTBEATS_PER_SESSION = 6
MAX_REQUEST_BYTES = 64 * 2**20

# librdkafka writes its own log lines past ours; what matters in them reaches `Reasons` and the errors that we raise.
# A project that wants the lines configures this logger.
_LOG = logging.getLogger("heddle.broker.kafka")
_LOG.addHandler(logging.NullHandler())

_CONSUMER_TUNING = {
    "queued.min.messages": 20_000,  # ten batches ahead; the default, 100,000 small records, takes 60 MiB
    "queued.max.messages.kbytes": 16 * 1024,  # prefetch per client; the default, 64 MiB, times workers is much memory
    "fetch.queue.backoff.ms": 10,  # after a full prefetch queue; the default waits a whole second
    "fetch.wait.max.ms": 100,  # how long a started partition can wait behind a fetch that is under way
    "fetch.error.backoff.ms": 200,
}
_PRODUCER_TUNING = {
    "linger.ms": 5,
    "batch.num.messages": 100_000,  # the limit is bytes: 1,000,000, just below a topic's default limit for a batch
    "queue.buffering.max.messages": 1_000_000,
    "topic.metadata.propagation.max.ms": 5000,  # workers write to topics that exist; the default is 30 s
    # Once all brokers are down, the default forgets them. A call that sends offsets then waits for ever for the
    # coordinator that was forgotten (librdkafka issues 5511 and 5456; seen when a lone broker was killed).
    "metadata.recovery.strategy": "none",
}


def client_config(settings: Settings, reasons: Reasons) -> dict[str, Any]:
    """What every client shares."""
    return {
        "client.id": f"heddle-{settings.instance}",
        "reconnect.backoff.max.ms": 1000,
        "log_level": 4,
        **settings.kafka_config(),
        "error_cb": reasons.note,
        "logger": _LOG,
    }


def consumer_config(settings: Settings, reasons: Reasons, group: str) -> dict[str, Any]:
    """A group member: classic protocol, cooperative, never commits by itself, never resets by itself."""
    session_ms = int(settings.session_timeout_s * 1000)
    return {
        **_CONSUMER_TUNING,
        **client_config(settings, reasons),
        "group.id": group,
        "group.protocol": "classic",
        "partition.assignment.strategy": "cooperative-sticky",
        "session.timeout.ms": session_ms,
        "heartbeat.interval.ms": session_ms // HEARTBEATS_PER_SESSION,
        "max.poll.interval.ms": int(MAX_POLL_INTERVAL_S * 1000),
        **_READING,
    }


def reader_config(settings: Settings, reasons: Reasons) -> dict[str, Any]:
    """Assigned by hand: the group is a name that librdkafka asks for and nobody joins."""
    return {
        **_CONSUMER_TUNING,
        "queued.max.messages.kbytes": 8 * 1024,  # keeps a restore busy, which Python bounds, not the network
        **client_config(settings, reasons),
        "group.id": "heddle-reader",
        "enable.partition.eof": True,
        **_READING,
    }


def producer_config(settings: Settings, reasons: Reasons, transactional_id: str) -> dict[str, Any]:
    return {
        **_PRODUCER_TUNING,
        "message.max.bytes": MAX_REQUEST_BYTES,  # the topic's own limit decides
        **client_config(settings, reasons),
        "transactional.id": transactional_id,
        "transaction.timeout.ms": int(settings.transaction_timeout_s * 1000),
        "enable.idempotence": True,
        "acks": "all",
        "partitioner": "murmur2_random",
    }


_READING = {
    "enable.auto.commit": False,
    "enable.auto.offset.store": False,
    "auto.offset.reset": "error",
    "isolation.level": "read_committed",
    "allow.auto.create.topics": False,
}
