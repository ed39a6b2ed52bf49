"""HashiCorp Vault and OpenBao, through hvac: the KV engine, version 2, and credentials with a lease of any engine.

`ledger/dsn` is the field `value` of `<mount>/<prefix>/ledger/dsn`; its version is the store's. What `leases` names is
made for this process and ends with its lease, for example by the database engine:

    [tool.heddle.secrets.leases."ledger/dsn"]
    path = "database/creds/ledger"
    text = "postgresql://{username}:{password}@db:5432/ledger"

Our own credentials are secrets too, of the providers before: `vault/token`, or `vault/role-id` and `vault/secret-id`.
"""

from __future__ import annotations

import string
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Literal
from urllib.parse import quote

from pydantic import Field, field_validator

from heddle.errors import AuthError, DependencyDownError, UsageError
from heddle.secrets.provider import Found, Options, Surroundings, overlaps, sdk
from heddle.secrets.providers.vault_login import LoginOptions, VaultLogin
from heddle.secrets.redaction import remember

FIELD = "value"


class Lease(Options):
    """`path`: where credentials are made. `text`: the secret, with the answer's fields in braces; in an address (`://`)
    they are written as URLs need it."""

    path: str
    text: str

    @field_validator("text")
    @classmethod
    def _has_fields(cls, text: str) -> str:
        names = [name for _, name, _, _ in string.Formatter().parse(text) if name is not None]
        if not names or not all(name.isidentifier() for name in names):
            raise ValueError("needs fields such as {username} and {password}")
        return text


class VaultOptions(LoginOptions):
    provider: Literal["vault"]
    mount: str = Field("secret", description="of the KV engine, version 2")
    prefix: str = Field("", description="before each name: a project's own folder in the store")
    leases: dict[str, Lease] = Field(default_factory=dict, description="by secret: made for this process")

    def made(self, surroundings: Surroundings) -> Vault:
        return Vault(self, surroundings.earlier)


class Vault:
    """One thread at a time."""

    name = "vault"

    def __init__(
        self, options: VaultOptions, earlier: Callable[[str], str], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._options = options
        self._earlier = earlier
        self._clock = clock
        self._opened: VaultLogin | None = None

    def look_up(self, name: str) -> Found | None:
        if self._opened is None:
            self._opened = VaultLogin(self._options, self._earlier, self._clock)
        vault, lease = self._opened, self._options.leases.get(name)
        try:
            return vault.run(lambda: self._leased(vault, name, lease) if lease is not None else self._kept(vault, name))
        except Exception as error:
            # Not as its cause: hvac's errors hold what was sent.
            raise self._failure(vault, name, error) from None

    def advice(self, name: str) -> str:
        lease = self._options.leases.get(name)
        if lease is not None:
            return f"let Vault make credentials at {lease.path}"
        return f"vault kv put -mount={self._options.mount} {self._path(name)} {FIELD}=…"

    def _path(self, name: str) -> str:
        prefix = self._options.prefix.strip("/")
        return f"{prefix}/{name}" if prefix else name

    def _kept(self, vault: VaultLogin, name: str) -> Found | None:
        """Of the KV engine."""
        current = self._version(vault, name, None)
        if current is None:
            return None
        metadata = current["metadata"]
        number, ends = int(metadata["version"]), _moment(metadata.get("deletion_time"))
        previous = None
        if number > 1 and overlaps(_moment(metadata["created_time"])):
            previous = self._version(vault, name, number - 1)
        return Found(
            self._field(name, current["data"]),
            str(number),
            previous=str(previous["data"].get(FIELD, "")) if previous is not None else "",
            valid_s=None if ends is None else max(0.0, (ends - datetime.now(UTC)).total_seconds()),
        )

    def _version(self, vault: VaultLogin, name: str, number: int | None) -> dict[str, Any] | None:
        """Data and metadata; None for what is not there, was deleted or destroyed."""
        try:
            answer = vault.client.secrets.kv.v2.read_secret_version(
                self._path(name), version=number, mount_point=self._options.mount, raise_on_deleted_version=True
            )
        except vault.exceptions.InvalidPath as error:
            if "no handler for route" in str(error.errors):
                raise UsageError(
                    f"Vault has no engine at {self._options.mount}/", hint="correct `mount` of the provider vault"
                ) from None
            return None
        data: dict[str, Any] = answer["data"]
        if not isinstance(data.get("metadata"), dict) or not isinstance(data.get("data"), dict):
            raise UsageError(
                f"Vault's {self._options.mount}/ is no KV engine of version 2",
                hint=f"vault kv enable-versioning {self._options.mount}/",
            )
        return data

    def _field(self, name: str, fields: dict[str, Any]) -> str:
        value = fields.get(FIELD)
        if not isinstance(value, str):
            raise UsageError(
                f"Vault's {self._options.mount}/{self._path(name)} has no text in its field {FIELD}",
                hint=self.advice(name),
            )
        return value

    def _leased(self, vault: VaultLogin, name: str, lease: Lease) -> Found | None:
        """A new lease each time; the one before ends by itself."""
        answer = vault.client.read(lease.path)
        if answer is None:
            return None
        fields = {key: str(value) for key, value in answer["data"].items()}
        for value in fields.values():
            remember(value)
        written = {key: quote(value, safe="") for key, value in fields.items()} if "://" in lease.text else fields
        try:
            text = lease.text.format_map(written)
        except KeyError as error:
            raise UsageError(
                f"secret {name}: Vault's {lease.path} answers no field {error}",
                hint=f"it answers {', '.join(fields)}; correct `leases` of the provider vault",
            ) from None
        lease_s = float(answer["lease_duration"])
        if not lease_s:
            return Found(text)
        return Found(text, answer["lease_id"].rpartition("/")[2], fresh_s=lease_s * 2 / 3, valid_s=lease_s)

    def _failure(self, vault: VaultLogin, name: str, error: Exception) -> Exception:
        exceptions = vault.exceptions
        if isinstance(error, (exceptions.Forbidden, exceptions.Unauthorized, exceptions.InvalidRequest)):
            refused = "our login" if vault.is_refused else f"secret {name}"
            return AuthError(
                f"Vault refuses {refused}: {_words(error)}",
                hint=f"correct our credentials, or give their policy read on {self._path(name)}",
            )
        if isinstance(error, exceptions.VaultError):
            return DependencyDownError(
                f"Vault does not answer for secret {name}: {_words(error)}", hint="is it sealed?"
            )
        if isinstance(error, sdk("requests", "vault").RequestException):
            return DependencyDownError(
                f"Vault at {vault.client.url} does not answer: {type(error).__name__}",
                hint="is it up? see `address` and `ca` of the provider vault",
            )
        return error


def _words(error: Any) -> str:
    """The server's reasons in one line, without the address."""
    return " ".join(", ".join(error.errors or []).split()) or type(error).__name__


def _moment(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None
