"""A registry with the Confluent REST API: Confluent's own, Apicurio, Karapace and others.

Deviations of Apicurio that this client lives with: its default level is NONE (we set each subject's); a subject
without a level answers 40401 in place of 40408, or with the global level; a refused schema's message is a Java
exception (shortened here)."""

from __future__ import annotations

import re
import ssl
import threading
import time
from base64 import b64encode
from collections.abc import Generator
from typing import Any, Final
from urllib.parse import quote

import httpx2
import orjson
import stamina

from heddle.contracts.contract import Contract
from heddle.contracts.registry import COMPATIBILITY, IncompatibleError, NotRegisteredError, verdict
from heddle.errors import AuthError, ContractError, DependencyDownError, UnknownSchemaIdError, UsageError
from heddle.secrets import Secret, secret
from heddle.settings import Settings

_CONTENT_TYPE: Final = "application/vnd.schemaregistry.v1+json"
_ATTEMPTS: Final = 3
_UNKNOWN_ID_TTL_S: Final = 5.0
_UNKNOWN_IDS_KEPT: Final = 10_000
# Subject, version, schema, subject's compatibility level.
_NOT_FOUND: Final = frozenset({40401, 40402, 40403, 40408})


class ConfluentRegistry:
    """May be shared between threads. Call `close` when done."""

    def __init__(self, settings: Settings, *, timeout_s: float = 5.0) -> None:
        self._url = settings.registry_url.rstrip("/")
        self._client = httpx2.Client(
            base_url=self._url,
            auth=_auth(settings),
            verify=_trust(settings.registry_ca) if settings.registry_ca else True,
            timeout=timeout_s,
            headers={"Content-Type": _CONTENT_TYPE, "Accept": f"{_CONTENT_TYPE}, application/json"},
        )
        self._lock = threading.Lock()
        self._schemas: dict[int, dict[str, Any]] = {}
        self._ids: dict[tuple[str, str], int] = {}
        self._unknown_until: dict[int, float] = {}

    def schema(self, schema_id: int) -> dict[str, Any]:
        known = self._schemas.get(schema_id)
        if known is not None:
            return known
        if time.monotonic() >= self._unknown_until.get(schema_id, 0.0):
            status, answer = self._call("GET", f"/schemas/ids/{schema_id}")
            if status == 200:
                with self._lock:
                    return self._schemas.setdefault(schema_id, _schema_in(answer))
            # A flood of foreign records must not become a flood of requests, nor fill the memory.
            if len(self._unknown_until) >= _UNKNOWN_IDS_KEPT:
                self._unknown_until.clear()
            self._unknown_until[schema_id] = time.monotonic() + _UNKNOWN_ID_TTL_S
        raise UnknownSchemaIdError(
            f"the registry has no schema {schema_id}", hint="was the record written against another registry?"
        )

    def id_of(self, contract: Contract) -> int:
        key = (contract.subject, contract.fingerprint)
        if key not in self._ids:
            status, answer = self._call("POST", f"/subjects/{_escaped(contract.subject)}", {"schema": contract.text})
            if status != 200:
                raise NotRegisteredError(contract.subject)
            self._ids[key] = int(answer["id"])
        return self._ids[key]

    def register(self, contract: Contract) -> int:
        path = f"/subjects/{_escaped(contract.subject)}/versions"
        status, answer = self._call("POST", path, {"schema": contract.text})
        if status != 200:
            raise IncompatibleError(
                f"subject {contract.subject}: {_message(answer)}",
                hint="make the change compatible, or start the next major version in its own file",
            )
        return int(answer["id"])

    def check(self, contract: Contract) -> list[str]:
        versions = self.versions(contract.subject)
        if not versions:
            return []
        problems = verdict(self.schema_of(contract.subject, versions[-1]), contract.root)
        if problems:
            return problems
        path = f"/compatibility/subjects/{_escaped(contract.subject)}/versions/latest?verbose=true"
        status, answer = self._call("POST", path, {"schema": contract.text})
        if status == 200 and answer.get("is_compatible", False):
            return []
        return [_message(answer)] if status != 200 else answer.get("messages") or ["the registry does not say why"]

    def versions(self, subject: str) -> list[int]:
        status, answer = self._call("GET", f"/subjects/{_escaped(subject)}/versions")
        return sorted(answer) if status == 200 else []

    def schema_of(self, subject: str, version: int) -> dict[str, Any]:
        status, answer = self._call("GET", f"/subjects/{_escaped(subject)}/versions/{version}")
        if status != 200:
            raise NotRegisteredError(subject, f"version {version}")
        return _schema_in(answer)

    def compatibility(self, subject: str) -> str | None:
        status, answer = self._call("GET", f"/config/{_escaped(subject)}")
        return str(answer["compatibilityLevel"]) if status == 200 else None

    def set_compatibility(self, subject: str, level: str = COMPATIBILITY) -> None:
        status, answer = self._call("PUT", f"/config/{_escaped(subject)}", {"compatibility": level})
        if status != 200:
            raise ContractError(f"subject {subject}: compatibility {level} refused: {_message(answer)}")

    def close(self) -> None:
        self._client.close()

    def _call(self, method: str, path: str, body: object = None) -> tuple[int, Any]:
        """Status and decoded answer of 200, 404, 409 and 422. All else is an exception."""
        content = orjson.dumps(body) if body is not None else None
        try:
            for attempt in stamina.retry_context(
                on=httpx2.TransportError, attempts=_ATTEMPTS, wait_initial=0.05, wait_max=0.5, timeout=10.0
            ):
                with attempt:
                    response = self._client.request(method, path, content=content)
        except httpx2.TransportError as error:
            raise self._down(type(error).__name__) from error
        status = response.status_code
        if status in (401, 403):
            raise AuthError(
                f"the registry at {self._url} refuses us (HTTP {status})",
                hint="check HEDDLE_REGISTRY_USER and HEDDLE_REGISTRY_PASSWORD (or _PASSWORD_SECRET)",
            )
        try:
            answer = orjson.loads(response.content)
        except ValueError as error:
            raise self._down(f"HTTP {status} without JSON; is this a registry's address?") from error
        # A 404 of another kind is a wrong address, and must not turn every record into one of unknown schema.
        unknown = status == 404 and isinstance(answer, dict) and answer.get("error_code") not in _NOT_FOUND
        if unknown or status not in (200, 404, 409, 422):
            raise self._down(f"HTTP {status}; is this a registry's address?" if status < 500 else f"HTTP {status}")
        return status, answer

    def _down(self, why: str) -> DependencyDownError:
        return DependencyDownError(
            f"the registry at {self._url} does not answer: {why}", hint="is it up? see `heddle status`"
        )


