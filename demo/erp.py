"""The ERP: the Chinook sample database, and people who work with it all day."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from decimal import Decimal
from typing import Any

import psycopg

from demo.application import REPOSITORY

SOURCE = "erp"
"""As producers/erp.py names it."""
CHINOOK = REPOSITORY / "tests" / "data" / "chinook" / "chinook_postgres.sql"
CAPTURED = ("customer", "invoice", "invoice_line")
TRANSACTIONS_PER_S = 25.0
TRACKS = 3_503
LOAD_TIMEOUT_S = 60


def load_erp(dsn: str) -> str:
    """The tables in a schema of their own, with a publication, unless an earlier demo has made them. Says what there
    is."""
    with psycopg.connect(dsn, options=f"-c search_path=erp -c statement_timeout={LOAD_TIMEOUT_S}s") as connection:
        if connection.execute("select to_regclass('erp.invoice_line') is null").fetchone() == (True,):
            connection.execute("create schema erp")
            connection.execute(CHINOOK.read_bytes())
            for table in CAPTURED:
                connection.execute(f"alter table {table} replica identity full".encode())
            connection.execute(f"create publication heddle for table {', '.join(CAPTURED)}".encode())
        counts = [connection.execute(f"select count(*) from {table}".encode()).fetchone() for table in CAPTURED]
    customers, orders, lines = (row[0] if row else 0 for row in counts)
    return f"{customers:,} customers, {orders:,} orders, {lines:,} lines"


class ErpPlayer(threading.Thread):
    """Changes rows at random, a transaction at a time. `changes`: rows by what was done to them, as it was committed.

    When the database goes away in the middle, people try again: what they see is whether it is there."""

    def __init__(self, dsn: str) -> None:
        super().__init__(name="erp-player", daemon=True)
        self.changes: Counter[str] = Counter()
        self.error: BaseException | None = None
        self._dsn = dsn
        self._dice = random.Random()
        self._stopping = threading.Event()
        self._done: Counter[str] = Counter()

    def stop(self) -> None:
        self._stopping.set()
        self.join()

    def run(self) -> None:
        try:
            while not self._stopping.is_set():
                with suppress(psycopg.OperationalError):
                    self._work()
                self._stopping.wait(1 / TRANSACTIONS_PER_S)
        except BaseException as error:
            self.error = error

    def _work(self) -> None:
        """Until told to stop, or the database goes away."""
        acts: list[Callable[[psycopg.Connection[Any]], None]] = [
            self._order, self._order, self._amend, self._amend, self._amend, self._cancel, self._renumber_line,
            self._join, self._rename, self._renumber_customer, self._leave,
        ]  # fmt: skip
        with psycopg.connect(self._dsn, autocommit=True, options="-c search_path=erp") as connection:
            due = time.monotonic()
            while not self._stopping.wait(max(due - time.monotonic(), 0)):
                due += 1 / TRANSACTIONS_PER_S
                self._done.clear()
                with connection.transaction():
                    self._dice.choice(acts)(connection)
                self.changes += self._done

    def _order(self, connection: psycopg.Connection[Any]) -> None:
        customer, order, line = self._one(
            connection, "select (select customer_id from customer order by random() limit 1),"
            " (select max(invoice_id) + 1 from invoice), (select max(invoice_line_id) from invoice_line)",
        )  # fmt: skip
        price, count = Decimal("0.99"), self._dice.randint(1, 5)
        self._do(connection, "inserted", "insert into invoice (invoice_id, customer_id, invoice_date, total)"
                 " values (%s, %s, now() at time zone 'UTC', %s)", order, customer, price * count)  # fmt: skip
        for number in range(1, count + 1):
            track = self._dice.randint(1, TRACKS)
            self._do(connection, "inserted", "insert into invoice_line values (%s, %s, %s, %s, 1)",
                     line + number, order, track, price)  # fmt: skip

    def _amend(self, connection: psycopg.Connection[Any]) -> None:
        """The quantity of a line, and with it its order's total."""
        line, order = self._one(
            connection, "select invoice_line_id, invoice_id from invoice_line order by random() limit 1"
        )
        self._do(connection, "updated", "update invoice_line set quantity = %s where invoice_line_id = %s",
                 self._dice.randint(1, 9), line)  # fmt: skip
        self._do(connection, "updated", "update invoice set total = (select sum(unit_price * quantity) from"
                 " invoice_line l where l.invoice_id = %s) where invoice_id = %s", order, order)  # fmt: skip

    def _cancel(self, connection: psycopg.Connection[Any]) -> None:
        (order,) = self._one(connection, "select invoice_id from invoice order by random() limit 1")
        self._do(connection, "deleted", "delete from invoice_line where invoice_id = %s", order)
        self._do(connection, "deleted", "delete from invoice where invoice_id = %s", order)

    def _renumber_line(self, connection: psycopg.Connection[Any]) -> None:
        self._do(connection, "given another key", "update invoice_line set invoice_line_id ="
                 " (select max(invoice_line_id) + 1 from invoice_line) where invoice_line_id ="
                 " (select invoice_line_id from invoice_line order by random() limit 1)")  # fmt: skip

    def _join(self, connection: psycopg.Connection[Any]) -> None:
        (number,) = self._one(connection, "select max(customer_id) + 1 from customer")
        self._do(connection, "inserted", "insert into customer (customer_id, first_name, last_name, email)"
                 " values (%s, %s, %s, %s)", number, "Zoë", "O'Neil\\", f"c{number}@example.org")  # fmt: skip

    def _rename(self, connection: psycopg.Connection[Any]) -> None:
        self._do(connection, "updated", "update customer set company = %s where customer_id ="
                 " (select customer_id from customer order by random() limit 1)",
                 self._dice.choice((None, "№ 1 Ltd", "Acme & Co")))  # fmt: skip

    def _renumber_customer(self, connection: psycopg.Connection[Any]) -> None:
        """One who has not ordered yet: orders name their customer."""
        self._do(connection, "given another key", "update customer set customer_id ="
                 f" (select max(customer_id) + 1 from customer) where customer_id = ({_UNUSED})")  # fmt: skip

    def _leave(self, connection: psycopg.Connection[Any]) -> None:
        self._do(connection, "deleted", f"delete from customer where customer_id = ({_UNUSED})")

    def _one(self, connection: psycopg.Connection[Any], query: str) -> tuple[Any, ...]:
        row = connection.execute(query.encode()).fetchone()
        assert row is not None
        return tuple(row)

    def _do(self, connection: psycopg.Connection[Any], what: str, statement: str, *values: Any) -> None:
        self._done[what] += connection.execute(statement.encode(), values or None).rowcount


_UNUSED = (
    "select customer_id from customer c where not exists"
    " (select from invoice i where i.customer_id = c.customer_id) order by random() limit 1"
)


def mark(dsn: str, text: str) -> None:
    """The last change of all: once it has come, so has everything before it."""
    with psycopg.connect(dsn) as connection:
        connection.execute(
            "update erp.customer set fax = %s where customer_id = (select min(customer_id) from erp.customer)", (text,)
        )
