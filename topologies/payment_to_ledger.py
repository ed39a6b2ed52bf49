"""A payment is booked when it succeeded: cash comes in, the customer owes less."""

from decimal import Decimal

from heddle.integration import Flow
from heddle.mapping import Mapping, constant, equals, items, record, take, text
from schemas.ledger import Entry
from schemas.payments import Payment

ZERO = constant(Decimal(0))

entry_of = Mapping(
    Payment,
    Entry,
    when=equals("status", "SUCCEEDED"),
    entry_id=text("payment:", take("payment_id")),
    source_id="payment_id",
    kind=constant("PAYMENT"),
    booked_at="paid_at",
    currency="currency",
    lines=items(
        record(account=constant("cash"), debit="amount", credit=ZERO),
        record(account=constant("accounts-receivable"), debit=ZERO, credit="amount"),
    ),
)

flow = Flow("payment-to-ledger", reads=Payment, writes=Entry, do=entry_of, owner="finance")
