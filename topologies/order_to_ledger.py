"""An order of the ERP is booked at its total. A change books it anew in place of what was booked; a removed order is
booked at zero."""

from decimal import Decimal

from heddle.integration import Flow
from heddle.mapping import Mapping, choose, constant, equals, items, record, take, text, when
from schemas.erp import Order
from schemas.ledger import Entry

ZERO = constant(Decimal(0))

owed = choose(when(equals("removed", True), Decimal(0)), otherwise=take("total"))

entry_of = Mapping(
    Order,
    Entry,
    entry_id=text("order:", take("order_id")),
    source_id=text("ERP-", take("order_id")),
    kind=constant("INVOICE"),
    booked_at="changed_at",
    currency=constant("USD"),
    lines=items(
        record(account=constant("accounts-receivable"), debit=owed, credit=ZERO),
        record(account=constant("revenue"), debit=ZERO, credit=owed),
    ),
)

flow = Flow("order-to-ledger", reads=Order, writes=Entry, do=entry_of, owner="finance")