class _RotatingAuth(httpx2.Auth):
    """Basic authentication with the password of this moment; one that is refused is asked for anew, once."""

    def __init__(self, user: str, password: Secret) -> None:
        self._user = user
        self._password = password

    def auth_flow(self, request: httpx2.Request) -> Generator[httpx2.Request, httpx2.Response, None]:
        password = self._password.resolve()
        response = yield self._signed(request, password)
        if response.status_code == 401:
            self._password.refresh()
            renewed = self._password.resolve()
            if renewed != password:
                yield self._signed(request, renewed)

    def _signed(self, request: httpx2.Request, password: str) -> httpx2.Request:
        request.headers["Authorization"] = "Basic " + b64encode(f"{self._user}:{password}".encode()).decode()
        return request


def _auth(settings: Settings) -> httpx2.Auth | None:
    if not settings.registry_user:
        return None
    if settings.registry_password_secret:
        return _RotatingAuth(settings.registry_user, secret(settings.registry_password_secret))
    password = settings.registry_password.get_secret_value() if settings.registry_password else ""
    return httpx2.BasicAuth(settings.registry_user, password)


def _trust(ca_file: str) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca_file)
    except OSError as error:
        raise UsageError(f"HEDDLE_REGISTRY_CA: {ca_file} is not readable as PEM certificates: {error}") from error


def _escaped(subject: str) -> str:
    return quote(subject, safe="")


def _schema_in(answer: dict[str, Any]) -> dict[str, Any]:
    if answer.get("schemaType", "AVRO") != "AVRO":
        raise ContractError(f"the schema is {answer['schemaType']}, not Avro")
    schema = orjson.loads(answer["schema"])
    return schema if isinstance(schema, dict) else {"type": schema}


def _message(answer: Any) -> str:
    """The registry's reason, without the Java around it."""
    text = str(answer.get("message", "refused")) if isinstance(answer, dict) else "refused"
    return re.sub(r"^(?:[a-z]\w*\.)+[A-Z]\w*(?:Exception|Error):\s*", "", text.strip().partition("\n")[0])
