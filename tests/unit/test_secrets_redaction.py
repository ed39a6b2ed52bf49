"""Nothing that was resolved leaves the process: not in a log, an error, a traceback, an audit record."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import uuid
from pathlib import Path

import pytest
import structlog

from heddle.audit import AuditTrail
from heddle.errors import UsageError
from heddle.secrets import redact, remember, secret
from heddle.settings import Settings, load_settings
from heddle.telemetry.logs import configure_logs


def unique(text: str = "") -> str:
    """A value that no other test has made known."""
    return f"s3cret{text}{uuid.uuid4().hex}"


@pytest.mark.parametrize("line", ["{}", "prefix {} suffix", "postgresql://me:{}@db/x", "a{}b{}c"])
def test_a_resolved_value_is_hidden_wherever_it_stands(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    value = unique()
    assert value in redact(line.format(value, value))
    monkeypatch.setenv("HEDDLE_SECRET_T_REDACTED", value)
    secret("t/redacted").resolve()
    assert redact(line.format(value, value)) == line.format("***", "***")


def test_a_value_that_was_replaced_stays_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    old, new = unique("old"), unique("new")
    for value in (old, new):
        monkeypatch.setenv("HEDDLE_SECRET_T_ROTATED", value)
        secret("t/rotated").resolve()
    assert redact(f"{old} {new}") == "*** ***"


def test_every_live_value_is_hidden_though_one_alone_was_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = unique(), unique()
    monkeypatch.setenv("HEDDLE_SECRET_T_LIVE", f"{first}\n{second}")
    secret("t/live").resolve()
    assert redact(second) == "***"


def test_a_value_is_hidden_as_urls_json_and_python_write_it() -> None:
    value = unique("/p@ss\"w\\ö'rd\t")
    remember(value)
    for written in (
        value,
        json.dumps({"x": value}),
        json.dumps({"x": value}, ensure_ascii=False),
        repr(value),
        value.replace("/", "%2F").replace("@", "%40").replace('"', "%22").replace("\\", "%5C")
        .replace("ö", "%C3%B6").replace("'", "%27").replace("\t", "%09"),
    ):  # fmt: skip
        assert value[-32:] not in redact(written), written


@pytest.mark.parametrize(
    "address",
    [
        "postgresql://me:{}%2Fpart@db:5432/x?sslmode=require",
        "postgresql://me:{}%2Fpart@one:1,two:2/x",
        "postgresql://db/x?user=me&password={}/part",
        "host=db user=me password={}/part dbname=x",
        "host=db password='{}/part' user=me",
        "host=db password = '{}\\/part' user=me",
    ],
)
def test_the_password_inside_of_an_address_is_hidden_by_itself(address: str) -> None:
    password = unique()
    remember(address.format(password))
    assert redact(f'FATAL: "{password}/part" is wrong') == 'FATAL: "***" is wrong'


def test_a_password_that_everybody_knows_hides_no_words() -> None:
    remember("postgresql://heddle:heddle@db/heddle")
    assert redact("heddle: at postgresql://heddle:heddle@db/heddle") == "heddle: at ***"


def test_each_line_of_a_key_is_hidden() -> None:
    lines = [unique(), unique()]
    remember("-----BEGIN PRIVATE KEY-----\n" + "\n".join(lines) + "\n-----END PRIVATE KEY-----\n")
    for line in lines:
        assert redact(f"cannot read {line}") == "cannot read ***"


def test_settings_that_are_secrets_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    given = [unique() for _ in range(5)]
    monkeypatch.setenv("HEDDLE_KAFKA_PASSWORD", given[0])
    monkeypatch.setenv("HEDDLE_REGISTRY_PASSWORD", given[1])
    monkeypatch.setenv("HEDDLE_DSN", f"postgresql://me:{given[2]}@db/x")
    kafka = {"ssl.key.password": given[3], "sasl.oauthbearer.client.secret": given[4], "client.id": "shown"}
    monkeypatch.setenv("HEDDLE_KAFKA", json.dumps(kafka))
    load_settings()
    assert redact(" ".join([*given, "shown"])) == "*** *** *** *** *** shown"


def test_a_password_is_given_or_named_but_not_both(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEDDLE_KAFKA_PASSWORD_SECRET", "kafka/password")
    monkeypatch.setenv("HEDDLE_SECRET_KAFKA_PASSWORD", "first-one")
    settings = load_settings()
    assert settings.kafka_config()["sasl.password"] == "first-one"
    monkeypatch.setenv("HEDDLE_SECRET_KAFKA_PASSWORD", "second-one")
    assert settings.kafka_config()["sasl.password"] == "second-one"
    monkeypatch.setenv("HEDDLE_KAFKA_PASSWORD", "a third")
    with pytest.raises(UsageError, match="HEDDLE_KAFKA_PASSWORD and HEDDLE_KAFKA_PASSWORD_SECRET are both set"):
        load_settings()
    monkeypatch.setenv("HEDDLE_REGISTRY_PASSWORD_SECRET", "Not/A/Name")
    monkeypatch.delenv("HEDDLE_KAFKA_PASSWORD")
    with pytest.raises(UsageError, match="secret name 'Not/A/Name'"):
        load_settings()


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_no_log_line_shows_a_secret(log_format: str, monkeypatch: pytest.MonkeyPatch) -> None:
    value, lines = unique('"\\'), io.StringIO()
    remember(value)
    monkeypatch.setattr(sys, "stderr", lines)
    before = structlog.get_config()
    try:
        configure_logs(Settings(log_format=log_format))
        log = structlog.get_logger()
        log.error("refused", error=value, nested={"deep": [value]})
        try:
            raise ValueError(f"no {value}")
        except ValueError:
            log.exception("crashed")
    finally:
        structlog.configure(**before)
    told = lines.getvalue()
    assert value[-32:] not in told
    assert told.count("***") >= 3


def test_no_audit_record_shows_a_secret() -> None:
    value = unique()
    remember(value)
    trail = AuditTrail("s", "t", "a", "worker:0", b"k")
    records, _ = trail.event(0, "", "paused", {"why": f"refused {value}", "more": [{"deep": value}]})
    assert value.encode() not in b"".join(record.value or b"" for record in records)


def test_neither_an_error_nor_a_crash_of_a_command_shows_a_secret(tmp_path: Path) -> None:
    value = unique()
    program = (
        "import sys, typer\n"
        "from heddle.cli import main\n"
        "from heddle.errors import UsageError\n"
        "from heddle.secrets import secret\n"
        "@main.app.command()\n"
        "def fail(how: str) -> None:\n"
        "    value = secret('t/crash').resolve()\n"
        "    raise UsageError(f'no {value}', hint=f'not {value}') if how == 'error' else ValueError(f'no {value}')\n"
        "main.main()\n"
    )
    for how, code in (("error", 2), ("crash", 1)):
        done = subprocess.run(
            [sys.executable, "-c", program, "fail", how],
            env={"HEDDLE_SECRET_T_CRASH": value, "PATH": "/usr/bin"},
            capture_output=True, text=True, check=False, cwd=tmp_path,
        )  # fmt: skip
        assert done.returncode == code
        assert value not in done.stdout + done.stderr
        assert "no ***" in done.stderr
