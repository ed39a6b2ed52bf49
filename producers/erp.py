"""The ERP's database: customers, orders and their lines, as they are and with every change from then on.

A removed row is told by its contract (`removed`) and not by a tombstone: what it held last is what the ledger and the
billing API have to take back. That needs `replica identity full`, which the ERP's administrators have set."""

from datetime import datetime

from heddle import PostgresSource, RowView, Table, secret
from schemas.erp import Customer, Order, OrderLine


def removed(row: RowView) -> bool:
    return row.operation == "delete"


def changed_at(row: RowView) -> datetime:
    """In milliseconds, as the ledger counts; changes of one row that are closer keep the order of the log."""
    return row.commit_time.replace(microsecond=row.commit_time.microsecond // 1000 * 1000)


STATE = {"removed": removed, "changed_at": changed_at}

source = PostgresSource(
    "erp",
    dsn=secret("erp/dsn"),
    publication="heddle",
    slot="heddle_erp",
    tables=[
        Table("erp.customer", emits=Customer, deletes=Customer, columns=STATE),
        Table(
            "erp.invoice",
            emits=Order,
            deletes=Order,
            columns={"order_id": "invoice_id", "ordered_at": "invoice_date", **STATE},
        ),
        Table(
            "erp.invoice_line",
            emits=OrderLine,
            deletes=OrderLine,
            columns={"order_line_id": "invoice_line_id", "order_id": "invoice_id", **STATE},
        ),
    ],
    owner="erp-systems",
)
