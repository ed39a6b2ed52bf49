"""Vendor handshakes: a subscription is confirmed by sending a challenge back. Challenges are never stored."""

from __future__ import annotations

import hmac
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs

import orjson

from heddle.secrets import Secret

MAX_CHALLENGE_CHARS = 1024


class ChallengeError(Exception):
    """A challenge that is too long, or whose token is wrong; the request is refused."""


@dataclass(frozen=True, slots=True)
class EchoBody:
    """A signed JSON body whose `when` field says that it is a handshake; its `field` is sent back.

    Slack: `EchoBody("challenge", when=("type", "url_verification"))`, which its scheme brings along."""

    field: str
    when: tuple[str, str] | None = None
    as_json: bool = False

    def answer(self, body: bytes) -> tuple[str, bytes] | None:
        """(content type, body) to send back, or None for an ordinary delivery. Raises `ChallengeError`."""
        # Looking for the name first spares ordinary deliveries the parsing.
        if self.field.encode() not in body:
            return None
        try:
            value = orjson.loads(body)
        except orjson.JSONDecodeError:
            return None
        challenge = self._challenge(value)
        if challenge is None:
            return None
        if len(challenge) > MAX_CHALLENGE_CHARS:
            raise ChallengeError("the challenge is too long")
        if self.as_json:
            return "application/json", orjson.dumps({self.field: challenge})
        return "text/plain; charset=utf-8", challenge.encode()

    def _challenge(self, value: Any) -> str | None:
        if not isinstance(value, dict) or (self.when is not None and value.get(self.when[0]) != self.when[1]):
            return None
        challenge = value.get(self.field)
        return challenge if isinstance(challenge, str) else None


@dataclass(frozen=True, slots=True)
class EchoQuery:
    """An unsigned request whose query `parameter` is sent back as plain text. Where a `token` is declared, the query's
    `token_parameter` must equal one of its live values, else 401.

    Meta: `EchoQuery("hub.challenge", token=secret("meta/verify"), token_parameter="hub.verify_token")`; Microsoft
    Graph: `EchoQuery("validationToken")`."""

    parameter: str
    token: Secret | None = None
    token_parameter: str = "token"  # noqa: S105  # a parameter's name

    def tokens(self) -> tuple[str, ...]:
        """The live values, read now."""
        return self.token.resolve_all() if self.token is not None else ()

    def answer(self, query: str, tokens: Iterable[str]) -> tuple[str, bytes] | None:
        """As `EchoBody.answer`. Raises `ChallengeError` for a wrong token."""
        try:
            parameters = parse_qs(query, max_num_fields=32)
        except ValueError:
            raise ChallengeError("the query has too many fields") from None
        challenge = parameters.get(self.parameter, [""])[0]
        if not challenge:
            return None
        given = parameters.get(self.token_parameter, [""])[0].encode()
        if self.token is not None and not any(hmac.compare_digest(given, live.encode()) for live in tokens):
            raise ChallengeError("the token is wrong")
        if len(challenge) > MAX_CHALLENGE_CHARS:
            raise ChallengeError("the challenge is too long")
        return "text/plain; charset=utf-8", challenge.encode()


Handshake = EchoBody | EchoQuery
