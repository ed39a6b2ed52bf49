"""OAuth 2.0 by a signed assertion (RFC 7523): a JSON Web Token that we sign says who we are; no secret is sent."""

from __future__ import annotations

import base64
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import httpx2
import orjson
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from heddle.errors import UsageError
from heddle.http.auth import Auth, Credentials, TokenHolder
from heddle.secrets import Secret, remember

LIFETIME_S = 300
"""Of an assertion. Servers take at most an hour, some of them five minutes."""
MIN_RSA_BITS = 2048
"""RFC 7518, section 3.3."""
_ES256_BYTES = 32
_GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"
_CLIENT = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"

Algorithm = Literal["RS256", "PS256", "ES256", "EdDSA"]
_Key = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey


@dataclass(frozen=True, slots=True, kw_only=True)
class JwtAssertion(Auth):
    """RFC 7523: as an authorization grant (section 2.1), or with `as_client` in the place of a client's secret (2.2).

    `key`: a private key, in PEM without a passphrase; an RSA key signs RS256 unless PS256 is asked for. `issuer`: the
    client's id, or the service account. `subject`: for whom, the issuer where it is not given. `audience`: of the
    assertion, the token endpoint where it is not given. `key_id`: where the server holds several keys of ours.
    `claims`: further ones; `parameters`: further fields of the form.

    Our clock tells the server how old an assertion is: it has to be right by a minute or so."""

    token_url: str
    issuer: str
    key: Secret
    subject: str = ""
    audience: str = ""
    scope: str = ""
    key_id: str = ""
    algorithm: Algorithm | None = None
    as_client: bool = False
    claims: Mapping[str, Any] = field(default_factory=dict)
    parameters: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.algorithm is not None and self.algorithm not in get_args(Algorithm):
            raise UsageError(f"JwtAssertion: algorithm is none of {', '.join(get_args(Algorithm))}")
        reserved = {"iss", "sub", "aud", "iat", "exp", "jti"} & self.claims.keys()
        if reserved:
            raise UsageError(f"JwtAssertion: claims= holds {', '.join(sorted(reserved))}, which are ours to say")

    def open(self) -> Credentials:
        self._signing_key()
        return TokenHolder(self.request, self.key)

    @property
    def hosts(self) -> tuple[str, ...]:
        return (httpx2.URL(self.token_url).host,)

    def request(self) -> httpx2.Request:
        """For a new access token. Each has an assertion of its own: servers refuse one that was used."""
        assertion = self._assertion()
        remember(assertion)
        if self.as_client:
            form = {"grant_type": "client_credentials", "client_id": self.issuer}
            form |= {"client_assertion_type": _CLIENT, "client_assertion": assertion}
        else:
            # Many servers take the scope from the assertion, others from the form (RFC 7521, section 4.1).
            form = {"grant_type": _GRANT, "assertion": assertion}
        form |= dict(self.parameters)
        if self.scope:
            form["scope"] = self.scope
        return httpx2.Request("POST", self.token_url, data=form, headers={"Accept": "application/json"})

    def _assertion(self) -> str:
        key, now = self._signing_key(), int(time.time())
        header = {"alg": self._algorithm_of(key), "typ": "JWT", **({"kid": self.key_id} if self.key_id else {})}
        claims = {
            "iss": self.issuer,
            "sub": self.subject or self.issuer,
            "aud": self.audience or self.token_url,
            "iat": now,
            "exp": now + LIFETIME_S,
            "jti": uuid.uuid4().hex,
            **({"scope": self.scope} if self.scope and not self.as_client else {}),
            **self.claims,
        }
        signed = f"{_packed(orjson.dumps(header))}.{_packed(orjson.dumps(claims))}"
        return f"{signed}.{_packed(_signature(key, header['alg'], signed.encode()))}"

    def _signing_key(self) -> _Key:
        """Raises `UsageError`; what a library says of a key is not told."""
        try:
            key = load_pem_private_key(self.key.resolve().encode(), password=None)
        except (ValueError, TypeError, UnsupportedAlgorithm):
            raise UsageError(
                f"secret {self.key.name} is no private key in PEM, or has a passphrase",
                hint="it begins with -----BEGIN PRIVATE KEY-----",
            ) from None
        is_known = (
            (isinstance(key, rsa.RSAPrivateKey) and key.key_size >= MIN_RSA_BITS)
            or (isinstance(key, ec.EllipticCurvePrivateKey) and isinstance(key.curve, ec.SECP256R1))
            or isinstance(key, ed25519.Ed25519PrivateKey)
        )
        if not is_known:
            raise UsageError(
                f"secret {self.key.name} is a key of a kind that signs no assertions",
                hint=f"make an RSA key of at least {MIN_RSA_BITS} bits, or one on P-256 or Ed25519",
            )
        assert isinstance(key, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey)
        self._algorithm_of(key)
        return key

    def _algorithm_of(self, key: _Key) -> str:
        fitting: tuple[Algorithm, ...] = ("EdDSA",)
        if isinstance(key, rsa.RSAPrivateKey):
            fitting = ("RS256", "PS256")
        elif isinstance(key, ec.EllipticCurvePrivateKey):
            fitting = ("ES256",)
        if self.algorithm is not None and self.algorithm not in fitting:
            raise UsageError(f"secret {self.key.name} does not sign {self.algorithm}, but {' and '.join(fitting)}")
        return self.algorithm or fitting[0]


def _signature(key: _Key, algorithm: str, content: bytes) -> bytes:
    """RFC 7518, sections 3.3 to 3.5; RFC 8037, section 3.1."""
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return key.sign(content)
    if isinstance(key, rsa.RSAPrivateKey):
        if algorithm == "PS256":
            return key.sign(content, padding.PSS(padding.MGF1(SHA256()), SHA256.digest_size), SHA256())
        return key.sign(content, padding.PKCS1v15(), SHA256())
    r, s = decode_dss_signature(key.sign(content, ec.ECDSA(SHA256())))
    return r.to_bytes(_ES256_BYTES) + s.to_bytes(_ES256_BYTES)


def _packed(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()
