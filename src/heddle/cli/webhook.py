"""`heddle webhook`: check a captured delivery, list the signature schemes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer
from rich.table import Table

from heddle.cli.main import app, out
from heddle.errors import UsageError
from heddle.secrets import secret
from heddle.sources.signatures import SCHEMES, Hmac, Scheme, SignedRequest
from heddle.sources.signatures.diagnosis import Diagnosis, diagnose

webhook = typer.Typer(no_args_is_help=True, help="Signatures of webhook deliveries.")
app.add_typer(webhook, name="webhook")

AsJson = Annotated[bool, typer.Option("--json", help="One JSON document instead of text.")]
ALIASES = {"svix": "standard-webhooks"}


@webhook.command()
def verify(
    scheme: Annotated[str, typer.Option(help="The vendor's scheme; `heddle webhook schemes` lists them.")],
    secret_file: Annotated[Path, typer.Option(help="File with the secret; several lines are several live secrets.")],
    headers: Annotated[Path, typer.Option(help='JSON: {"name": "value"} or [["name", "value"], …].')],
    body: Annotated[Path, typer.Option(help="The raw body, byte for byte as received.")],
    at: Annotated[str, typer.Option(help="When it was received: epoch seconds or ISO 8601. Default: now.")] = "",
    method: Annotated[str, typer.Option(help="The request's method, where the scheme signs it.")] = "POST",
    url: Annotated[str, typer.Option(help="The public URL, where the scheme signs it.")] = "",
    tolerance: Annotated[float, typer.Option(min=0, help="Allowed clock skew in seconds, both ways.")] = 300.0,
    option: Annotated[
        list[str] | None, typer.Option(help="For the scheme hmac: header=X-Sig, encoding=base64, prefix=…, message=…")
    ] = None,
    json: AsJson = False,
) -> None:
    """Check a captured delivery, and say what to look at when it does not verify.

    Exit codes: 0 valid, 1 invalid (the reason is printed), 2 usage.

    Example: heddle webhook verify --scheme stripe --secret-file s.txt --headers h.json --body b.json --at 1700000000"""
    rule = _scheme(scheme, tolerance, option or [])
    verifier = rule.verifier(_lines(secret_file))
    request = SignedRequest.of(method.upper(), url, _headers(headers), _read(body))
    result = diagnose(verifier, request, _time(at))
    typer.echo(_as_json(rule, result) if json else _as_text(rule, result))
    if result.reason is not None:
        raise typer.Exit(1)


@webhook.command()
def schemes(json: AsJson = False) -> None:
    """List the signature schemes: name, signature header, what is signed.

    Example: heddle webhook schemes"""
    rows = [_described(name, scheme) for name, scheme in sorted(SCHEMES.items())]
    if json:
        typer.echo(orjson.dumps(rows, option=orjson.OPT_INDENT_2).decode())
        return
    table = Table("scheme", "signature header", "signed", box=None)
    for row in rows:
        table.add_row(row["scheme"], ", ".join(row["headers"]), row["signed"])
    out.print(table)


def _described(name: str, scheme: type[Scheme]) -> dict[str, Any]:
    headers = ["--option header=…"] if scheme is Hmac else list(scheme.signature_headers)
    return {"scheme": name, "headers": headers, "signed": scheme.signed}


def _scheme(name: str, tolerance_s: float, options: list[str]) -> Scheme:
    known = SCHEMES.get(ALIASES.get(name, name))
    if known is None:
        raise UsageError(f"no scheme named {name}", hint="known: " + ", ".join(sorted(SCHEMES)))
    given = dict(_option(text) for text in options)
    if given and known is not Hmac:
        raise UsageError("--option is for the scheme hmac only")
    if known is Hmac and "header" not in given:
        raise UsageError("the scheme hmac needs --option header=NAME")
    try:
        return known(secret("command-line"), tolerance_s, **given)
    except TypeError:
        fields = sorted(set(Hmac.__dataclass_fields__) - {"secret", "tolerance_s"})
        raise UsageError("--option names an unknown field", hint="known: " + ", ".join(fields)) from None


def _option(text: str) -> tuple[str, str]:
    name, separator, value = text.partition("=")
    if not separator:
        raise UsageError(f"--option {text} is not name=value")
    return name.replace("-", "_"), value


def _lines(path: Path) -> list[str]:
    lines = [line.strip() for line in _read(path).decode(errors="replace").splitlines() if line.strip()]
    if not lines:
        raise UsageError(f"{path} holds no secret")
    return lines


def _headers(path: Path) -> Iterator[tuple[str, str]]:
    """Pairs of a JSON object or a JSON list of pairs; a value may be a list of values."""
    try:
        given = orjson.loads(_read(path))
    except orjson.JSONDecodeError as error:
        raise UsageError(f"{path} is not JSON (line {error.lineno}, column {error.colno})") from None
    pairs = given.items() if isinstance(given, dict) else given
    try:
        for name, value in pairs:
            for one in value if isinstance(value, list) else [value]:
                yield str(name), str(one)
    except (TypeError, ValueError):
        raise UsageError(f"{path} is neither a JSON object nor a list of pairs") from None


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from error


def _time(text: str) -> float:
    if not text:
        return time.time()
    try:
        return float(text)
    except ValueError:
        pass
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise UsageError(f"--at {text} is neither epoch seconds nor ISO 8601") from None
    if moment.tzinfo is None:
        raise UsageError(f"--at {text} has no zone", hint="write 2026-03-01T12:00:00Z")
    return moment.timestamp()


def _as_text(scheme: Scheme, result: Diagnosis) -> str:
    if result.verified is None:
        return "\n".join([f"invalid  {result.message}", *(f"  {note}" for note in result.notes)])
    delivery_id = result.verified.delivery_id
    return f"valid  {scheme.name}" + (f", delivery id {delivery_id}" if delivery_id else "")


def _as_json(scheme: Scheme, result: Diagnosis) -> str:
    document = {
        "valid": result.reason is None,
        "scheme": scheme.name,
        "reason": result.reason,
        "message": result.message,
        "delivery_id": result.verified.delivery_id if result.verified else None,
        "notes": result.notes,
    }
    return orjson.dumps(document, option=orjson.OPT_INDENT_2).decode()
