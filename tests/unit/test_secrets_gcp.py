"""Google Secret Manager: against a stand-in, with a service account's key whose tokens come from there too. Never
against Google."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from secret_http import Answer, Request, serving

from heddle.errors import AuthError, DependencyDownError, UsageError
from heddle.secrets.providers.gcp import Gcp, GcpOptions

ACCOUNT = "heddle@project.iam.gserviceaccount.com"


class Fake:
    url = ""

    def __init__(self) -> None:
        self.secrets: dict[str, tuple[bytes, int]] = {}
        self.disabled: set[str] = set()
        self.status = 200
        self.token_status = 200
        self.tokens = 0

    def answer(self, request: Request) -> Answer:
        if request.path == "/token":
            if self.token_status != 200:
                return Answer(self.token_status, {"error": "invalid_grant", "error_description": "no"})
            assert b"assertion=" in request.body
            self.tokens += 1
            return Answer(200, {"access_token": f"token{self.tokens}", "expires_in": 3600, "token_type": "Bearer"})
        if request.headers.get("authorization") != f"Bearer token{self.tokens}":
            return Answer(401, _error("UNAUTHENTICATED"))
        if self.status != 200:
            return Answer(self.status, _error("no"))
        place = request.path.removeprefix("/v1/").removesuffix("/versions/latest:access")
        name = place.removeprefix("projects/shop/secrets/")
        if name in self.disabled:
            return Answer(400, _error("FAILED_PRECONDITION"))
        if name not in self.secrets:
            return Answer(404, _error("NOT_FOUND"))
        value, version = self.secrets[name]
        payload = {"data": base64.b64encode(value).decode(), "dataCrc32c": "0"}
        return Answer(200, {"name": f"projects/1234/secrets/{name}/versions/{version}", "payload": payload})


def _error(status: str) -> dict[str, Any]:
    return {"error": {"code": 0, "message": "no", "status": status}}


@pytest.fixture(scope="module")
def key() -> str:
    made = rsa.generate_private_key(65537, 2048)
    return made.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


@pytest.fixture
def fake(tmp_path: Path, key: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Fake]:
    made = Fake()
    with serving(made.answer) as url:
        made.url = url
        account = {"type": "service_account", "project_id": "shop", "private_key_id": "1", "private_key": key}
        account |= {"client_email": ACCOUNT, "client_id": "1", "token_uri": f"{url}/token"}
        path = tmp_path / "account.json"
        path.write_text(json.dumps(account))
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(path))
        yield made


def gcp(fake: Fake) -> Gcp:
    return Gcp(GcpOptions(provider="gcp", project="shop", endpoint=fake.url))


def test_a_secret_is_found_under_its_flat_name_with_its_version(fake: Fake) -> None:
    fake.secrets["ledger--dsn"] = (b"postgresql://one", 7)
    found = gcp(fake).look_up("ledger/dsn")
    assert found is not None
    assert (found.text, found.version) == ("postgresql://one", "7")


def test_a_token_that_was_revoked_is_made_anew(fake: Fake) -> None:
    fake.secrets["any"] = (b"value", 1)
    provider = gcp(fake)
    assert provider.look_up("any") is not None
    fake.tokens += 1
    assert provider.look_up("any") is not None


def test_what_is_not_there_disabled_or_cannot_be_named_is_missing(fake: Fake) -> None:
    fake.disabled.add("off")
    assert [gcp(fake).look_up(name) for name in ("never", "off", "a--b")] == [None, None, None]
    assert "gcloud secrets create ledger--dsn" in gcp(fake).advice("ledger/dsn")


def test_what_is_no_text_is_refused_with_its_reason(fake: Fake) -> None:
    fake.secrets["binary"] = (b"\xff\xfe", 1)
    with pytest.raises(UsageError, match="secret binary is not UTF-8 text"):
        gcp(fake).look_up("binary")


def test_a_refusal_says_what_to_give(fake: Fake) -> None:
    fake.status = 403
    with pytest.raises(AuthError, match="Google Secret Manager refuses secret any: HTTP 403") as refused:
        gcp(fake).look_up("any")
    assert "Secret Manager Secret Accessor" in refused.value.hint


def test_credentials_that_google_does_not_know_are_refused(fake: Fake) -> None:
    fake.token_status = 400
    with pytest.raises(AuthError, match="Google refuses our credentials"):
        gcp(fake).look_up("any")


def test_without_credentials_it_is_said(fake: Fake, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "nothing.json"))
    with pytest.raises(AuthError, match="no credentials"):
        gcp(fake).look_up("any")


def test_a_service_that_cannot_answer_is_down(fake: Fake) -> None:
    fake.status = 503
    with pytest.raises(DependencyDownError, match="does not answer for any: HTTP 503"):
        gcp(fake).look_up("any")
    with serving(lambda _: Answer(200)) as url:
        pass
    fake.url = url
    with pytest.raises(DependencyDownError, match="does not answer: ConnectionError"):
        gcp(fake).look_up("any")
