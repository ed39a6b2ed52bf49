"""What every signature scheme shares: read a claim from the request, check it in constant time, check its age.

A scheme is a declared value that names its secret; `load()` reads the secret and gives the `Verifier` that a gateway
keeps until it renews its secrets. Only hmac, hashlib and base64 of the standard library are used, over the raw bytes.
"""

from __future__ import annotations

import base64
import hmac
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import ClassVar, Literal, NamedTuple

from heddle.errors import FailureClass, HeddleError
from heddle.secrets import Secret

Encoding = Literal["hex", "base64"]


class Reason(StrEnum):
    """Why a request is refused: stable words without content, fit for a counter's label."""

    MISSING_HEADER = "missing-header"
    MALFORMED_HEADER = "malformed-header"
    UNSUPPORTED_VERSION = "unsupported-version"
    SHA1_ONLY = "sha1-only"
    EMPTY_BODY = "empty-body"
    BAD_SIGNATURE = "bad-signature"
    TOO_OLD = "too-old"
    TOO_NEW = "too-new"


class SignatureError(HeddleError):
    """A request that its signature does not prove. `reason` is the stable word; the message never holds content."""

    failure_class = FailureClass.AUTH
    code = "signature"

    def __init__(self, reason: Reason, detail: str, *, hint: str = "") -> None:
        super().__init__(f"{reason}: {detail}", hint=hint)
        self.reason = reason


class SignedRequest(NamedTuple):
    """A request as received: header names in lower case, `url` as the vendor called it, `body` untouched."""

    method: str
    url: str
    headers: Mapping[str, str]
    body: bytes

    @classmethod
    def of(cls, method: str, url: str, headers: Iterable[tuple[str, str]], body: bytes) -> SignedRequest:
        """Lower-cases names; a header that occurs twice is joined by ", " as HTTP says."""
        merged: dict[str, str] = {}
        for name, value in headers:
            lower = name.lower()
            merged[lower] = f"{merged[lower]}, {value}" if lower in merged else value
        return cls(method, url, merged, body)

    def header(self, name: str) -> str:
        """One header (lower-case `name`). Raises `SignatureError` when it is missing or empty."""
        value = self.headers.get(name)
        if not value:
            raise SignatureError(Reason.MISSING_HEADER, f"no {name} header")
        return value


class Verified(NamedTuple):
    """What a valid request proved. Either part is None where the vendor has none."""

    timestamp_s: float | None
    delivery_id: str | None


class Claim(NamedTuple):
    """What a request says of itself, before anything is checked.

    `signatures` are the encoded candidates, any of which may match; `message` is the signed base string in named
    parts, joined without separators."""

    signatures: tuple[str, ...]
    message: tuple[tuple[str, bytes], ...]
    timestamp_s: float | None = None
    delivery_id: str | None = None


@dataclass(frozen=True)
class Scheme(ABC):
    """A vendor's rule. `tolerance_s` bounds the clock skew both ways where the scheme signs a time."""

    secret: Secret
    tolerance_s: float = 300.0

    name: ClassVar[str]
    signed: ClassVar[str]
    """The base string in words, for people."""
    signature_headers: ClassVar[tuple[str, ...]]
    """Read for the proof, never kept in the raw topic."""
    older_signature_headers: ClassVar[tuple[str, ...]] = ()
    """Signatures by older rules that vendors still send along: no proof, and never kept either."""
    kept_headers: ClassVar[tuple[str, ...]] = ()
    """Lower-case names that a converter will want, kept in the raw topic."""
    id_path: ClassVar[str | None] = None
    """Where the vendor's event id stands in the JSON body, if it stands there."""
    advice: ClassVar[str] = "check that the secret belongs to this endpoint and that the body is the raw one"

    @abstractmethod
    def claim(self, request: SignedRequest) -> Claim:
        """Read the headers. Raises `SignatureError` when there is nothing to check."""

    def key_of(self, secret_text: str) -> bytes:
        """The HMAC key that one live secret stands for. Raises `UsageError` for a secret of the wrong shape."""
        return secret_text.encode()

    def sign(self, key: bytes, message: bytes) -> str:
        """The encoded signature that the vendor would send."""
        return encode(hmac.digest(key, message, "sha256"), "hex")

    def load(self) -> Verifier:
        """Read the live secrets now. Raises `UsageError` when there is none."""
        return self.verifier(self.secret.resolve_all())

    def verifier(self, secret_texts: Iterable[str]) -> Verifier:
        return Verifier(self, tuple(self.key_of(text) for text in secret_texts))

    def verify(self, request: SignedRequest, now: float) -> Verified:
        """Check one request, reading the secret for it. `now` in seconds since the epoch."""
        return self.load().verify(request, now)


@dataclass(frozen=True)
class Verifier:
    """A scheme with its secrets at hand."""

    scheme: Scheme
    keys: tuple[bytes, ...] = field(repr=False)

    def verify(self, request: SignedRequest, now: float) -> Verified:
        """Raises `SignatureError`. The signature is checked before the time, so that a refusal for age is proven."""
        claim = self.scheme.claim(request)
        message = b"".join(part for _, part in claim.message)
        expected = [self.scheme.sign(key, message).encode() for key in self.keys]
        given = [signature.encode() for signature in claim.signatures]
        if not any(hmac.compare_digest(ours, theirs) for theirs in given for ours in expected):
            raise SignatureError(Reason.BAD_SIGNATURE, "no signature matches a live secret", hint=self.scheme.advice)
        if claim.timestamp_s is not None:
            self._check_age(now - claim.timestamp_s)
        return Verified(claim.timestamp_s, claim.delivery_id)

    def _check_age(self, age_s: float) -> None:
        tolerance_s = self.scheme.tolerance_s
        if age_s > tolerance_s:
            raise SignatureError(Reason.TOO_OLD, f"signed {age_s:.0f} s ago, {tolerance_s:.0f} s are allowed")
        if -age_s > tolerance_s:
            raise SignatureError(Reason.TOO_NEW, f"signed {-age_s:.0f} s ahead, {tolerance_s:.0f} s are allowed")


def encode(digest: bytes, encoding: Encoding) -> str:
    return digest.hex() if encoding == "hex" else base64.b64encode(digest).decode()


def whole_number(text: str, header: str) -> int:
    """A timestamp of digits only. Raises `SignatureError`."""
    if not (text.isascii() and text.isdigit() and len(text) <= 16):
        raise SignatureError(Reason.MALFORMED_HEADER, f"{header} is not a whole number")
    return int(text)


def without_prefix(value: str, prefix: str, header: str) -> str:
    """Raises `SignatureError` when `prefix` is not there."""
    if not value.startswith(prefix):
        raise SignatureError(Reason.MALFORMED_HEADER, f"{header} does not begin with {prefix!r}")
    return value[len(prefix) :]
