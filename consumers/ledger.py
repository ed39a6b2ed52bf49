"""The ledger: every booking's lines as rows, for finance to read and to sum."""

from heddle import SqlSink, secret
from schemas.ledger import Entry

sink = SqlSink(
    "ledger",
    reads=Entry,
    table="ledger.entry_line",
    key="entry_id",
    version="booked_at",
    rows="lines",
    dsn=secret("ledger/dsn"),
    owner="finance",
)
