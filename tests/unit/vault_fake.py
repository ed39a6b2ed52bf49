"""A stand-in for Vault's HTTP interface, as far as our provider uses it. tests/unit/test_secrets_vault.py holds it to
what a real OpenBao does, where that is installed (`make stores-test`)."""

from __future__ import annotations

import itertools
import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from secret_http import Answer, Request

ROOT = "root-token"


@dataclass
class Version:
    value: dict[str, Any]
    created: datetime
    deletion: datetime | None = None
    destroyed: bool = False

    def metadata(self, number: int) -> dict[str, Any]:
        return {
            "created_time": _time(self.created),
            "custom_metadata": None,
            "deletion_time": _time(self.deletion) if self.deletion else "",
            "destroyed": self.destroyed,
            "version": number,
        }

    @property
    def is_gone(self) -> bool:
        return self.destroyed or (self.deletion is not None and self.deletion <= datetime.now(UTC))


@dataclass
class Token:
    ttl_s: int
    renewable: bool = True


@dataclass
class FakeVault:
    """State is public: tests put it as they need it. `log`: (method, path) of all that was asked."""

    secrets: dict[str, list[Version]] = field(default_factory=dict)
    tokens: dict[str, Token] = field(default_factory=lambda: {ROOT: Token(0, renewable=False)})
    secret_ids: set[tuple[str, str]] = field(default_factory=set)
    accounts: set[tuple[str, str]] = field(default_factory=set)
    credentials: dict[str, int] = field(default_factory=dict)
    token_ttl_s: int = 3600
    sealed: bool = False
    log: list[tuple[str, str]] = field(default_factory=list)
    _numbers: itertools.count[int] = field(default_factory=itertools.count)

    def answer(self, request: Request) -> Answer:
        path = request.path.removeprefix("/v1/")
        self.log.append((request.method, path))
        if self.sealed:
            return _errors(503, "Vault is sealed")
        match path.split("/"):
            case ["auth", "approle", "login"]:
                given = request.json()
                known = (given["role_id"], given["secret_id"]) in self.secret_ids
                return self._login() if known else _errors(400, "invalid role or secret ID")
            case ["auth", "kubernetes", "login"]:
                known = (request.json()["role"], request.json()["jwt"]) in self.accounts
                return self._login() if known else _errors(403, "permission denied")
        token = self.tokens.get(request.headers.get("x-vault-token", ""))
        if token is None:
            return _errors(403, "permission denied")
        match path.split("/"):
            case ["auth", "token", "lookup-self"]:
                return _data({"ttl": token.ttl_s, "renewable": token.renewable})
            case ["auth", "token", "renew-self"]:
                if not token.renewable:
                    return _errors(400, "lease is not renewable")
                return _auth(request.headers["x-vault-token"], token)
            case ["secret", "data", "hidden", *_] if token.ttl_s:
                return _errors(403, "1 error occurred:\n\t* permission denied\n\n")
            case ["secret", "data", *name]:
                return self._read("/".join(name), request.query.get("version"))
            case ["database", "creds", role] if role in self.credentials:
                return self._lease(role)
            case ["database", *_]:
                return _errors(404)
        return _errors(404, f'no handler for route "{path}". route entry not found.')

    def _login(self) -> Answer:
        text = f"hvs.{uuid.uuid4().hex}"
        self.tokens[text] = Token(self.token_ttl_s)
        return _auth(text, self.tokens[text])

    def _read(self, name: str, number: str | None) -> Answer:
        versions = self.secrets.get(name, [])
        wanted = int(number) if number else len(versions)
        if not 1 <= wanted <= len(versions):
            return _errors(404)
        version = versions[wanted - 1]
        data = None if version.is_gone else version.value
        return Answer(404 if version.is_gone else 200, _body({"data": data, "metadata": version.metadata(wanted)}))

    def _lease(self, role: str) -> Answer:
        number = next(self._numbers)
        data = {"username": f"v-{role}-{number}", "password": f"p/{number}@{uuid.uuid4().hex}"}
        body = _body(data) | {"lease_id": f"database/creds/{role}/lease{number}", "renewable": True}
        return Answer(200, body | {"lease_duration": self.credentials[role]})


def version(value: str, age: timedelta = timedelta(), **more: Any) -> Version:
    return Version({"value": value}, datetime.now(UTC) - age, **more)


def _body(data: Any) -> dict[str, Any]:
    return {"request_id": str(uuid.uuid4()), "lease_id": "", "renewable": False, "lease_duration": 0, "data": data} | {
        "wrap_info": None, "warnings": None, "auth": None,
    }  # fmt: skip


def _data(data: Any) -> Answer:
    return Answer(200, _body(data))


def _auth(text: str, token: Token) -> Answer:
    auth = {"client_token": text, "lease_duration": token.ttl_s, "renewable": token.renewable}
    return Answer(200, _body(None) | {"auth": auth})


def _errors(status: int, *texts: str) -> Answer:
    return Answer(status, {"errors": list(texts)})


def _time(moment: datetime) -> str:
    """With nine digits, as Vault writes it."""
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%f") + "000Z"
