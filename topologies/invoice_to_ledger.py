"""An invoice is booked when it is issued: the customer owes, revenue is earned."""

from decimal import Decimal

from heddle.integration import Flow
from heddle.mapping import Mapping, constant, equals, items, record, take, text
from schemas.billing import Invoice
from schemas.ledger import Entry

ZERO = constant(Decimal(0))

entry_of = Mapping(
    Invoice,
    Entry,
    when=equals("status", "OPEN"),
    entry_id=text("invoice:", take("invoice_id")),
    source_id="invoice_id",
    kind=constant("INVOICE"),
    booked_at="changed_at",
    currency="currency",
    lines=items(
        record(account=constant("accounts-receivable"), debit="total", credit=ZERO),
        record(account=constant("revenue"), debit=ZERO, credit="total"),
    ),
)

flow = Flow("invoice-to-ledger", reads=Invoice, writes=Entry, do=entry_of, owner="finance")
