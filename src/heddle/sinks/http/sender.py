"""One event to its target: made into a call, sent with its key, and sent again where that is safe.

What may have been sent before, longer ago than the target keeps keys, is looked up first; so is everything where the
target keeps none."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import httpx2
import orjson

from heddle.contracts import Contract
from heddle.errors import (
    AuthError,
    DependencyDownError,
    Failure,
    FailureClass,
    HeddleError,
    Park,
    RateLimitError,
    TransientError,
    UnknownEffectError,
    UsageError,
)
from heddle.event import Identity, stable_id
from heddle.http.guard import ForbiddenHostError
from heddle.http.tls import refuses_us
from heddle.integration import Applied, Delivered
from heddle.on_failure import OnFailure
from heddle.secrets import redact
from heddle.sinks.http.answer import APPLIED, MAX_BODY_BYTES, RECOVERED, Answer, failed, meaning
from heddle.sinks.http.call import Deleter, Endpoint, HttpCall, Maker, encoded
from heddle.sinks.http.client import MAX_TOTAL_S, Client, is_refused
from heddle.sinks.http.telling import Telling

LONGEST_WAIT_S = 1.0
"""Between two quick tries; what took longer than that to fail is not tried again at once."""

MOST_REMEMBERED = 10_000
"""Events without an answer; the oldest are forgotten first, and parked by then."""

GONE = frozenset({404, 410})
"""What a DELETE of an entity that is not there is answered with."""

UNCLEAR = frozenset(range(500, 600)) - {501, 503, 505}
"""A server that breaks on the way, or a proxy that lost it, may have acted. Others of these refuse from the start."""

_UPPER = re.compile(r"(?<=[a-z])(?=[A-Z])")
_UNSENT = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout)


@dataclass(frozen=True, slots=True, kw_only=True)
class IdempotencyKey:
    """The header in which this API wants a key, and for how long it surely keeps what it did under one.

    The key is made of the event's identity: 26 characters, the same on every try, in every process. `kept` is the
    promise: exactly once as long as an event's tries, and the recovery from a crash, lie within it."""

    header: str = "Idempotency-Key"
    kept: timedelta = timedelta(hours=24)

    def __post_init__(self) -> None:
        if not self.header or self.kept <= timedelta(0):
            raise UsageError("IdempotencyKey: a header's name and a time above zero are needed")


class LookUp:
    """Asks the target whether it has an event's effect: `LookUp("/v1/invoices/{invoice_id}")`.

    404 says no. Any 2xx says yes, or `found`, which gets the answer's JSON, does."""

    def __init__(self, path: str, *, found: Callable[[Any], bool] | None = None) -> None:
        self.path = path
        self.found = found

    def maker(self, sink: str, contract: Contract) -> Maker:
        return Endpoint("GET", self.path).maker(sink, contract)


@dataclass(frozen=True, slots=True)
class Target:
    """What the sender has to know of one sink. `url`: without a "/" at its end. `look_up`: the call, and what its
    answer says (None: a success says yes). `already`: statuses that say that the effect is there. `delete`: what a
    tombstone becomes. `telling`: what makes events of answers. `at_most_once`: there is neither key nor look-up, so no
    call is made twice."""

    name: str
    url: str
    call: Maker
    key: IdempotencyKey | None
    look_up: tuple[Maker, Callable[[Any], bool] | None] | None
    already: frozenset[int]
    headers: Mapping[str, str]
    policy: OnFailure
    delete: Deleter | None = None
    at_most_once: bool = False
    telling: Telling | None = None


class _NotOursError(Exception):
    """Nothing was sent: the group may have given the partition to another owner meanwhile."""


