"""An application that captures the Chinook sample database: contracts made of its catalogue, one source, all tables."""

from __future__ import annotations

import random
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import capture_outbox
import psycopg
from building import record, types_of, write_contract
from psycopg import sql

from heddle.broker.log import Broker
from heddle.contracts import AvroCodec, Registry, contract_of

CHINOOK = Path(__file__).parents[1] / "data" / "chinook" / "chinook_postgres.sql"
SOURCE = "shop"
SLOT = "heddle_shop"
TIMEOUT_S = 60.0

_COLUMNS = """
select c.relname, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull,
       coalesce(a.attnum = any(i.indkey), false)
from pg_class c join pg_attribute a on a.attrelid = c.oid and a.attnum > 0
left join pg_index i on i.indrelid = c.oid and i.indisprimary
where c.relnamespace = 'public'::regnamespace and c.relkind = 'r' order by c.relname, a.attnum
"""
_KINDS: dict[str, Any] = {
    "integer": "int",
    "numeric(10,2)": {"type": "bytes", "logicalType": "decimal", "precision": 10, "scale": 2},
    "timestamp without time zone": {"type": "long", "logicalType": "local-timestamp-micros"},
}
_PRODUCER = '''"""The shop's database."""

from heddle import OutboxSource, PostgresSource, Table, secret
from schemas.shop import Notice, {types}

shop = PostgresSource(
    "{source}", dsn=secret("shop/dsn"), publication="heddle", slot="{slot}", owner="tests", tables=[{tables}],
)
'''


class Layout(NamedTuple):
    table: str
    cls: str
    columns: tuple[str, ...]
    key: tuple[str, ...]


class CaptureProject:
    """`log` and `last_lines` are what `Shell` asks for."""

    def __init__(self, root: Path, dsn: str) -> None:
        self.root = root
        self.log = root / "run.log"
        self.dsn = dsn
        for folder in ("producers", ".heddle"):
            (root / folder).mkdir(parents=True)
        (root / "pyproject.toml").write_text('[tool.heddle]\nproject = "capture"\n')
        self.log.write_text("")
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute(CHINOOK.read_bytes())
            connection.execute("create publication heddle for all tables")
            rows = connection.execute(_COLUMNS).fetchall()
            capture_outbox.declare(root, connection)
        self.layouts = [self._contract(table, rows) for table in sorted({row[0] for row in rows})]
        self.types: ModuleType = types_of(root, SOURCE)
        tables = ", ".join(f'Table("public.{each.table}", emits={each.cls})' for each in self.layouts)
        names = ", ".join(each.cls for each in self.layouts)
        producer = _PRODUCER.format(types=names, source=SOURCE, slot=SLOT, tables=tables)
        (root / "producers" / "shop.py").write_text(producer + capture_outbox.PRODUCER)

    def last_lines(self, count: int = 80) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-count:])

    def rows(self, layout: Layout) -> set[tuple[Any, ...]]:
        """What the table holds now."""
        columns = sql.SQL(", ").join(map(sql.Identifier, layout.columns))
        with psycopg.connect(self.dsn) as connection:
            query = sql.SQL("select {} from {}").format(columns, sql.Identifier(layout.table))
            return set(connection.execute(query).fetchall())

    def replayed(self, layout: Layout, broker: Broker, registry: Registry) -> Replay:
        """What a reader of the contract's topic holds at its end."""
        contract = contract_of(getattr(self.types, layout.cls))
        codec = AvroCodec[Any](contract, registry)
        replay = Replay(set(), 0, 0, 0, 0)
        reader, admin = broker.reader(), broker.admin()
        try:
            for partition in range(admin.topics([contract.topic])[contract.topic].partitions):
                held: dict[bytes, Any] = {}
                newest: dict[bytes, tuple[int, int]] = {}
                ids: set[bytes] = set()
                for found in reader.scan(contract.topic, partition, TIMEOUT_S, 0, settled=True):
                    key, event_id = found.key or b"", dict(found.headers)["ce_id"] or b""
                    replay = replay._replace(events=replay.events + 1, doubles=replay.doubles + (event_id in ids))
                    ids.add(event_id)
                    place = _place(event_id)
                    if place is not None:
                        replay = replay._replace(disorder=replay.disorder + (place < newest.get(key, (0, 0))))
                        replay = replay._replace(streamed=replay.streamed + 1)
                        newest[key] = place
                    if found.value is None:
                        held.pop(key, None)
                    else:
                        held[key] = codec.decode(found.value)
                replay.rows.update(tuple(getattr(v, name) for name in layout.columns) for v in held.values())
        finally:
            reader.close()
            admin.close()
        return replay

    def _contract(self, table: str, rows: Sequence[tuple[Any, ...]]) -> Layout:
        mine = [row for row in rows if row[0] == table]
        fields: list[Any] = []
        for _, column, kind, is_required, is_key in mine:
            avro = _KINDS.get(kind, "string")
            needed = is_required or is_key
            fields.append((column, avro) if needed else {"name": column, "type": ["null", avro], "default": None})
        cls = "".join(part.capitalize() for part in table.split("_"))
        key = tuple(row[1] for row in mine if row[4])
        write_contract(self.root, record(fields, cls, f"{SOURCE}.v1"), f"{SOURCE}/{table.replace('_', '-')}.v1", key)
        return Layout(table, cls, tuple(row[1] for row in mine), key)


