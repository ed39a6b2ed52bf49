"""A generic HMAC for vendors without a scheme of their own here."""

from __future__ import annotations

import base64
import binascii
import hmac
import re
from dataclasses import dataclass, field
from typing import Literal

from heddle.errors import UsageError
from heddle.sources.signatures.scheme import (
    Claim,
    Encoding,
    Scheme,
    SignedRequest,
    encode,
    whole_number,
    without_prefix,
)

Algorithm = Literal["sha256", "sha384", "sha512", "sha1"]

_FIELD = re.compile(r"\{(\w+)\}")
_FIELDS = frozenset({"body", "timestamp", "id", "method", "url"})


@dataclass(frozen=True)
class Hmac(Scheme):
    """HMAC over `message`, a template of `{body}`, `{timestamp}`, `{id}`, `{method}`, `{url}` and literal text.

    `header` carries the signature in `encoding` after `prefix` (`"sha256="`); with a `separator` it may carry
    several. `timestamp_header` is seconds or milliseconds and must be part of the message, or it would prove nothing.
    `secret_encoding` says what the secret's text stands for. `sha1` is for vendors that offer nothing better."""

    header: str = field(kw_only=True)
    algorithm: Algorithm = field(default="sha256", kw_only=True)
    encoding: Encoding = field(default="hex", kw_only=True)
    prefix: str = field(default="", kw_only=True)
    separator: str = field(default="", kw_only=True)
    message: str = field(default="{body}", kw_only=True)
    timestamp_header: str = field(default="", kw_only=True)
    timestamp_unit: Literal["s", "ms"] = field(default="s", kw_only=True)
    id_header: str = field(default="", kw_only=True)
    secret_encoding: Literal["text", "base64", "hex"] = field(default="text", kw_only=True)

    name = "hmac"
    signed = "message template, by default body"
    advice = "compare algorithm, encoding, prefix and message template with the vendor's guide"

    def __post_init__(self) -> None:
        for allowed, value in (
            (("sha256", "sha384", "sha512", "sha1"), self.algorithm),
            (("hex", "base64"), self.encoding),
            (("s", "ms"), self.timestamp_unit),
            (("text", "base64", "hex"), self.secret_encoding),
        ):
            if value not in allowed:
                raise UsageError(f"Hmac: {value!r} is none of {', '.join(allowed)}")
        fields = set(_FIELD.findall(self.message))
        if fields - _FIELDS:
            raise UsageError(f"Hmac: the message names an unknown field; known are {', '.join(sorted(_FIELDS))}")
        if not self.header or "body" not in fields:
            raise UsageError("Hmac: header= is needed, and the message must hold {body}")
        for name, header in (("timestamp", self.timestamp_header), ("id", self.id_header)):
            if name in fields and not header:
                raise UsageError(f"Hmac: the message holds {{{name}}}, so {name}_header= is needed")
        if self.timestamp_header and "timestamp" not in fields:
            raise UsageError("Hmac: a timestamp outside the message is not signed and proves nothing")

    @property
    def signature_headers(self) -> tuple[str, ...]:  # type: ignore[override]  # known per instance only
        return (self.header.lower(),)

    @property
    def kept_headers(self) -> tuple[str, ...]:  # type: ignore[override]  # known per instance only
        return tuple(name.lower() for name in (self.timestamp_header, self.id_header) if name)

    def claim(self, request: SignedRequest) -> Claim:
        given = request.header(self.header.lower())
        candidates = [part.strip() for part in given.split(self.separator)] if self.separator else [given]
        signatures = tuple(without_prefix(item, self.prefix, self.header) for item in candidates if item)
        timestamp_s, parts = (
            None,
            {"body": request.body, "method": request.method.encode(), "url": request.url.encode()},
        )
        if self.timestamp_header:
            text = request.header(self.timestamp_header.lower())
            number = whole_number(text, self.timestamp_header)
            timestamp_s = number / 1000 if self.timestamp_unit == "ms" else float(number)
            parts["timestamp"] = text.encode()
        delivery_id = request.headers.get(self.id_header.lower()) if self.id_header else None
        if "{id}" in self.message:
            parts["id"] = request.header(self.id_header.lower()).encode()
        # re.split with one group alternates literal text and field names.
        pieces = _FIELD.split(self.message)
        message = tuple(
            (piece, parts[piece]) if index % 2 else ("text", piece.encode())
            for index, piece in enumerate(pieces)
            if piece
        )
        return Claim(signatures, message, timestamp_s, delivery_id)

    def key_of(self, secret_text: str) -> bytes:
        try:
            match self.secret_encoding:
                case "base64":
                    return base64.b64decode(secret_text, validate=True)
                case "hex":
                    return bytes.fromhex(secret_text)
                case _:
                    return secret_text.encode()
        except (binascii.Error, ValueError) as error:
            raise UsageError(f"secret {self.secret.name} is not {self.secret_encoding}") from error

    def sign(self, key: bytes, message: bytes) -> str:
        return encode(hmac.digest(key, message, self.algorithm), self.encoding)