class Sender:
    """Remembers when it first sent what it has no answer to: an outage, which parks nothing, may last longer than the
    target keeps keys. A successor does not know of these; what was parked says it by itself."""

    def __init__(self, target: Target, client: Client) -> None:
        self._target = target
        self._host = httpx2.URL(target.url).host
        self._client = client
        self._clock = client.clock
        self._unanswered_since: dict[Identity, float] = {}
        self._slow: set[Identity] = set()

    async def ready(self) -> None:
        """Returns when the target does not ask us to wait, as far as we know."""
        await self._client.ready()

    async def apply(
        self, index: int, delivered: Delivered[Any], may_begin: Callable[[], bool], is_ours: Callable[[], bool]
    ) -> Applied | Failure | None:
        """None: not begun, because `may_begin` says no; or not sent, because `is_ours` does once a look-up, or new
        credentials, have taken their time."""
        try:
            call = self._call(delivered)
            if call is None:
                return APPLIED
            request = self._request(call, delivered)
        except (Exception, SystemExit) as error:
            return _failed_to_make(index, error)
        if not may_begin():
            return None
        if delivered.event.value is not None and self._must_look_up(delivered):
            began_s = self._clock.wall_s()
            result = await self._look_up(index, delivered)
            if result is not None:
                self._remember(delivered.event.identity, result, began_s)
                return result
            if not self._may_follow(delivered.event.identity, is_ours):
                return None
        return await self._tries(index, delivered, request, may_begin, is_ours)

    def _may_follow(self, identity: Identity, is_ours: Callable[[], bool]) -> bool:
        """Whether a call may follow its look-up. Where the group may have moved on meanwhile it is looked up anew,
        after a poll; once: an API that answers so slowly each time is no process that was frozen."""
        if is_ours() or identity in self._slow:
            self._slow.discard(identity)
            return True
        self._slow.add(identity)
        return False

    def _call(self, delivered: Delivered[Any]) -> HttpCall | None:
        """A DELETE, of a tombstone, is sent again whenever it may not have been heard: it does the same twice."""
        target, value = self._target, delivered.event.value
        if value is not None:
            return target.call(value, delivered.event)
        assert target.delete is not None  # no sink without one is given tombstones
        return target.delete(delivered.record.key)

    def _remember(self, identity: Identity, result: Applied | Failure, began_s: float) -> None:
        if not isinstance(result, Failure) or result.failure_class is FailureClass.POISON:
            self._unanswered_since.pop(identity, None)
        elif result.failure_class is FailureClass.TRANSIENT:
            self._unanswered_since.setdefault(identity, began_s)
            if len(self._unanswered_since) > MOST_REMEMBERED:
                del self._unanswered_since[next(iter(self._unanswered_since))]

    async def _tries(
        self, index: int, delivered: Delivered[Any], request: httpx2.Request, may_begin: Callable[[], bool],
        is_ours: Callable[[], bool],
    ) -> Applied | Failure | None:  # fmt: skip
        """Several within the batch, where a moment may mend it: they count as one attempt. Each is remembered: one
        that was refused says nothing of another before it that had no answer."""
        policy, delay_s = self._target.policy, self._target.policy.quick_delay_s
        result: Applied | Failure | None = None
        for number in range(1, policy.quick_tries + 1):
            began_s, sent_s = time.monotonic(), self._clock.wall_s()
            answered = await self._once(index, delivered, request, may_begin, is_ours)
            if answered is None:
                break
            result = answered
            self._remember(delivered.event.identity, result, sent_s)
            if not self._is_passing(result, began_s) or number == policy.quick_tries:
                break
            if isinstance(result, Failure) and result.failure_class is FailureClass.RATE_LIMIT:
                self._client.hold(_pause_s(result))
            await self._clock.sleep(min(delay_s, LONGEST_WAIT_S) * (0.5 + self._clock.jitter() / 2))
            await self._client.ready()
            if not may_begin():
                break
            delay_s *= 2
        return result

    def _is_passing(self, result: Applied | Failure, began_s: float) -> bool:
        """Without a key nothing is sent a second time before it was looked up."""
        if not isinstance(result, Failure) or time.monotonic() - began_s > LONGEST_WAIT_S:
            return False
        match result.failure_class:
            case FailureClass.DEPENDENCY_DOWN:
                return True
            case FailureClass.RATE_LIMIT:
                return _pause_s(result) <= LONGEST_WAIT_S
            case FailureClass.TRANSIENT:
                return self._target.key is not None
        return False

    async def _once(
        self, index: int, delivered: Delivered[Any], request: httpx2.Request, may_begin: Callable[[], bool],
        is_ours: Callable[[], bool],
    ) -> Applied | Failure | None:  # fmt: skip
        try:
            answer = await self._exchanged(request, may_begin, is_ours)
        except _NotOursError:
            return None
        except (Exception, SystemExit) as error:
            return self._unanswered(index, request, error)
        if delivered.event.value is None:
            return meaning(index, answer, self._target.already | GONE)
        if self._target.at_most_once and answer.status in UNCLEAR:
            return _in_doubt(index, f"{self._target.name}: HTTP {answer.status} does not say whether it has acted")
        return self._told(index, delivered, meaning(index, answer, self._target.already), answer, looked_up=False)

    def _told(
        self, index: int, delivered: Delivered[Any], result: Applied | Failure, answer: Answer, *, looked_up: bool
    ) -> Applied | Failure:
        """With the events that the sink makes of the answer."""
        telling = self._target.telling
        if telling is None or isinstance(result, Failure):
            return result
        return telling.told(index, delivered.event.value, result, answer, looked_up=looked_up)

    async def _exchanged(
        self, request: httpx2.Request, may_begin: Callable[[], bool], is_ours: Callable[[], bool]
    ) -> Answer:
        """Sent once, and once more with renewed credentials."""
        ends_at, began_s = self._client.ends_at(), time.monotonic()
        used = await self._credentials(ends_at)
        if time.monotonic() - began_s > LONGEST_WAIT_S and not is_ours():
            raise _NotOursError
        answer = await self._client.send(_with(request, used), ends_at)
        if is_refused(answer) and await self._client.refused(used):
            renewed = await self._credentials(ends_at)
            if may_begin():
                answer = await self._client.send(_with(request, renewed), ends_at)
        return answer

    async def _credentials(self, ends_at: float) -> dict[str, str]:
        """Without them nothing is sent: their server's silence says nothing of the record, nor of its effect."""
        try:
            return await self._client.credentials(ends_at)
        except (TimeoutError, httpx2.TransportError) as error:
            told = f"{self._target.name}: no credentials{_from(error)} ({_kebab(error)})"
            raise DependencyDownError(told, hint="it is tried again by itself") from error

    def _unanswered(self, index: int, request: httpx2.Request, error: BaseException) -> Failure:
        """What was not sent says nothing of the record; of what was, nobody knows whether it took effect."""
        name, host = self._target.name, request.url.host
        if isinstance(error, HeddleError):
            return failed(index, error)
        if refuses_us(error):
            told = f"{name}: {host} does not take our client certificate ({_kebab(error)})"
            return failed(index, AuthError(told, hint="renew client_certificate=, then start the worker again"))
        if isinstance(error, _UNSENT):
            told = f"{name}: no connection to {host} ({_kebab(error)})"
            if host == self._host:
                return failed(index, DependencyDownError(told, hint="it is tried again by itself"), cause=error)
            return failed(index, TransientError(told), _kebab(error), cause=error)
        if isinstance(error, httpx2.LocalProtocolError):  # its text repeats what the call holds
            told = f"{name}: the call holds a header or a method that HTTP does not allow"
            return failed(index, Park(told), _kebab(error))
        if isinstance(error, TimeoutError | httpx2.TransportError):
            kind = "deadline" if isinstance(error, TimeoutError) else _kebab(error)
            told = f"{name}: {host} gave no answer ({kind}); whether it has acted is not known"
            if self._target.at_most_once:
                return _in_doubt(index, told)
            return failed(index, TransientError(told), kind, cause=error)
        if self._target.at_most_once:
            return _in_doubt(index, f"{name}: {type(error).__name__} on the way; whether it has acted is not known")
        return _failed_to_make(index, error)

    def _request(self, call: HttpCall, delivered: Delivered[Any]) -> httpx2.Request:
        """All but credentials. The event's own headers come last, so that no call takes their place."""
        target, event = self._target, delivered.event
        content, kind = encoded(call.body)
        headers = {"Accept": "application/json", "Accept-Encoding": "identity", **target.headers}
        if kind:
            headers["Content-Type"] = kind
        headers.update(call.headers)
        if event.traceparent is not None:
            headers["traceparent"] = event.traceparent.decode()
        if target.key is not None:
            headers = {name: text for name, text in headers.items() if name.lower() != target.key.header.lower()}
            headers[target.key.header] = stable_id(*event.identity)
        return self._client.request(call.method, self._url(call.path), content, headers)

    def _url(self, path: str) -> str:
        """A whole URL comes from a function, and perhaps out of data: it has to be safe on the way, too."""
        if path.startswith("/") and not path.startswith("//"):
            return self._target.url + path
        if not path.startswith("https://") and not path.startswith(self._target.url + "/"):
            raise ForbiddenHostError("the URL of a call is neither a path nor https")
        return path

    # Looking up

    def _must_look_up(self, delivered: Delivered[Any]) -> bool:
        """A record that was never tried is not looked up under a key: what a crash cut short comes again within the
        window, or the sink's promise does not hold."""
        key = self._target.key
        if key is None:
            return not self._target.at_most_once
        now_s, since_ms = self._clock.wall_s(), delivered.tried_since_ms
        if since_ms is None:
            since_s = self._unanswered_since.get(delivered.event.identity, now_s)
        else:  # what is parked knows better: a person may have found out
            since_s = since_ms / 1000 - MAX_TOTAL_S if since_ms else now_s  # a call that failed then began before
        return now_s - since_s >= key.kept.total_seconds()

    async def _look_up(self, index: int, delivered: Delivered[Any]) -> Applied | Failure | None:
        """None: the target does not have it."""
        name = self._target.name
        if self._target.look_up is None:
            return _in_doubt(index, f"{name}: an earlier try may have taken effect, and its key is no longer kept")
        make, found = self._target.look_up
        try:
            call = make(delivered.event.value, delivered.event)
            assert call is not None
            request = self._request(HttpCall("GET", call.path), delivered)
            answer = await self._exchanged(request, lambda: True, lambda: True)
        except (Exception, SystemExit) as error:
            return self._unanswered(index, self._client.request("GET", self._target.url, b"", {}), error)
        if answer.status == 404:
            return None
        seen = meaning(index, answer, ())
        if isinstance(seen, Failure):
            return seen
        if found is not None and not answer.is_whole and len(answer.body) < MAX_BODY_BYTES:
            told = f"{name}: the look-up's answer broke off behind its status; it is asked for again"
            return failed(index, TransientError(told), "answer-cut")
        try:
            is_there = found is None or found(orjson.loads(answer.body) if answer.body else None)
        except Exception as error:
            told = f"{name}: the look-up's answer is not what found= reads ({type(error).__name__})"
            return _in_doubt(index, told)
        return self._told(index, delivered, RECOVERED, answer, looked_up=True) if is_there else None