class Replay(NamedTuple):
    """`rows` at the end of a topic; its events, and those that no snapshot made; how many ids came again; how many
    events came before an older one."""

    rows: set[tuple[Any, ...]]
    events: int
    streamed: int
    doubles: int
    disorder: int


def _place(event_id: bytes) -> tuple[int, int] | None:
    """Commit and ordinal; None for a row of a snapshot."""
    parts = event_id.decode().split(":")
    return (int(parts[1], 16), int(parts[2].rstrip("-"))) if len(parts) == 3 else None


class Business:
    """What the shop does all day, at random: `changes` counts rows."""

    def __init__(self, dsn: str, dice: random.Random) -> None:
        self._dice = dice
        self._connection = psycopg.connect(dsn, autocommit=True)
        self._next = 100_000
        self._customers: list[int] = []
        self._lines: list[int] = []
        self.notices = capture_outbox.Notices(dice)
        self.changes = 0

    def close(self) -> None:
        self._connection.close()

    def work(self, changes: int) -> None:
        """At least so many, in transactions of one row, of some, and now and then of thousands."""
        goal = self.changes + changes
        while self.changes < goal:
            size = self._dice.choice((1, 1, 1, 3, 10, 60))
            undone = self._dice.random() < 0.05
            before = list(self._customers), list(self._lines), self.changes, self.notices.written.copy()
            with self._connection.transaction(force_rollback=undone):
                self.notices.write(self._connection)
                for _ in range(size):
                    self._dice.choice((self._buy, self._move, self._rename, self._leave, self._join, self._listen))()
                if self._dice.random() < 0.002:
                    self._do("update track set milliseconds = milliseconds + 1 where track_id <= 3000")
            if undone:
                self._customers, self._lines, self.changes, self.notices.written = before

    def _join(self) -> None:
        self._next += 1
        self._customers.append(self._next)
        self._do(
            "insert into customer (customer_id, first_name, last_name, email, phone) values (%s, %s, %s, %s, %s)",
            self._next, f"Zoë {self._next}", "O'Neil\\", f"{self._next}@example.org", None,
        )  # fmt: skip

    def _rename(self) -> None:
        customer = self._dice.choice([*self._customers, *range(1, 60)])
        self._do("update customer set company = %s where customer_id = %s", f"№ {self._dice.random()}", customer)

    def _leave(self) -> None:
        if self._customers:
            self._do("delete from customer where customer_id = %s", self._drawn(self._customers))

    def _move(self) -> None:
        """The key changes, and comes back to one that was used before."""
        if self._customers:
            self._next += 1
            customer = self._drawn(self._customers)
            self._do("update customer set customer_id = %s where customer_id = %s", self._next, customer)
            self._customers.append(self._next)

    def _buy(self) -> None:
        self._next += 1
        self._lines.append(self._next)
        price = Decimal(self._dice.randrange(1, 10**8)) / 100
        self._do("insert into invoice_line values (%s, %s, %s, %s, 1)", self._next, self._dice.randrange(1, 413),
                 self._dice.randrange(1, 3500), price)  # fmt: skip
        if len(self._lines) > 500:
            self._do("delete from invoice_line where invoice_line_id = %s", self._drawn(self._lines))

    def _listen(self) -> None:
        pair = self._dice.randrange(1, 19), self._dice.randrange(1, 3500)
        self._do("insert into playlist_track values (%s, %s) on conflict do nothing", *pair)
        self._do("delete from playlist_track where playlist_id = %s and track_id = %s", self._dice.randrange(1, 19),
                 self._dice.randrange(1, 3500))  # fmt: skip

    def _drawn(self, numbers: list[int]) -> int:
        return numbers.pop(self._dice.randrange(len(numbers)))

    def _do(self, statement: str, *values: Any) -> None:
        self.changes += max(self._connection.execute(statement.encode(), values or None).rowcount, 0)
