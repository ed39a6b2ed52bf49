"""The webhook source: a path on the gateway, a signature, and a converter from raw deliveries to contract events."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any

from heddle.broker.log import Record
from heddle.errors import ContractError, UsageError
from heddle.event import Draft, parse_headers
from heddle.integration import Source
from heddle.on_failure import DEFAULT, OnFailure, Order
from heddle.sources.delivery import Delivery, Header, MalformedJsonError, Where
from heddle.sources.handshakes import EchoBody, EchoQuery, Handshake
from heddle.sources.raw import delivery_of
from heddle.sources.signatures import Scheme, Slack

Converter = Callable[[Delivery], Iterable[Draft[Any]]]

NEVER_KEPT = frozenset({"authorization", "proxy-authorization", "cookie", "set-cookie", "x-api-key"})
ALWAYS_KEPT = ("content-type",)
GATEWAY_PATHS = frozenset({"/healthz", "/readyz", "/statusz"})

_PATH = re.compile(r"(/[A-Za-z0-9._~-]+)+")


class WebhookSource(Source):
    """Deliveries of one source system.

    `convert` makes 0..n drafts of each delivery, later, as a subscription over the raw topic; what it raises parks
    that delivery. `entity` says where the id of the business entity stands: it becomes the key of the raw record,
    so that deliveries of one entity stay in order (without it order rests on versions). `delivery_id` says where the
    vendor's id stands when the scheme does not know. `keep_headers` are kept beside the scheme's own; credentials and
    signatures never are. `content_types` restricts what is accepted (415). `handshake` answers challenges.

    Raises `UsageError` for a declaration that cannot be right."""

    def __init__(
        self,
        name: str,
        *,
        path: str,
        signature: Scheme,
        emits: type | tuple[type, ...],
        convert: Converter,
        owner: str,
        runbook: str = "",
        entity: Where | None = None,
        tenant: str = "default",
        delivery_id: Where | None = None,
        keep_headers: tuple[str, ...] = (),
        content_types: tuple[str, ...] = (),
        handshake: Handshake | None = None,
        order: Order = "park",
        on_failure: OnFailure = DEFAULT,
        regulated: bool = False,
    ) -> None:
        super().__init__(name, owner=owner, runbook=runbook)
        self.path = _checked_path(name, path)
        self.signature = signature
        self.emits = emits if isinstance(emits, tuple) else (emits,)
        self.convert = convert
        self.entity = entity
        self.tenant = tenant
        self.delivery_id = delivery_id if delivery_id is not None else signature.id_path
        wanted = (*ALWAYS_KEPT, *signature.kept_headers, *_header_names(entity, delivery_id), *keep_headers)
        self.kept_headers = _checked_headers(name, wanted, signature)
        self.content_types = frozenset(content_type.lower() for content_type in content_types)
        self.handshake = handshake if handshake is not None else _usual_handshake(signature)
        self.order = order
        self.on_failure = on_failure
        self.regulated = regulated

    @property
    def secret_names(self) -> frozenset[str]:
        """What the gateway verifies its deliveries and handshakes with."""
        token = self.handshake.token if isinstance(self.handshake, EchoQuery) else None
        return frozenset({self.signature.secret.name, *([token.name] if token is not None else ())})

    def convert_record(self, record: Record) -> Iterable[Draft[Any]]:
        if record.value is None:
            raise ContractError("the raw record holds no delivery", hint="only the gateway writes to a raw topic")
        parsed = parse_headers(record.headers, record.topic, record.partition, record.offset, record.timestamp_ms)
        return self.convert(delivery_of(self.name, record.value, parsed))


def _usual_handshake(signature: Scheme) -> Handshake | None:
    return EchoBody("challenge", when=("type", "url_verification")) if isinstance(signature, Slack) else None


def _header_names(*places: Where | None) -> tuple[str, ...]:
    return tuple(place.name for place in places if isinstance(place, Header))


def _checked_path(source: str, path: str) -> str:
    if not _PATH.fullmatch(path):
        raise UsageError(f"source {source}: path {path!r} is not like /hooks/crm", hint="no query, no trailing slash")
    if path in GATEWAY_PATHS:
        raise UsageError(f"source {source}: {path} is the gateway's own", hint="choose another path")
    return path


def _checked_headers(source: str, names: Iterable[str], signature: Scheme) -> tuple[str, ...]:
    kept = frozenset(name.lower() for name in names)
    secret = kept & NEVER_KEPT.union(signature.signature_headers, signature.older_signature_headers)
    if secret:
        raise UsageError(
            f"source {source}: keep_headers names {', '.join(sorted(secret))}",
            hint="credentials and signatures never reach the raw topic",
        )
    return tuple(sorted(kept))


__all__ = [
    "Converter",
    "Delivery",
    "EchoBody",
    "EchoQuery",
    "Handshake",
    "Header",
    "MalformedJsonError",
    "WebhookSource",
]
