"""Every won deal becomes one invoice."""

from decimal import Decimal

from heddle.integration import Flow
from heddle.mapping import (
    Mapping,
    choose,
    constant,
    default,
    equals,
    fail,
    lookup,
    required,
    subtract,
    take,
    text,
    when,
)
from schemas.billing import Invoice
from schemas.crm import Deal

LIST_PRICES_USD = {
    "GTX Basic": Decimal(550),
    "GTX Pro": Decimal(4821),
    "MG Special": Decimal(55),
    "MG Advanced": Decimal(3393),
    "GTX Plus Pro": Decimal(5482),
    "GTX Plus Basic": Decimal(1096),
    "GTK 500": Decimal(26768),
}

list_price = lookup("product", LIST_PRICES_USD)
agreed_price = required("close_value")

# A deal in another currency would get a discount that is none.
in_usd = choose(when(equals("currency", "USD"), "USD"), otherwise=fail("currency", "the price table is in USD"))

invoice_of = Mapping(
    Deal,
    Invoice,
    when=equals("stage", "WON"),
    invoice_id=text("INV-", take("deal_id")),
    deal_id="deal_id",
    customer=default("account", "UNKNOWN ACCOUNT"),
    sales_agent="sales_agent",
    issued_on=required("closed_on"),
    product="product",
    list_price=list_price,
    discount=subtract(list_price, agreed_price),
    total=agreed_price,
    currency=in_usd,
    status=constant("OPEN"),
    changed_at="changed_at",
)

flow = Flow("deal-to-invoice", reads=Deal, writes=Invoice, do=invoice_of, owner="finance")
