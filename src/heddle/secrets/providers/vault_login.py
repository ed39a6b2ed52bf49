"""A client of Vault that is logged in: by token, AppRole or a Kubernetes service account; renewed, and made anew."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, Self, TypeVar

from pydantic import Field, model_validator

from heddle.errors import UsageError
from heddle.secrets.provider import CONNECT_TIMEOUT_S, READ_TIMEOUT_S, StoreOptions, sdk
from heddle.secrets.redaction import remember

R = TypeVar("R")

_SERVICE_ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount/token"


class LoginOptions(StoreOptions):
    """`address`, `namespace` and `ca` are also read from VAULT_ADDR, VAULT_NAMESPACE and VAULT_CACERT."""

    address: str = ""
    namespace: str = ""
    ca: str = Field("", description="file of the authorities that sign the server's certificate")
    auth: Literal["token", "approle", "kubernetes"] = "token"
    auth_mount: str = Field("", description="empty: as the method is called")
    role: str = Field("", description="for kubernetes")
    service_account: str = Field(_SERVICE_ACCOUNT, description="file of the pod's token, for kubernetes")

    @model_validator(mode="after")
    def _has_role(self) -> Self:
        if self.auth == "kubernetes" and not self.role:
            raise ValueError("auth kubernetes needs a role")
        return self


@dataclass(frozen=True, slots=True)
class _Login:
    """`given`: the token that we were handed, "" where we asked for one. `ttl_s`: 0 where it never ends."""

    given: str
    ttl_s: float
    renewable: bool
    at: float


class VaultLogin:
    """One thread at a time."""

    def __init__(self, options: LoginOptions, earlier: Callable[[str], str], clock: Callable[[], float]) -> None:
        self._options = options
        self._earlier = earlier
        self._clock = clock
        self._login: _Login | None = None
        self.exceptions = sdk("hvac.exceptions", "vault")
        self.client = sdk("hvac", "vault").Client(
            url=options.address,
            token="",  # none, and not what hvac would find by itself
            namespace=options.namespace or os.environ.get("VAULT_NAMESPACE"),
            verify=options.ca or None,
            timeout=(CONNECT_TIMEOUT_S, READ_TIMEOUT_S),
        )

    @property
    def is_refused(self) -> bool:
        """Whether the last thing that failed was to log in."""
        return self._login is None

    def run(self, read: Callable[[], R]) -> R:
        """Logged in. A login that stopped being good is made anew, once: tokens end, and are revoked."""
        is_new = self._prepare()
        try:
            return read()
        except self.exceptions.Forbidden:
            if is_new:
                raise
        self._log_in()
        return read()

    def _prepare(self) -> bool:
        """Whether the login is new. Half of a token's life is a good time to renew it."""
        login = self._login
        if login is None or (self._options.auth == "token" and login.given != self._earlier("vault/token")):
            self._log_in()
            return True
        if not login.ttl_s or self._clock() - login.at <= login.ttl_s / 2 or self._is_renewed(login):
            return False
        self._log_in()
        return True

    def _is_renewed(self, login: _Login) -> bool:
        if not login.renewable:
            return False
        at = self._clock()
        try:
            answer = self.client.auth.token.renew_self()["auth"]
        except (self.exceptions.Forbidden, self.exceptions.InvalidRequest):  # at the end of what it may live
            return False
        self._login = replace(login, ttl_s=float(answer["lease_duration"]), renewable=bool(answer["renewable"]), at=at)
        return True

    def _log_in(self) -> None:
        options, auth, at = self._options, self.client.auth, self._clock()
        self._login = None
        self.client.token = ""
        if options.auth == "token":
            given = self.client.token = self._earlier("vault/token")
            found = auth.token.lookup_self()["data"]
            self._login = _Login(given, float(found["ttl"]), bool(found.get("renewable")), at)
            return
        if options.auth == "approle":
            role_id, secret_id = self._earlier("vault/role-id"), self._earlier("vault/secret-id")
            answer = auth.approle.login(role_id, secret_id, mount_point=options.auth_mount or "approle")["auth"]
        else:
            account, mount = _service_account(options.service_account), options.auth_mount or "kubernetes"
            answer = auth.kubernetes.login(options.role, account, mount_point=mount)["auth"]
        remember(answer["client_token"])
        self._login = _Login("", float(answer["lease_duration"]), bool(answer["renewable"]), at)


def _service_account(path: str) -> str:
    try:
        token = Path(path).read_text(encoding="utf-8").strip()
    except OSError as error:
        raise UsageError(
            f"the pod's token {path} cannot be read: {error.strerror}",
            hint="run in Kubernetes with a service account, or choose another `auth` of the provider vault",
        ) from error
    remember(token)
    return token
