"""A declared source with its secrets read: what one request path needs to decide without asking anything else."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from opentelemetry.sdk.trace.id_generator import RandomIdGenerator

from heddle.broker.log import Outgoing
from heddle.errors import UsageError
from heddle.event import TRACEPARENT, valid_traceparent
from heddle.sources.delivery import Delivery, text_at
from heddle.sources.gateway.responses import Refusal, Response, Scope, text, unavailable
from heddle.sources.handshakes import ChallengeError, EchoBody, EchoQuery
from heddle.sources.raw import body_id, raw_record, usable_id
from heddle.sources.signatures import SignatureError, SignedRequest, Verified, Verifier
from heddle.sources.webhook import WebhookSource

Routes = Mapping[str, "Route"]

_ids = RandomIdGenerator()


def load_routes(sources: Iterable[WebhookSource]) -> Routes:
    """By path, secrets read now. Raises `UsageError` for a path that two sources claim or a secret without value."""
    routes: dict[str, Route] = {}
    for source in sources:
        if source.path in routes:
            other = routes[source.path].source.name
            raise UsageError(
                f"sources {other} and {source.name} both claim {source.path}", hint="give each its own path"
            )
        routes[source.path] = Route.load(source)
    return routes


@dataclass(frozen=True)
class Route:
    """Each step raises `Refusal` with the right status. `verifier` is None while it is closed: `closed_for` says
    why."""

    source: WebhookSource
    verifier: Verifier | None
    tokens: tuple[str, ...] = dataclasses.field(repr=False)
    closed_for: str = ""

    @classmethod
    def load(cls, source: WebhookSource) -> Route:
        tokens = source.handshake.tokens() if isinstance(source.handshake, EchoQuery) else ()
        return cls(source, source.signature.load(), tokens)

    def closed(self, why: str) -> Route:
        """The same source without secrets: it takes nothing. `why`: the reason that its refusals are counted under."""
        return dataclasses.replace(self, verifier=None, tokens=(), closed_for=why)

    def check_open(self) -> None:
        if self.verifier is None:
            raise unavailable(self.closed_for)

    def challenge_in_query(self, scope: Scope) -> Response | None:
        """The answer to an unsigned handshake, if this request is one."""
        handshake = self.source.handshake
        if not isinstance(handshake, EchoQuery) or not scope["query_string"]:
            return None
        try:
            answer = handshake.answer(scope["query_string"].decode("latin-1"), self.tokens)
        except ChallengeError:
            raise Refusal(401, "bad-challenge") from None
        return text(*answer) if answer is not None else None

    def challenge_in_body(self, body: bytes) -> Response | None:
        """The answer to a signed handshake, if this request is one."""
        handshake = self.source.handshake
        if not isinstance(handshake, EchoBody):
            return None
        try:
            answer = handshake.answer(body)
        except ChallengeError:
            raise Refusal(400, "bad-challenge") from None
        return text(*answer) if answer is not None else None

    def check_method(self, method: str) -> None:
        if method != "POST":
            allow = b"GET, POST" if isinstance(self.source.handshake, EchoQuery) else b"POST"
            raise Refusal(405, "wrong-method", (b"allow", allow))

    def check_content(self, headers: Mapping[str, str]) -> None:
        """Declared content types only, and never a compressed body: signatures and limits are over raw bytes."""
        if headers.get("content-encoding", "identity") != "identity":
            raise Refusal(415, "content-encoding", (b"accept-encoding", b"identity"))
        allowed = self.source.content_types
        if allowed and headers.get("content-type", "").partition(";")[0].strip().lower() not in allowed:
            raise Refusal(415, "content-type")

    def prove(self, request: SignedRequest, now: float) -> Verified:
        assert self.verifier is not None, "check_open comes first"
        try:
            return self.verifier.verify(request, now)
        except SignatureError as error:
            raise Refusal(401, error.reason.value) from None

    def record(self, request: SignedRequest, verified: Verified, now: float) -> Outgoing:
        return raw_record_of(self.source, request, verified.delivery_id, now)


def raw_record_of(source: WebhookSource, request: SignedRequest, delivery_id: str | None, now: float) -> Outgoing:
    """What is kept of a request. `delivery_id`: as its signature's headers name it. The key is None where the declared
    entity is not found."""
    headers = request.headers
    kept = {name: headers[name] for name in source.kept_headers if name in headers}
    delivery = Delivery(request.body, kept, datetime.fromtimestamp(now, UTC), source.name, delivery_id or "")
    entity = text_at(delivery, source.entity) if source.entity is not None else None
    vendor_id = text_at(delivery, source.delivery_id) if source.delivery_id is not None else delivery_id
    identity = vendor_id if usable_id(vendor_id) else body_id(source.name, request.body)
    named = dataclasses.replace(delivery, id=identity)
    return raw_record(source.raw_topic, named, source.tenant, entity, trace_of(headers))


def trace_of(headers: Mapping[str, str]) -> bytes:
    """The caller's trace context where it is valid, else the beginning of a new, unsampled trace."""
    given = headers.get(TRACEPARENT, "").encode("latin-1")
    if valid_traceparent(given) and given[3:35].strip(b"0") and given[36:52].strip(b"0"):
        return given
    return b"00-%032x-%016x-00" % (_ids.generate_trace_id(), _ids.generate_span_id())