def _in_doubt(index: int, told: str) -> Failure:
    return failed(index, UnknownEffectError(told, hint="find out at the target, then settle the entry"))


def _pause_s(failure: Failure) -> float:
    """How long the target asks us to wait; endless where it does not say."""
    error = failure.error
    if isinstance(error, RateLimitError) and error.after is not None:
        return error.after.total_seconds()
    return math.inf


def _with(request: httpx2.Request, headers: Mapping[str, str]) -> httpx2.Request:
    request.headers.update(headers)
    return request


def _failed_to_make(index: int, error: BaseException) -> Failure:
    """What the integrator's own function raised, or something unforeseen: its class is said by `on_failure.classes`."""
    if isinstance(error, HeddleError):
        path = getattr(error, "path", "")
        return failed(index, error)._replace(path=path)
    kind = type(error).__name__
    return Failure(index, FailureClass.UNKNOWN, kind, "", redact(f"{kind}: {error}"), error)


def _from(error: BaseException) -> str:
    """Whom an error of httpx2's is about, where it says so."""
    try:
        return f" from {error.request.url.host}" if isinstance(error, httpx2.TransportError) else ""
    except RuntimeError:  # not bound to a request
        return ""


def _kebab(error: BaseException) -> str:
    return _UPPER.sub("-", type(error).__name__).lower()
