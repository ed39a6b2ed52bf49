"""Access tokens by signed assertions (RFC 7523), checked by a token endpoint that holds the public keys."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from rest_harness import deals, names, source
from rest_server import START_S, Api, Asked, Reply, RestServer

from heddle import JwtAssertion
from heddle.errors import AuthError, UsageError
from heddle.secrets import redact, secret

KEYS: dict[str, Callable[[], Any]] = {
    "RS256": lambda: rsa.generate_private_key(65537, 2048),
    "PS256": lambda: rsa.generate_private_key(65537, 2048),
    "ES256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "EdDSA": ed25519.Ed25519PrivateKey.generate,
}
CLIENT = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"


def pem(key: Any) -> str:
    return str(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode())


class Vendor:
    """A token endpoint that takes each assertion once, for five minutes, of one issuer. PyJWT decides on signatures."""

    def __init__(self, api: Api, url: str) -> None:
        self.api = api
        self.url = url
        self.key: Any = None
        self.algorithm = "RS256"
        self.used: set[str] = set()
        self.seen: list[tuple[dict[str, Any], dict[str, Any], dict[str, str]]] = []
        api.before = self.answer

    def answer(self, asked: Asked) -> Reply | None:
        if asked.path != "/v1/token":
            return None
        form = asked.form
        assertion = form.get("assertion") or form.get("client_assertion") or ""
        try:
            claims = jwt.decode(
                assertion, self.key.public_key(), [self.algorithm], audience=self.url, issuer="heddle",
                options={"require": ["iss", "sub", "aud", "exp", "iat", "jti"]},
            )  # fmt: skip
        except jwt.InvalidTokenError:
            return 400, {}, {"error": "invalid_grant"}
        if claims["jti"] in self.used or claims["exp"] - time.time() > 300:
            return 400, {}, {"error": "invalid_grant"}
        self.used.add(claims["jti"])
        self.seen.append((jwt.get_unverified_header(assertion), claims, form))
        self.api.token = f"access-token-{len(self.seen)}"
        return 200, {}, {"access_token": self.api.token, "token_type": "Bearer", "expires_in": 3600}


@pytest.fixture
def vendor(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Vendor, RestServer]]:
    api = Api()
    for number in range(5):
        api.put(number, f"n{number}", at=START_S - 5)
    server = RestServer(api)
    yield Vendor(api, f"{server.url}/v1/token"), server
    server.close()


def opened(server: RestServer, auth: JwtAssertion) -> Any:
    puller = source(server, deals(), auth=auth).open()
    puller.begin(None)
    return puller


@pytest.mark.parametrize("algorithm", KEYS)
@pytest.mark.parametrize("as_client", [False, True], ids=["grant", "client"])
def test_a_token_is_given_for_an_assertion(
    vendor: tuple[Vendor, RestServer], algorithm: Any, as_client: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    endpoint, server = vendor
    endpoint.key, endpoint.algorithm = KEYS[algorithm](), algorithm
    monkeypatch.setenv("HEDDLE_SECRET_CRM_SIGNING_KEY", pem(endpoint.key))
    auth = JwtAssertion(
        token_url=endpoint.url, issuer="heddle", key=secret("crm/signing-key"), subject="user@crm.example",
        scope="deals.read", key_id="2026-01", algorithm=algorithm, as_client=as_client, claims={"tenant": "north"},
    )  # fmt: skip
    puller = opened(server, auth)
    assert len(names(puller)) == 5
    endpoint.api.token = "ended"
    names(puller)  # one more assertion, and no older one
    puller.close()
    assert len(endpoint.seen) == 2
    header, claims, form = endpoint.seen[0]
    assert header == {"alg": algorithm, "typ": "JWT", "kid": "2026-01"}
    assert (claims["sub"], claims["tenant"], form["scope"]) == ("user@crm.example", "north", "deals.read")
    # Also in the assertion, where it stands for the request itself.
    assert claims.get("scope") == (None if as_client else "deals.read")
    assert "=" not in (form.get("assertion") or form["client_assertion"])  # RFC 7515, section 2: without padding
    assert form.get("client_assertion_type") == (CLIENT if as_client else None)
    assert redact(form.get("assertion") or form["client_assertion"]) == "***"


def test_a_key_that_was_replaced_is_found_and_one_that_was_not_stops_the_source(
    vendor: tuple[Vendor, RestServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    endpoint, server = vendor
    first, second = KEYS["ES256"](), KEYS["ES256"]()
    endpoint.key, endpoint.algorithm = first, "ES256"
    monkeypatch.setenv("HEDDLE_SECRET_CRM_SIGNING_KEY", pem(first))
    puller = opened(server, JwtAssertion(token_url=endpoint.url, issuer="heddle", key=secret("crm/signing-key")))
    assert len(names(puller)) == 5
    endpoint.key, endpoint.api.token = second, "ended"
    monkeypatch.setenv("HEDDLE_SECRET_CRM_SIGNING_KEY", pem(second))
    endpoint.api.put(9, "under the next key")
    assert names(puller) == ["under the next key"]
    endpoint.key, endpoint.api.token = first, "ended"
    with pytest.raises(AuthError, match="invalid_grant"):
        names(puller)
    puller.close()


@pytest.mark.parametrize(
    ("key", "algorithm", "words"),
    [
        (lambda: "no key at all", None, "no private key"),
        (lambda: pem(rsa.generate_private_key(65537, 1024)), None, "at least 2048 bits"),
        (lambda: pem(ec.generate_private_key(ec.SECP384R1())), None, "P-256"),
        (lambda: pem(KEYS["EdDSA"]()), "RS256", "does not sign RS256"),
    ],
    ids=["text", "short", "curve", "algorithm"],
)
def test_a_key_that_cannot_sign_is_known_at_the_start(
    key: Callable[[], str], algorithm: Any, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEDDLE_SECRET_CRM_SIGNING_KEY", key())
    auth = JwtAssertion(
        token_url="https://crm.example/token", issuer="heddle", key=secret("crm/signing-key"), algorithm=algorithm
    )
    with pytest.raises(UsageError) as refused:
        auth.open()
    assert words in f"{refused.value} {refused.value.hint}"


def test_claims_that_are_ours_are_refused() -> None:
    with pytest.raises(UsageError, match="exp"):
        JwtAssertion(token_url="https://crm.example/token", issuer="heddle", key=secret("a/b"), claims={"exp": 1})


def test_an_algorithm_that_we_do_not_sign_is_refused() -> None:
    wrong: Any = "HS256"
    with pytest.raises(UsageError, match="algorithm is none of RS256"):
        JwtAssertion(token_url="https://crm.example/token", issuer="heddle", key=secret("a/b"), algorithm=wrong)
