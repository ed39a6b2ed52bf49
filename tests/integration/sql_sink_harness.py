"""What the SQL sink's tests share: sinks on schemas of their own, events, and a network that can be cut or frozen."""

from __future__ import annotations

import importlib.util
import json
import os
import socket
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from heddle.broker.log import Record
from heddle.contracts.types import generate
from heddle.event import Event, Identity, Lineage
from heddle.integration import Applied, Delivered, Outcome
from heddle.secrets import secret
from heddle.sinks.sql import SqlSink
from schemas.ledger import Entry, Line

START = datetime(2026, 1, 1, tzinfo=UTC)
APPLIED = Applied(Outcome.APPLIED)
RECOVERED = Applied(Outcome.APPLIED, recovered=True)
DUPLICATE = Applied(Outcome.DUPLICATE)
SUPERSEDED = Applied(Outcome.SUPERSEDED)


class Database:
    """One test's corner of the real PostgreSQL: a schema name of its own, and sinks that write there."""

    def __init__(self, dsn: str) -> None:
        self.dsn = dsn
        self.schema = f"t{uuid.uuid4().hex[:12]}"
        self._secrets: list[str] = []

    def secret_for(self, dsn: str) -> str:
        name = f"{self.schema}/{len(self._secrets)}"
        variable = secret(name).environment_name
        os.environ[variable] = dsn
        self._secrets.append(variable)
        return name

    def sink(self, reads: type[Any] = Entry, *, dsn: str | None = None, **options: Any) -> SqlSink[Any]:
        if reads is Entry:
            options = {"key": "entry_id", "version": "booked_at", "rows": "lines", "table": "entry_line"} | options
        options["table"] = f"{self.schema}.{options['table']}"
        reference = secret(self.secret_for(dsn or self.dsn))
        return SqlSink("ledger", reads=reads, dsn=reference, owner="finance", **options)

    def entries(self, **options: Any) -> SqlSink[Entry]:
        """A ledger sink whose tables are there."""
        sink = self.sink(**options)
        sink.apply_plan()
        return sink

    def execute(self, statement: str, parameters: Any = None) -> list[tuple[Any, ...]]:
        """`{schema}` in the statement is this test's."""
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            text = sql.SQL(statement).format(schema=sql.Identifier(self.schema))  # type: ignore[arg-type]
            cursor = connection.execute(text, parameters)
            return cursor.fetchall() if cursor.description else []

    def lines(self) -> list[tuple[Any, ...]]:
        """(entry_id, line_no, account, debit) of every row."""
        return self.execute("select entry_id, line_no, account, debit from {schema}.entry_line order by 1, 2")

    def clean(self) -> None:
        self.execute("drop schema if exists {schema} cascade")
        for variable in self._secrets:
            os.environ.pop(variable, None)


def entry(entity: str, version: int = 0, accounts: tuple[str, ...] = ("cash", "sales"), amount: str = "1.00") -> Entry:
    return Entry(
        entry_id=entity,
        source_id=f"source-{entity}",
        kind="INVOICE",
        booked_at=START + timedelta(seconds=version),
        currency="EUR",
        lines=tuple(Line(account=account, debit=Decimal(amount), credit=Decimal("0.00")) for account in accounts),
    )


def delivered(
    value: Any,
    offset: int,
    *,
    key: str | None = None,
    id: str | None = None,
    partition: int = 0,
    revision: str = "r1.0",
    body: bytes = b"body",
    replayed: bool = False,
) -> Delivered[Any]:
    """An event as the worker hands it over; its id is `<key>-<offset>` unless given."""
    key = getattr(value, "entry_id", "k") if key is None else key
    identity = Identity("/tests/ledger", id or f"{key}-{offset}")
    record = Record("ledger.entry.v1", partition, offset, f"default/{key}".encode(), b"", [], 0)
    event = Event(value, identity, "ledger.entry.v1", "2026-01-01T00:00:00Z", key, Lineage(revision, identity), None)
    return Delivered(record, event, body, replayed)


def contract_type(folder: Path, schema: dict[str, Any], key: str) -> type[Any]:
    """The generated type of a contract made on the spot."""
    domain = f"d{uuid.uuid4().hex[:12]}"
    home = folder / "schemas" / domain
    home.mkdir(parents=True)
    name = schema["name"]
    (home / f"{name.lower()}.v1.avsc").write_text(json.dumps({**schema, "namespace": f"{domain}.v1"}))
    (home / f"{name.lower()}.v1.toml").write_text(f'owner = "tests"\ndescription = "For a test."\nkey = ["{key}"]\n')
    path = home / "__init__.py"
    path.write_text(next(text for made, text in generate(folder).items() if made == path))
    spec = importlib.util.spec_from_file_location(f"schemas_{domain}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    found: type[Any] = getattr(module, name)
    return found


Hook = Callable[[bytes, "Link"], bool]
HOOK_DEADLINE_S = 20.0


class Link:
    """One client's connection through the proxy. A hook sees what the client sends; its answer: pass it on?"""

    def __init__(self, client: socket.socket, server: socket.socket, hook: Hook) -> None:
        self.client = client
        self.server = server
        self.mute = False
        self._hook = hook
        self._threads = [threading.Thread(target=way, daemon=True) for way in (self._from_client, self._from_server)]
        for thread in self._threads:
            thread.start()

    def join(self) -> None:
        """A hook may still be at work when the client has its answer: what comes next must not meet it."""
        for thread in self._threads:
            thread.join(HOOK_DEADLINE_S)
            assert not thread.is_alive(), "a hook of the proxy does not end"

    def cut(self) -> None:
        for end in (self.client, self.server):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def _from_client(self) -> None:
        with suppress(OSError):
            while data := self.client.recv(65536):
                if self._hook(data, self):
                    self.server.sendall(data)
        self.cut()

    def _from_server(self) -> None:
        with suppress(OSError):
            while (data := self.server.recv(65536)) and not self.mute:
                self.client.sendall(data)
        self.cut()


class Proxy:
    """A TCP relay in front of PostgreSQL. `hook` may be replaced at any time."""

    def __init__(self, dsn: str) -> None:
        parts = conninfo_to_dict(dsn)
        self._target = (str(parts["host"]), int(parts["port"]))
        self._listener = socket.create_server(("127.0.0.1", 0))
        port = self._listener.getsockname()[1]
        self.dsn = make_conninfo(**{**parts, "host": "127.0.0.1", "port": port, "sslmode": "disable"})
        self.hook: Hook = pass_on
        self._links: list[Link] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        try:
            while True:
                client, _ = self._listener.accept()
                try:
                    server = socket.create_connection(self._target)
                except OSError:
                    client.close()
                    continue
                self._links.append(Link(client, server, lambda data, link: self.hook(data, link)))
        except OSError:
            return

    def close(self) -> None:
        self._listener.close()
        for link in self._links:
            link.cut()
        for link in self._links:
            link.join()


@contextmanager
def proxied(dsn: str) -> Iterator[Proxy]:
    proxy = Proxy(dsn)
    try:
        yield proxy
    finally:
        proxy.close()


def pass_on(_data: bytes, _link: Link) -> bool:
    return True
