"""`RestSource`: what an integrator declares."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import httpx2

from heddle.broker.log import Record
from heddle.errors import UsageError
from heddle.event import Draft
from heddle.http.auth import Auth
from heddle.http.guard import is_loopback
from heddle.http.oauth import RefreshToken
from heddle.http.rate import Pace
from heddle.http.tls import ClientCertificate, Tls
from heddle.integration import PulledSource, Puller
from heddle.on_failure import DEFAULT, OnFailure, Order
from heddle.sources.rest.announced import Announced
from heddle.sources.rest.puller import KeepingRestPuller, RestPuller
from heddle.sources.rest.records import drafts_of
from heddle.sources.rest.resource import IdDiff, Resource

MAX_TIMEOUT_S = 60.0
_CREDENTIALS = frozenset({"authorization", "proxy-authorization", "cookie", "x-api-key"})
_SEGMENT = re.compile(r"[^/]+")


@dataclass(frozen=True, slots=True)
class ApiVersion:
    """The version that was tested against. In a header or a parameter of each request, also of next pages by a URL that
    leaves it out; in neither, it is a part of the
    base URL's path: `ApiVersion("2026-01", header="X-Api-Version")`, `ApiVersion("v3")`."""

    value: str
    header: str = ""
    parameter: str = ""


class RestSource(PulledSource):
    """Rows of a polled HTTP API, JSON or GraphQL, as contract events.

    `base_url`: https, its path included; the only place that is asked. `version`: of the API; None says that it has
    none. `headers`: further ones of each request, no credentials: those are `auth`. `tenant`: begins the keys; rate
    limits are per resource of one source, so each tenant's source has its own. `timeout_s`: of one request, whole.
    `ca_file`: authorities, in PEM, in place of the system's. `client_certificate`: for APIs that want to see one.

    An event's id is made of resource name, row id and row version (without one: the whole row): a row that is read
    again unchanged has the same.

    Raises `UsageError` for a declaration that cannot be right."""

    def __init__(
        self,
        name: str,
        *,
        base_url: str,
        version: ApiVersion | None,
        resources: Sequence[Resource],
        emits: type | tuple[type, ...],
        owner: str,
        auth: Auth | None = None,
        headers: Mapping[str, str] | None = None,
        tenant: str = "default",
        timeout_s: float = 30.0,
        ca_file: str = "",
        client_certificate: ClientCertificate | None = None,
        runbook: str = "",
        order: Order = "park",
        on_failure: OnFailure = DEFAULT,
        regulated: bool = False,
    ) -> None:
        super().__init__(name, owner=owner, runbook=runbook)
        self.base_url = _checked_url(name, base_url, version)
        self.version = version
        self.resources = {resource.name: resource for resource in resources}
        if not resources or len(self.resources) != len(resources):
            raise UsageError(f"source {name}: resources= is empty or names one twice")
        compared = [resource.entity for resource in resources if isinstance(resource.follow, IdDiff)]
        if len(set(compared)) != len(compared):
            raise UsageError(f"source {name}: two resources compare the ids of one entity")
        if not 0 < timeout_s <= MAX_TIMEOUT_S:
            raise UsageError(f"source {name}: timeout_s has to be above zero and at most {MAX_TIMEOUT_S:g}")
        self.headers = dict(headers or {})
        if secret := _CREDENTIALS & {header.lower() for header in self.headers}:
            raise UsageError(f"source {name}: headers= holds {', '.join(sorted(secret))}", hint="that is for auth=")
        if version is not None and version.header:
            self.headers[version.header] = version.value
        self.pinned = {version.parameter: version.value} if version is not None and version.parameter else {}
        self.emits = emits if isinstance(emits, tuple) else (emits,)
        self.auth = auth
        self.tenant = tenant
        self.timeout_s = timeout_s
        self.ca_file = ca_file
        self.client_certificate = client_certificate
        self.order = order
        self.on_failure = on_failure
        self.regulated = regulated
        self._announced = Announced(name, httpx2.URL(base_url).host)
        self._paces: dict[str, Pace] = {}

    def announcements(self) -> list[tuple[str, str]]:
        """What the API says of its end, each with where it says more. Asks each resource for a first page; not with
        refresh tokens that rotate, of which the process that polls has the newest.

        Raises `DependencyDownError` or `AuthError`, and `UsageError` for a resource that cannot be polled."""
        if isinstance(self.auth, RefreshToken):
            return [("is not asked what it announces: only who polls may renew its token", "its log has announcements")]
        with closing(self._puller({})) as puller:
            puller.begin(None)
            return [(notice.told_of(path), more and f"see {more}") for path, notice, more in puller.announcements()]

    def open(self) -> Puller:
        self._announced.observed()
        return self._puller(self._paces)

    def _puller(self, paces: dict[str, Pace]) -> RestPuller:
        resources = list(self.resources.values())
        kind = KeepingRestPuller if any(isinstance(each.follow, IdDiff) for each in resources) else RestPuller
        return kind(
            self.name, self.base_url, self.auth, self.headers, self.pinned, resources, self.tenant, self.timeout_s,
            self._tls(), self._announced, paces,
        )  # fmt: skip

    def _tls(self) -> Tls:
        return Tls(f"source {self.name}", self.ca_file, self.client_certificate)

    def convert_record(self, record: Record) -> Iterable[Draft[Any]]:
        return drafts_of(record.value, {name: resource.convert for name, resource in self.resources.items()})


def _checked_url(source: str, base_url: str, version: ApiVersion | None) -> str:
    try:
        url = httpx2.URL(base_url)
    except (httpx2.InvalidURL, ValueError):
        raise UsageError(f"source {source}: base_url is no URL") from None
    if not url.host or url.query or url.fragment or url.userinfo:
        raise UsageError(f"source {source}: base_url is not like https://api.example.com/v3")
    if url.scheme != "https" and not (url.scheme == "http" and is_loopback(url.host)):
        raise UsageError(f"source {source}: base_url is not https", hint="plain http goes to this machine only")
    if version is not None and not (version.header or version.parameter) and (
        version.value not in _SEGMENT.findall(url.path)
    ):  # fmt: skip
        raise UsageError(
            f"source {source}: version {version.value!r} is no part of base_url's path",
            hint="put it there, or say which header= or parameter= carries it",
        )
    return base_url
