"""Credentials that stand in the source of an application, where the next clone of the repository has them.

A look at string literals, without running anything, and with few false alarms in mind: an address with a password, a
private key, a token that its vendor's prefix gives away, a keyword argument or a header whose name says that it is one.
Only kinds and places are told, never the text. A line that is none says so: `# heddle: not a credential`."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

EXEMPT = "heddle: not a credential"

_URL = re.compile(r"\b[a-z][a-z0-9+.-]*://[^\s/?#:@]*:([^\s/?#@]+)@", re.IGNORECASE)
_CONNECTION_STRING = re.compile(r"\b(?:host|dbname|user|server)\s*=.*?\b(?:password|pwd)\s*=\s*([^\s;]+)", re.I | re.S)
_CONNECTION_STRING_REVERSED = re.compile(
    r"\b(?:password|pwd)\s*=\s*([^\s;]+).*?\b(?:host|dbname|user|server)\s*=", re.I | re.S
)
_PRIVATE_KEY = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----")
# Each of what its vendor documents: prefix, alphabet, length.
_TOKENS = {
    "an AWS access key id": r"(?:AKIA|ASIA)[A-Z0-9]{16}",
    "a GitHub token": r"gh[pousr]_[A-Za-z0-9]{36,}|github_pat_[A-Za-z0-9_]{50,}",
    "a GitLab token": r"glpat-[A-Za-z0-9_-]{20,}",
    "a Google API key": r"AIza[A-Za-z0-9_-]{35}",
    "a HubSpot token": r"pat-(?:na|eu)\d-[0-9a-f-]{36}",
    "a JSON Web Token": r"eyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}",
    "an npm token": r"npm_[A-Za-z0-9]{36}",
    "a SendGrid key": r"SG\.[A-Za-z0-9_-]{22}\.[A-Za-z0-9_-]{43}",
    "a Shopify token": r"shp(?:at|ca|pa|ss)_[0-9a-fA-F]{32}",
    "a Slack token": r"xox[abeoprs]-[A-Za-z0-9-]{10,}",
    "a Stripe key": r"[rs]k_(?:live|test)_[A-Za-z0-9]{16,}",
    "a Vault token": r"hv[sb]\.[A-Za-z0-9_-]{24,}",
    "a webhook secret": r"whsec_[A-Za-z0-9+/]{24,}={0,2}",
}
_TOKEN = re.compile(
    "|".join(rf"(?P<t{i}>(?<![A-Za-z0-9_])(?:{pattern})(?![A-Za-z0-9_]))" for i, pattern in enumerate(_TOKENS.values()))
)
_KEYWORDS = frozenset(
    {
        "access_key", "access_token", "api_key", "api_token", "apikey", "auth_token", "bearer_token", "client_secret",
        "passphrase", "passwd", "password", "private_key", "refresh_token", "secret", "secret_key", "token",
    }
)  # fmt: skip
_HEADERS = frozenset(
    {"api-key", "apikey", "authorization", "proxy-authorization", "x-access-token", "x-api-key", "x-auth-token"}
)
_SCHEME = re.compile(r"^(?:basic|bearer|token) +", re.I)
# There a keyword is a field's name, and a string the path that it is taken from.
_MAPPINGS = frozenset({"Mapping", "record"})
# What an example has in place of a password, or a template.
_PLACEHOLDER = re.compile(
    r"[*x.…]+|<.*>|\$?\{.*\}|%\(.*\)s|%s|your[-_ ]?\w*|pass(?:word)?|secret|token|change[-_ ]?me", re.I | re.S
)


class Literal(NamedTuple):
    """`line` counts from 1."""

    line: int
    kind: str


def credentials_in(path: Path) -> list[Literal]:
    """Of one Python file, by line; nothing of one that does not parse, which its import will say better."""
    try:
        source = path.read_text(encoding="utf-8")
        tree = ast.parse(source)
    except (OSError, SyntaxError, ValueError):
        return []
    found = {literal for literal in _literals(tree) if literal is not None}
    if not found:
        return []
    exempt = _exempt_lines(source)
    return sorted(Literal(first, kind) for first, last, kind in found if not exempt & set(range(first, last + 1)))


def _literals(tree: ast.AST) -> Iterator[tuple[int, int, str]]:
    """First line, last line, kind."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant):
            kind = _kind_of(_text(node))
            if kind:
                yield node.lineno, node.end_lineno or node.lineno, kind
        elif isinstance(node, ast.JoinedStr):
            kind = _kind_of("".join(_text(part) if isinstance(part, ast.Constant) else "{}" for part in node.values))
            if kind:
                yield node.lineno, node.end_lineno or node.lineno, kind
        elif isinstance(node, ast.Call) and _name(node.func) not in _MAPPINGS:
            for keyword in node.keywords:
                if keyword.arg in _KEYWORDS and _is_given(_text(keyword.value)):
                    value = keyword.value
                    yield value.lineno, value.end_lineno or value.lineno, f"the argument {keyword.arg}"
        elif isinstance(node, ast.Dict):
            yield from _headers(node)


def _headers(node: ast.Dict) -> Iterator[tuple[int, int, str]]:
    for key, value in zip(node.keys, node.values, strict=True):
        name = _text(key) if key is not None else ""
        if name.lower() in _HEADERS:
            text = _text(value)
            # What a vendor's prefix gives away is named for that.
            if _is_given(_SCHEME.sub("", text, count=1)) and not _kind_of(text):
                yield value.lineno, value.end_lineno or value.lineno, f"the header {name}"


def _kind_of(text: str) -> str:
    """Empty for a text that is no credential."""
    if _PRIVATE_KEY.search(text):
        return "a private key"
    if any(_is_given(password) for password in _URL.findall(text)):
        return "an address with a password"
    inside = _CONNECTION_STRING.findall(text) + _CONNECTION_STRING_REVERSED.findall(text)
    if any(_is_given(password.strip("'\"")) for password in inside):
        return "a connection string with a password"
    token = _TOKEN.search(text)
    return list(_TOKENS)[int((token.lastgroup or "t0")[1:])] if token else ""


def _is_given(text: str) -> bool:
    return bool(text) and not _PLACEHOLDER.fullmatch(text)


def _text(node: ast.AST) -> str:
    value = node.value if isinstance(node, ast.Constant) else None
    if isinstance(value, bytes):
        return value.decode("latin-1")
    return value if isinstance(value, str) else ""


def _name(function: ast.expr) -> str:
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


def _exempt_lines(source: str) -> set[int]:
    comments = tokenize.generate_tokens(io.StringIO(source).readline)
    return {token.start[0] for token in comments if token.type == tokenize.COMMENT and EXEMPT in token.string}
