"""What the tests of the PostgreSQL source share: a database of their own, and a worker's part played by hand."""

from __future__ import annotations

import importlib.util
import json
import os
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg

from heddle.contracts import contract_of
from heddle.contracts.types import generate
from heddle.errors import DependencyDownError
from heddle.event import Draft
from heddle.local.ports import free_port
from heddle.local.postgres import Postgres
from heddle.secrets import secret
from heddle.sources.postgres import PostgresSource, Table
from heddle.sources.postgres.puller import CapturePuller

DEADLINE_S = 30.0


@contextmanager
def running_postgres(folder: Path) -> Iterator[Postgres]:
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o755)
    server = Postgres(folder, free_port(), throwaway=True)
    server.start()
    try:
        yield server
    finally:
        server.kill()
        server.remove()


def contract_type(folder: Path, name: str, fields: list[dict[str, Any]], key: list[str]) -> type[Any]:
    """The generated type of a contract made on the spot. `fields` as in an Avro schema."""
    domain = f"d{uuid.uuid4().hex[:12]}"
    home = folder / "schemas" / domain
    home.mkdir(parents=True)
    schema = {"type": "record", "name": name, "namespace": f"{domain}.v1", "doc": "For a test.", "fields": fields}
    (home / f"{name.lower()}.v1.avsc").write_text(json.dumps(schema))
    (home / f"{name.lower()}.v1.toml").write_text(
        f'owner = "tests"\ndescription = "For a test."\nkey = {json.dumps(key)}\n'
    )
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


def eventually(holds: Callable[[], bool], what: str) -> None:
    """Wait for a condition, not for a time."""
    pace, deadline_s = threading.Event(), time.monotonic() + DEADLINE_S
    while not holds():
        assert time.monotonic() < deadline_s, f"not in time: {what}"
        pace.wait(0.01)


class Database:
    """One test's database, with a publication of all its tables."""

    def __init__(self, server: Postgres) -> None:
        self.server = server
        self.name = f"t{uuid.uuid4().hex[:12]}"
        server.create_database(self.name)
        self.dsn = server.dsn.rpartition("/")[0] + f"/{self.name}"
        reference = secret(f"{self.name}/dsn")
        os.environ[reference.environment_name] = self.dsn
        self.secret = reference
        self.connection = psycopg.connect(self.dsn, autocommit=True)

    def run(self, statement: str, *parameters: Any) -> list[tuple[Any, ...]]:
        cursor = self.connection.execute(statement.encode(), parameters or None)
        return cursor.fetchall() if cursor.description else []

    def publish(self, what: str = "for all tables") -> None:
        self.run(f"create publication crm {what}")

    def source(self, *tables: Table) -> PostgresSource:
        return PostgresSource(
            "erp", dsn=self.secret, publication="crm", slot=f"s_{self.name}", tables=tables, owner="tests"
        )

    def drop_slot(self) -> None:
        """As soon as the server has noticed that its reader is gone."""
        slot = f"s_{self.name}"
        free = "select 1 from pg_replication_slots where slot_name = %s and active"
        eventually(lambda: not self.run(free, slot), "the slot is free")
        self.run("select pg_drop_replication_slot(slot_name) from pg_replication_slots where slot_name = %s", slot)

    def close(self) -> None:
        self.drop_slot()
        self.connection.close()
        os.environ.pop(self.secret.environment_name, None)


class Capture:
    """Pulls as a worker does: what a pull brought and its position are kept together, upstream is told after."""

    def __init__(self, source: PostgresSource, batch: int = 1000) -> None:
        self.source = source
        self.batch = batch
        self.position: bytes | None = None
        self.drafts: list[Draft[Any]] = []
        self.failures: list[Exception] = []
        self.raw: list[bytes] = []
        self.keys: list[bytes] = []
        self.puller: CapturePuller | None = None

    def open(self) -> CapturePuller:
        """Again while the server has not noticed yet that the former connection has ended."""
        pace, deadline_s = threading.Event(), time.monotonic() + DEADLINE_S
        while self.puller is None:
            puller = self.source.open()
            try:
                puller.begin(self.position)
                if self.position is not None:
                    puller.confirm(self.position)
                self.puller = puller
            except DependencyDownError:
                puller.close()
                if time.monotonic() > deadline_s:
                    raise
                pace.wait(0.01)
            except BaseException:
                puller.close()
                raise
        return self.puller

    def once(self, *, tell: bool = True) -> bool:
        """One pull; whether it brought records."""
        puller = self.open()
        pull = puller.pull(self.batch, 0.05)
        if pull is None:
            return False
        for record in pull.records:
            self.raw.append(record.pack())
            self.keys.append(record.key)
            try:
                self.drafts += record.drafts()
            except Exception as error:
                self.failures.append(error)
        self.position = pull.position
        if tell:
            puller.confirm(pull.position)
        return bool(pull.records)

    def drain(self, database: Database) -> None:
        """Until all that is in the database's log now is taken, snapshots included."""
        token = uuid.uuid4().hex
        self.open()
        while True:
            ((end,),) = database.run("select pg_logical_emit_message(true, 'test', %s)::text", token)
            high, _, low = str(end).partition("/")
            wanted = int(high, 16) << 32 | int(low, 16)
            deadline_s = time.monotonic() + DEADLINE_S
            while True:
                assert time.monotonic() < deadline_s, "the log is not taken in time"
                self.once()
                found = json.loads(self.position or b"{}")
                if self.puller is not None and self.puller.reached(wanted):
                    break
            if not found.get("snapshots"):
                return

    def crash(self) -> None:
        if self.puller is not None:
            self.puller.close()
            self.puller = None

    def state(self, cls: type[Any]) -> dict[bytes, Any]:
        """What a reader of the contract's topic holds after all events, by record key."""
        key_of = contract_of(cls).key_of
        held: dict[bytes, Any] = {}
        for draft in self.drafts:
            if draft.deletes is cls:
                held.pop(key_of(draft.value), None)
            elif type(draft.value) is cls:
                held[key_of(draft.value)] = draft.value
        return held

    def ids(self) -> list[str]:
        return [draft.id for draft in self.drafts]
