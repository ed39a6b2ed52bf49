"""Google Secret Manager: `ledger/dsn` is the secret `ledger--dsn`, its version the number of the latest one.

One request of its REST interface; google-auth finds the credentials (GOOGLE_APPLICATION_CREDENTIALS, workload identity,
the machine's service account) and renews them. Google's own client for this service would bring gRPC along."""

from __future__ import annotations

import base64
from typing import Any, Literal

from heddle.errors import AuthError, DependencyDownError, UsageError
from heddle.secrets.provider import (
    CONNECT_TIMEOUT_S,
    READ_TIMEOUT_S,
    Found,
    StoreOptions,
    Surroundings,
    flat_name,
    sdk,
)

_SCOPE = "https://www.googleapis.com/auth/cloud-platform"


class GcpOptions(StoreOptions):
    provider: Literal["gcp"]
    project: str
    """Its id, or `<id>/locations/<region>` with the region's endpoint."""
    endpoint: str = "https://secretmanager.googleapis.com"

    def made(self, _: Surroundings) -> Gcp:
        return Gcp(self)


class Gcp:
    """One thread at a time."""

    name = "gcp"

    def __init__(self, options: GcpOptions) -> None:
        self._options = options
        self._session: Any = None

    def look_up(self, name: str) -> Found | None:
        flat = flat_name(name)
        if flat is None:
            return None
        address = f"{self._options.endpoint.rstrip('/')}/v1/{self._path(flat)}/versions/latest:access"
        response = self._asked(address)
        status = response.status_code
        if status == 200:
            answer = response.json()
            return Found(_text(name, answer["payload"]["data"]), answer["name"].rpartition("/")[2])
        if status == 404 or (status == 400 and "FAILED_PRECONDITION" in response.text):  # disabled or destroyed
            return None
        if status in (401, 403):
            raise AuthError(
                f"Google Secret Manager refuses secret {name}: HTTP {status}",
                hint="give the process's service account the role Secret Manager Secret Accessor",
            )
        raise DependencyDownError(f"Google Secret Manager does not answer for {name}: HTTP {status}")

    def advice(self, name: str) -> str:
        flat = flat_name(name)
        if flat is None:
            return "give it a name without double hyphens, for Google"
        return f"gcloud secrets create {flat} --data-file=-"

    def _path(self, flat: str) -> str:
        return f"projects/{self._options.project.strip('/')}/secrets/{flat}"

    def _asked(self, address: str) -> Any:
        google = sdk("google.auth.exceptions", "gcp")
        try:
            return self._opened().get(
                address, timeout=(CONNECT_TIMEOUT_S, READ_TIMEOUT_S), max_allowed_time=READ_TIMEOUT_S
            )
        except google.DefaultCredentialsError:
            raise AuthError(
                "Google: no credentials",
                hint="give the process a service account, or set GOOGLE_APPLICATION_CREDENTIALS",
            ) from None
        except google.RefreshError as error:
            if error.retryable:
                raise DependencyDownError("Google's token service does not answer") from None
            raise AuthError("Google refuses our credentials", hint="renew the service account's key") from None
        except (google.GoogleAuthError, sdk("requests", "gcp").RequestException) as error:
            raise DependencyDownError(f"Google Secret Manager does not answer: {type(error).__name__}") from None

    def _opened(self) -> Any:
        if self._session is None:
            credentials, _ = sdk("google.auth", "gcp").default(scopes=[_SCOPE])
            self._session = sdk("google.auth.transport.requests", "gcp").AuthorizedSession(credentials)
        return self._session


def _text(name: str, data: str) -> str:
    try:
        return base64.b64decode(data, validate=True).decode()
    except ValueError:
        raise UsageError(
            f"Google: secret {name} is not UTF-8 text", hint="store binary keys as base64 or hex"
        ) from None
