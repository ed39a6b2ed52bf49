"""`heddle webhook`: exit codes, reasons, and notes that show neither secret nor content."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

import heddle.cli.webhook  # noqa: F401  # adds its commands to the app
from heddle.cli.main import app
from heddle.errors import HeddleError, UsageError
from heddle.sources.signatures import SCHEMES

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
BODY = b'{"test": 2432232314}'
HEADERS = {
    "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
    "webhook-timestamp": "1614265330",
    "Webhook-Signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
}
DATA = Path(__file__).parent.parent / "data" / "webhooks"


@pytest.fixture
def capture(tmp_path: Path) -> Path:
    (tmp_path / "secret").write_text("whsec_b3RoZXI=\n" + SECRET + "\n", encoding="utf-8")
    (tmp_path / "headers.json").write_text(json.dumps(HEADERS), encoding="utf-8")
    (tmp_path / "body").write_bytes(BODY)
    return tmp_path


def verify(folder: Path, *more: str, scheme: str = "standard-webhooks") -> Result:
    files = ("--secret-file", f"{folder}/secret", "--headers", f"{folder}/headers.json", "--body", f"{folder}/body")
    return CliRunner().invoke(app, ["webhook", "verify", "--scheme", scheme, *files, *more])


def code_of(result: Result) -> int:
    """As `heddle.cli.main.main` would exit."""
    return result.exception.exit_code if isinstance(result.exception, HeddleError) else result.exit_code


def document(result: Result) -> Any:
    return json.loads(result.stdout)


def test_valid(capture: Path) -> None:
    result = verify(capture, "--at", "1614265330")
    assert (result.exit_code, result.stdout) == (
        0,
        "valid  standard-webhooks, delivery id msg_p5jXN8AQM9LWM0D4loKWxJek\n",
    )
    assert verify(capture, "--at", "2021-02-25T15:02:10Z", scheme="svix").exit_code == 0


def test_too_old_now_but_the_signature_is_right(capture: Path) -> None:
    result = verify(capture)
    assert result.exit_code == 1
    assert result.stdout.startswith("invalid  too-old")
    assert "--at" in result.stdout
    assert verify(capture, "--tolerance", "1e12").exit_code == 0


def test_invalid_names_lengths_and_headers_but_no_content(capture: Path) -> None:
    (capture / "body").write_bytes(BODY.replace(b"2", b"3"))
    result = verify(capture, "--at", "1614265330", "--json")
    assert result.exit_code == 1
    found = document(result)
    assert (found["valid"], found["reason"]) == (False, "bad-signature")
    told = " ".join(found["notes"])
    assert "id (28 bytes), dot (1 bytes), timestamp (10 bytes), dot (1 bytes), body (20 bytes); 60 bytes" in told
    assert "live secrets tried: 2" in told
    assert "webhook-signature" in told
    for hidden in ("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "2432232314", "g0hM9SsE", "3433333314"):
        assert hidden not in result.output


@pytest.mark.parametrize(
    ("body", "note"),
    [
        (BODY + b"\n", "the capture added one"),
        (b"\xef\xbb\xbf" + BODY, "byte order mark"),
    ],
)
def test_the_usual_mistakes_of_capturing_are_recognised(capture: Path, body: bytes, note: str) -> None:
    (capture / "body").write_bytes(body)
    result = verify(capture, "--json")
    assert result.exit_code == 1
    assert note in document(result)["notes"][0]


def test_hubspot_url_mistakes_are_recognised(capture: Path) -> None:
    vectors = json.loads((DATA / "signature_vectors.json").read_text(encoding="utf-8"))["vectors"]
    vector = next(v for v in vectors if v["id"] == "hubspot-v3-01")
    (capture / "secret").write_text(vector["secret"], encoding="utf-8")
    (capture / "headers.json").write_text(json.dumps(list(vector["headers"].items())), encoding="utf-8")
    (capture / "body").write_text(vector["body"], encoding="utf-8")
    at = ("--at", str(vector["now"]), "--json")
    assert verify(capture, "--url", vector["uri"], *at, scheme="hubspot-v3").exit_code == 0
    inside = verify(capture, "--url", vector["uri"].replace("https", "http"), *at, scheme="hubspot-v3")
    assert "https in the URL" in document(inside)["notes"][0]
    other = verify(capture, "--url", "http://127.0.0.1/x", *at, scheme="hubspot-v3")
    assert "HEDDLE_GATEWAY_BASE_URL" in document(other)["notes"][0]


def test_generic_scheme_takes_options(capture: Path) -> None:
    vectors = json.loads((DATA / "derived_vectors.json").read_text(encoding="utf-8"))["vectors"]
    vector = next(v for v in vectors if v["id"] == "hmac-03")
    (capture / "secret").write_text(vector["secret"], encoding="utf-8")
    (capture / "headers.json").write_text(json.dumps(vector["headers"]), encoding="utf-8")
    (capture / "body").write_text(vector["body"], encoding="utf-8")
    options = [part for name, value in vector["options"].items() for part in ("--option", f"{name}={value}")]
    assert verify(capture, "--at", str(vector["now"]), *options, scheme="hmac").exit_code == 0


def test_missing_header_lists_what_came(capture: Path) -> None:
    (capture / "headers.json").write_text('{"Content-Type": "application/json"}', encoding="utf-8")
    result = verify(capture)
    assert result.exit_code == 1
    assert "headers given: content-type" in result.stdout


@pytest.mark.parametrize(
    "more",
    [
        ("--scheme", "nope"),
        ("--scheme", "hmac"),
        ("--scheme", "hmac", "--option", "header"),
        ("--scheme", "hmac", "--option", "header=x", "--option", "nope=1"),
        ("--option", "header=x"),
        ("--at", "soon"),
        ("--at", "2021-02-25T15:02:10"),
        ("--headers", "/nowhere"),
        ("--secret-file", "/dev/null"),
        ("--unknown",),
    ],
)
def test_usage_errors(capture: Path, more: tuple[str, ...]) -> None:
    assert code_of(verify(capture, *more)) == 2


@pytest.mark.parametrize("text", ["{", "7", '["a"]', "[[1]]"])
def test_headers_of_another_shape(capture: Path, text: str) -> None:
    (capture / "headers.json").write_text(text, encoding="utf-8")
    result = verify(capture)
    assert isinstance(result.exception, UsageError)


def test_schemes_are_listed() -> None:
    shown = CliRunner().invoke(app, ["webhook", "schemes"])
    assert shown.exit_code == 0
    assert all(name in shown.stdout for name in SCHEMES)
    rows = json.loads(CliRunner().invoke(app, ["webhook", "schemes", "--json"]).stdout)
    assert {row["scheme"] for row in rows} == set(SCHEMES)


def test_help_has_an_example_and_the_exit_codes() -> None:
    shown = CliRunner().invoke(app, ["webhook", "verify", "--help"], terminal_width=200)
    assert "Example:" in shown.stdout
    assert "0 valid, 1 invalid" in shown.stdout
