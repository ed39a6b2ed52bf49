"""Orders of the shop become picks of the warehouse: the mapping of the hot-path measurements."""

from heddle import Flow, Mapping
from heddle.mapping import count_of, default, each, enum, join, multiply, required, total_of
from schemas.fulfilment import Pick
from schemas.orders import Order

pick_of = Mapping(
    Order,
    Pick,
    id="order_id",
    placed_at="event_ts",
    total="amount",
    currency="currency",
    state=enum("status", NEW="OPEN", PAID="OPEN", SHIPPED="CLOSED", CANCELLED="DROPPED"),
    coupon="coupon",
    priority=default("priority", 5),
    customer_id="customer.id",
    name=join("customer.first", "customer.last", by=" "),
    email=required("customer.email"),
    items=each("lines", {"item": "sku", "pieces": "qty", "unit_price": "price"}),
    item_count=count_of("lines"),
    items_total=total_of("lines", multiply("qty", "price")),
)

flow = Flow("order-to-pick", reads=Order, writes=Pick, do=pick_of, owner="benchmarks")
