"""An outbox beside the captured tables, in Debezium's form: counted notices of accounts, in the shop's transactions."""

from __future__ import annotations

import random
import sys
from collections import Counter
from pathlib import Path
from types import ModuleType
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "contracts"))

import psycopg
from building import record, write_contract

from heddle.broker.log import Broker
from heddle.contracts import AvroCodec, Registry, contract_of
from heddle.event import ID

SOURCE = "shop-outbox"
SLOT = "heddle_shop_outbox"
CONTRACT = "shop/notice.v1"
TYPE = "shop.notice.v1"
ACCOUNTS = 40
TIMEOUT_S = 60.0

SQL = """
create schema app;
create table app.outbox (
    id uuid not null primary key,
    aggregatetype character varying(255) not null,
    aggregateid character varying(255) not null,
    type character varying(255) not null,
    payload jsonb
);
create publication heddle_outbox for table app.outbox with (publish = 'insert')
"""
PRODUCER = f'''

outbox = OutboxSource(
    "{SOURCE}", dsn=secret("shop/dsn"), table="app.outbox", emits=Notice, read_by="capture",
    publication="heddle_outbox", slot="{SLOT}", owner="tests",
)
'''


def declare(root: Path, connection: psycopg.Connection[Any]) -> None:
    """The table, and the contract of what it tells."""
    for statement in SQL.split(";\n"):
        connection.execute(statement.encode())
    fields = [("account", "long"), ("number", "long")]
    write_contract(root, record(fields, "Notice", "shop.v1"), CONTRACT, ("account",))


class Notices:
    """What the application writes: of each account the numbers from 1, without a gap."""

    def __init__(self, dice: random.Random) -> None:
        self._dice = dice
        self.written: Counter[int] = Counter()

    def write(self, connection: psycopg.Connection[Any]) -> None:
        account = self._dice.randrange(ACCOUNTS)
        self.written[account] += 1
        connection.execute(
            "insert into app.outbox values (gen_random_uuid(), 'notice', %s, %s, "
            "jsonb_build_object('account', %s::bigint, 'number', %s::bigint))",
            (str(account), TYPE, account, self.written[account]),
        )


def left(dsn: str) -> int:
    """Rows that nobody has deleted yet."""
    with psycopg.connect(dsn) as connection:
        row = connection.execute("select count(*) from app.outbox").fetchone()
    return int(row[0]) if row else 0


def published(types: ModuleType, broker: Broker, registry: Registry) -> tuple[dict[int, list[int]], int]:
    """Numbers by account, in the topic's order; and how many event ids came again."""
    contract = contract_of(types.Notice)
    codec = AvroCodec[Any](contract, registry)
    found: dict[int, list[int]] = {}
    ids: Counter[bytes] = Counter()
    reader, admin = broker.reader(), broker.admin()
    try:
        for partition in range(admin.topics([contract.topic])[contract.topic].partitions):
            for event in reader.scan(contract.topic, partition, TIMEOUT_S, 0, settled=True):
                value = codec.decode(event.value or b"")
                found.setdefault(value.account, []).append(value.number)
                ids[dict(event.headers)[ID] or b""] += 1
    finally:
        reader.close()
        admin.close()
    return found, ids.total() - len(ids)
