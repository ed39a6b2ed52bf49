"""Azure Key Vault through its own client: against a stand-in over TLS, the way of a managed identity included. Never
against Azure."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from secret_http import Answer, Request, serving
from secret_tls import self_signed

from heddle.errors import AuthError, DependencyDownError, UsageError
from heddle.secrets.providers.azure import Azure, AzureOptions

IDENTITY = "identity-header"
TOKEN = "a-token"


class Fake:
    """A vault and, on the same address, the token service that App Service gives to its processes."""

    url = ""
    resource = ""

    def __init__(self) -> None:
        self.has_given_tokens = False
        self.secrets: dict[str, dict[str, Any]] = {}
        self.status = 200
        self.token_status = 200

    def answer(self, request: Request) -> Answer:
        if request.path == "/token":
            assert request.headers["x-identity-header"] == IDENTITY
            if self.token_status != 200:
                return Answer(self.token_status, {"error": "invalid_scope", "error_description": "no"})
            self.has_given_tokens = True
            expires = str(int(time.time()) + 3600)
            body = {"access_token": TOKEN, "expires_on": expires, "resource": self.url, "token_type": "Bearer"}
            return Answer(200, body)
        if request.headers.get("authorization") != f"Bearer {TOKEN}":
            # The client wants a domain that this vault's lies in; by its text, so that part of an address will do.
            resource = self.resource or self.url.replace("127.0.0.1", "0.0.1")
            challenge = f'Bearer authorization="https://login.example/tenant", resource="{resource}"'
            return Answer(401, None, {"www-authenticate": challenge})
        if self.status != 200:
            return Answer(self.status, {"error": {"code": "Forbidden", "message": "no"}})
        name = request.path.removeprefix("/secrets/").strip("/")
        found = self.secrets.get(name)
        return Answer(200, found) if found else Answer(404, {"error": {"code": "SecretNotFound", "message": "no"}})

    def put(self, name: str, value: str, version: str, **attributes: Any) -> None:
        told = {"enabled": True, "created": 1, "updated": 1, **attributes}
        self.secrets[name] = {"value": value, "id": f"{self.url}/secrets/{name}/{version}", "attributes": told}


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Fake]:
    context, trusted = self_signed(tmp_path)
    made = Fake()
    for name in ("AZURE_CLIENT_ID", "AZURE_CLIENT_SECRET", "AZURE_TENANT_ID", "AZURE_FEDERATED_TOKEN_FILE"):
        monkeypatch.delenv(name, raising=False)
    with serving(made.answer, context) as url:
        made.url = url
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(trusted))
        monkeypatch.setenv("IDENTITY_ENDPOINT", f"{url}/token")
        monkeypatch.setenv("IDENTITY_HEADER", IDENTITY)
        yield made


def azure(fake: Fake) -> Azure:
    return Azure(AzureOptions(provider="azure", vault=fake.url))


def test_a_secret_is_found_under_its_flat_name_with_its_version(fake: Fake) -> None:
    fake.put("ledger--dsn", "postgresql://one", "9f2b")
    found = azure(fake).look_up("ledger/dsn")
    assert found is not None
    assert (found.text, found.version, found.valid_s) == ("postgresql://one", "9f2b", None)


def test_a_secret_that_expires_is_not_used_longer(fake: Fake) -> None:
    fake.put("short", "value", "1", exp=int(time.time()) + 100)
    found = azure(fake).look_up("short")
    assert found is not None
    assert found.valid_s is not None
    assert 60 < found.valid_s <= 100


def test_what_is_not_there_is_missing_also_where_its_name_cannot_be(fake: Fake) -> None:
    assert azure(fake).look_up("never") is None
    fake.put("a-b", "value", "1")
    assert azure(fake).look_up("a_b") is None
    assert "without underscores" in azure(fake).advice("a_b")
    assert "--name ledger--dsn" in azure(fake).advice("ledger/dsn")


def test_a_server_that_asks_for_the_tokens_of_another_gets_none(fake: Fake) -> None:
    fake.resource = "https://vault.elsewhere.example"
    with pytest.raises(UsageError, match=f"vault '{fake.url}' is no key vault's address"):
        azure(fake).look_up("any")
    assert not fake.has_given_tokens


@pytest.mark.parametrize("status", [401, 403])
def test_a_refusal_says_what_to_give(fake: Fake, status: int) -> None:
    fake.status = status
    with pytest.raises(AuthError, match="Azure Key Vault refuses secret any") as refused:
        azure(fake).look_up("any")
    assert "Key Vault Secrets User" in refused.value.hint


def test_an_identity_that_gets_no_token_is_refused(fake: Fake) -> None:
    fake.token_status = 400
    with pytest.raises(AuthError, match="Azure Key Vault refuses secret any"):
        azure(fake).look_up("any")


@pytest.mark.parametrize("status", [500, 503])
def test_a_vault_that_cannot_answer_is_down(fake: Fake, status: int) -> None:
    fake.status = status
    with pytest.raises(DependencyDownError, match=f"does not answer for any: HTTP {status}"):
        azure(fake).look_up("any")


def test_a_vault_that_nobody_serves_is_down(fake: Fake) -> None:
    with serving(lambda _: Answer(200)) as url:
        pass
    with pytest.raises(DependencyDownError, match="Azure Key Vault does not answer: ServiceRequestError"):
        Azure(AzureOptions(provider="azure", vault=url.replace("http:", "https:"))).look_up("any")
