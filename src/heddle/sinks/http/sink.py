"""`HttpSink`: what an integrator declares."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Literal, TypeVar, cast

import httpx2

from heddle.contracts import contract_of
from heddle.errors import UsageError
from heddle.event import Event
from heddle.http.auth import Auth
from heddle.http.clock import SYSTEM, CallClock
from heddle.http.guard import Guard
from heddle.http.tls import ClientCertificate, Tls
from heddle.integration import Sink, Start
from heddle.on_failure import DEFAULT, OnFailure, Order
from heddle.sinks.http.call import Endpoint, HttpCall, maker_of
from heddle.sinks.http.client import Client, Deadlines
from heddle.sinks.http.sender import IdempotencyKey, LookUp, Target
from heddle.sinks.http.telling import HttpAnswer, Telling
from heddle.sinks.http.writer import HttpWriter

R = TypeVar("R")
W = TypeVar("W")


class HttpSink(Sink[R]):
    """Events of one contract to an HTTP API, one call each.

    `call` is an `Endpoint`, or a function of the value (or of value and `Event`) that gives an `HttpCall`, or None
    where there is nothing to send. `url` is what all paths follow; `hosts` are further ones that a function may call.

    `idempotency` says in which header the API takes a key, and for how long it keeps it: within that time each event
    takes effect once. An API that takes none needs a `look_up`, by which each event is looked for before it is sent:
    once, unless two processes look and send at the same moment. What may have taken effect and can be found out neither
    way is parked as `unknown`. For an API that has neither, `at_most_once=True`: each call is announced in Kafka before
    it is made, one at a time in each worker, never repeated, and every doubt is parked as `unknown`. `already` names
    statuses that say that the effect is there: 409 for a key that is known, 404 for what was deleted before.

    Other 4xx are the record's failure, with the answer's beginning in the dead letter; 429, and 503 that says when, are
    waited for; what does not answer pauses the sink, and nothing becomes dead from it. `concurrency` calls are in
    flight at most, one key in order. `ca_file`: authorities, in PEM, in place of the system's. `client_certificate`:
    for mutual TLS.

    `on_tombstone`: a DELETE for entities that are gone, whose path has fields of the contract's key in braces, or
    "ignore". Without it a tombstone is parked.

    `emits` and `from_answer`: what the target answers, a remote id say, becomes an event of that contract, written in
    the transaction of the sink's offsets."""

    def __init__(
        self,
        name: str,
        *,
        reads: type[R],
        url: str,
        call: Endpoint[R] | Callable[[R], HttpCall | None] | Callable[[R, Event[R]], HttpCall | None],
        owner: str,
        auth: Auth | None = None,
        idempotency: IdempotencyKey | None = None,
        look_up: LookUp | None = None,
        already: Collection[int] = (),
        at_most_once: bool = False,
        on_tombstone: Endpoint[R] | Literal["park", "ignore"] = "park",
        emits: type[W] | None = None,
        from_answer: Callable[[R, HttpAnswer], W | Iterable[W] | None] | None = None,
        headers: Mapping[str, str] | None = None,
        hosts: Collection[str] = (),
        concurrency: int = 16,
        deadlines: Deadlines = Deadlines(),  # noqa: B008 - frozen
        ca_file: str = "",
        client_certificate: ClientCertificate | None = None,
        runbook: str = "",
        order: Order = "park",
        on_failure: OnFailure = DEFAULT,
        regulated: bool = False,
        start: Start = "earliest",
    ) -> None:
        super().__init__(name, owner=owner, runbook=runbook)
        self.reads = reads
        self.at_most_once = at_most_once
        self.emits = emits
        self.on_tombstone = "delete" if isinstance(on_tombstone, Endpoint) else on_tombstone
        self.auth = auth
        self.order = order
        self.on_failure = on_failure
        self.regulated = regulated
        self.start = start
        if at_most_once and (idempotency is not None or look_up is not None or emits is not None):
            raise UsageError(
                f"sink {name}: at_most_once= stands beside idempotency=, look_up= or emits=",
                hint="a call that may be repeated needs none; an answer that is lost cannot be asked for again",
            )
        if idempotency is None and look_up is None and not at_most_once:
            raise UsageError(
                f"sink {name}: neither idempotency= nor look_up= is given, so that a retry could take effect twice",
                hint="idempotency=IdempotencyKey(header=…) where the API takes a key, else look_up=LookUp(…); "
                "for an API that has neither: at_most_once=True",
            )
        if not 1 <= concurrency <= 256:
            raise UsageError(f"sink {name}: concurrency is {concurrency}, and has to be from 1 to 256")
        parsed = _base(name, url)
        contract = contract_of(cast(type, reads))
        self.target = Target(
            name=name,
            url=url.rstrip("/"),
            call=maker_of(name, call, contract),
            key=idempotency,
            look_up=None if look_up is None else (look_up.maker(name, contract), look_up.found),
            already=frozenset(already),
            headers={"User-Agent": f"heddle/{name}", **(headers or {})},
            policy=on_failure,
            delete=on_tombstone.deleter(name, contract) if isinstance(on_tombstone, Endpoint) else None,
            at_most_once=at_most_once,
            telling=_telling(name, emits, from_answer),
        )
        self.clock: CallClock = SYSTEM
        self._hosts = (parsed.host, *hosts, *(auth.hosts if auth is not None else ()))
        self._concurrency = concurrency
        self._deadlines = deadlines
        self._ca_file = ca_file
        self._client_certificate = client_certificate

    def pruned_before(self) -> datetime | None:
        """See `heddle rewind`: of what took effect earlier the target no longer keeps the key, and it would take effect
        again, as all would where nothing is repeated. Where all is looked up, nothing is forgotten."""
        if self.at_most_once:
            return datetime.now(UTC)
        key = self.target.key
        return None if key is None else datetime.now(UTC) - key.kept

    def open(self) -> HttpWriter[R]:
        """Connects with the first call, not here."""
        tls = Tls(f"sink {self.name}", self._ca_file, self._client_certificate)

        def client() -> Client:
            return Client(Guard(self._hosts), self.auth, self._deadlines, tls, self._concurrency, self.clock)

        return HttpWriter(self.target, client, self._concurrency, self.order, self.on_failure.breaker.keys)


def _telling(name: str, emits: type[Any] | None, from_answer: Callable[..., Any] | None) -> Telling | None:
    if emits is None and from_answer is None:
        return None
    if emits is None or from_answer is None:
        raise UsageError(
            f"sink {name}: of emits= and from_answer= only one is given",
            hint="name the contract, and the function of value and answer that makes an event of it",
        )
    if not callable(from_answer) or inspect.iscoroutinefunction(from_answer):
        raise UsageError(f"sink {name}: from_answer= is no plain function")
    return Telling(name, contract_of(emits), from_answer)


def _base(name: str, url: str) -> httpx2.URL:
    try:
        parsed = httpx2.URL(url)
    except httpx2.InvalidURL:
        parsed = httpx2.URL("")
    if parsed.scheme not in ("https", "http") or not parsed.host or parsed.query or parsed.fragment:
        raise UsageError(f"sink {name}: url= is no address of an API", hint="write it as https://api.example.com/v2")
    if parsed.userinfo:
        raise UsageError(f"sink {name}: url= holds credentials", hint="give them as auth=Basic(user, secret(…))")
    return parsed
