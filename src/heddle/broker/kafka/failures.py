"""Kafka's error codes, classed by what the engine does next."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from confluent_kafka import KafkaError, KafkaException

from heddle.broker import advice
from heddle.errors import (
    AuthError,
    BrokerDownError,
    BrokerError,
    FencedError,
    HeddleError,
    OffsetLostError,
    StaleGenerationError,
    UsageError,
)

_CREDENTIALS = frozenset(
    {
        KafkaError._AUTHENTICATION,
        KafkaError.SASL_AUTHENTICATION_FAILED,
        KafkaError.UNSUPPORTED_SASL_MECHANISM,
        KafkaError.ILLEGAL_SASL_STATE,
    }
)
_RULES = frozenset(
    {
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.GROUP_AUTHORIZATION_FAILED,
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
        KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
    }
)
AUTH = _CREDENTIALS | _RULES
FENCED = frozenset({KafkaError._FENCED, KafkaError.PRODUCER_FENCED, KafkaError.INVALID_PRODUCER_EPOCH})
STALE = frozenset(
    {
        KafkaError.ILLEGAL_GENERATION,
        KafkaError.UNKNOWN_MEMBER_ID,
        KafkaError.REBALANCE_IN_PROGRESS,
        KafkaError.FENCED_INSTANCE_ID,
        KafkaError.FENCED_MEMBER_EPOCH,
        KafkaError.STALE_MEMBER_EPOCH,
    }
)
OFFSET_LOST = frozenset(
    {KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE, KafkaError._NO_OFFSET, KafkaError._LOG_TRUNCATION}
)
TOO_LARGE = frozenset({KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.RECORD_LIST_TOO_LARGE})
UNKNOWN_TOPIC = frozenset(
    {
        KafkaError.UNKNOWN_TOPIC_OR_PART,
        KafkaError._UNKNOWN_TOPIC,
        KafkaError._UNKNOWN_PARTITION,
        KafkaError.UNKNOWN_TOPIC_ID,
    }
)
DOWN = frozenset(
    {
        KafkaError._TRANSPORT,
        KafkaError._ALL_BROKERS_DOWN,
        KafkaError._RESOLVE,
        KafkaError._SSL,
        KafkaError._TIMED_OUT,
        KafkaError._TIMED_OUT_QUEUE,
        KafkaError._MSG_TIMED_OUT,
        KafkaError._WAIT_COORD,
        KafkaError.REQUEST_TIMED_OUT,
        KafkaError.BROKER_NOT_AVAILABLE,
        KafkaError.COORDINATOR_NOT_AVAILABLE,
        KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
        KafkaError.NOT_COORDINATOR,
        KafkaError.LEADER_NOT_AVAILABLE,
        KafkaError.NETWORK_EXCEPTION,
        KafkaError.NOT_CONTROLLER,
    }
)
# Of a partition that is new, or whose leader changes: librdkafka asks who leads it, and answers so meanwhile.
MOVING = frozenset({KafkaError.NOT_LEADER_FOR_PARTITION, KafkaError.LEADER_NOT_AVAILABLE})
# Codes that a consumer mends by itself, or that its rebalance reports.
PASSING = DOWN | {
    KafkaError._PARTITION_EOF,
    KafkaError._MAX_POLL_EXCEEDED,
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.REBALANCE_IN_PROGRESS,
    KafkaError.UNSTABLE_OFFSET_COMMIT,
}
_REMEMBERED_S = 60.0


class _Reason(NamedTuple):
    text: str
    noted_s: float
    is_tls: bool = False

    @property
    def is_fresh(self) -> bool:
        return bool(self.text) and time.monotonic() - self.noted_s < _REMEMBERED_S


class Reasons:
    """What librdkafka says in the background: why a broker cannot be reached, why it refused us.

    Calls then fail with a mere time-out; a reason not older than a minute explains it."""

    def __init__(self) -> None:
        self._auth = self._down = _Reason("", 0.0)

    def note(self, error: KafkaError) -> None:
        """librdkafka's `error_cb`."""
        code, text, now_s = error.code(), error.str(), time.monotonic()
        if code in AUTH:
            self._auth = _Reason(text, now_s)
        elif code in (KafkaError._SSL, KafkaError._TRANSPORT) and advice.is_about_certificates(text):
            self._auth = _Reason(text, now_s, is_tls=True)
        elif code != KafkaError._ALL_BROKERS_DOWN:
            self._down = _Reason(text, now_s)

    @property
    def down(self) -> str:
        return self._down.text if self._down.is_fresh else ""

    @property
    def is_refused(self) -> bool:
        return self._auth.is_fresh

    def refusal(self, doing: str) -> AuthError | None:
        """What to raise where nothing comes because we are refused, or one side distrusts the other's certificate."""
        if not self.is_refused:
            return None
        if self._auth.is_tls:
            return AuthError(f"{doing}: TLS with Kafka fails ({self._auth.text})", hint=advice.CERTIFICATES)
        return AuthError(f"{doing}: refused by Kafka ({self._auth.text})", hint=advice.CREDENTIALS)


def failure(error: KafkaError, doing: str, reasons: Reasons) -> HeddleError:
    """The error to raise for `error`, which came while `doing` ("committing", "creating topics")."""
    code = error.code()
    if code in AUTH:
        hint = advice.RULES if code in _RULES else advice.CREDENTIALS
        return AuthError(f"{doing}: refused by Kafka ({error.str()})", hint=hint)
    if code in FENCED:
        return FencedError(
            f"{doing}: another process has taken over this transactional id",
            hint="another worker runs under this instance name; stop one of them",
        )
    if code in STALE:
        return StaleGenerationError(f"{doing}: the group has moved on ({error.name()})", hint="abort, poll, re-run")
    if code in OFFSET_LOST:
        return OffsetLostError(
            f"{doing}: {error.str()}",
            hint="records were deleted before they were read, or the topic was made again; decide where to go on",
        )
    if code in UNKNOWN_TOPIC:
        return BrokerError(f"{doing}: no such topic or partition", hint="run `heddle apply`")
    if code in DOWN:
        if refusal := reasons.refusal(doing):
            return refusal
        detail = reasons.down or error.str()
        return BrokerDownError(f"{doing}: no answer from Kafka ({detail})", hint=advice.DOWN)
    return BrokerError(f"{doing}: {error.str()} ({error.name()})", hint="see the broker's log")


@contextmanager
def translated(doing: str, reasons: Reasons) -> Iterator[None]:
    """Raise Kafka's errors as ours."""
    try:
        yield
    except KafkaException as error:
        raise failure(error.args[0], doing, reasons) from error


@contextmanager
def configured() -> Iterator[None]:
    """Around the making of a client: what librdkafka refuses here is a setting."""
    try:
        yield
    except KafkaException as error:
        raise UsageError(f"Kafka settings: {error.args[0].str()}", hint="correct HEDDLE_KAFKA") from error
