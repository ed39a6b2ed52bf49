"""The mapping of the benchmarks, orders.order.v1 to fulfilment.pick.v1, as a plan written by hand."""

from __future__ import annotations

from typing import Final

from wire_case import MAX_BYTES, REFUSED, Case, listed, num, text

from heddle.wire import plan as p

_LINE: Final = p.Record((p.Text(), p.Integer(32, number=1), p.Decimal(10, number=2)))
_CUSTOMER: Final = p.Record(
    (
        p.Text(begin=10, end=11),
        p.Text(content=12, end=13),
        p.Text(content=14, end=15),
        p.Union((p.Null(), p.Text(begin=16, end=17))),
        p.Boolean(),
    )
)
_ORDER: Final = p.Record(
    (
        p.Text(begin=0, content=1, end=2),
        p.Integer(64, -62_135_596_800_000, 253_402_300_799_999),
        p.Decimal(14),
        p.Text(end=3),
        p.Enum(4, number=0),
        p.Union((p.Null(), p.Text()), begin=4, end=5),
        p.Union((p.Null(), p.Text())),
        p.Union((p.Null(), p.Integer(32, begin=6, end=7))),
        p.Text(),
        _CUSTOMER,
        p.Array(_LINE, 3, begin=18, end=19, count=3, folds=(p.Fold(4, p.Multiply((p.Number(1), p.Number(2)))),)),
        p.Text(),
    )
)
_PICK: Final = (
    p.Copy(0, 3),
    p.Pick(0, (b"\0", b"\0", b"\2", b"\4")),
    p.Copy(4, 5),
    p.If(p.Present(6), (p.Copy(6, 7),), (p.Raw(num(5)),)),
    p.Copy(10, 11),
    p.WriteText((p.Content(12, 13), p.Said(b" "), p.Content(14, 15))),
    p.If(p.Present(16), (p.Copy(16, 17),), (p.Refuse(),)),
    p.Copy(18, 19),
    p.WriteNumber(p.Number(3), 32),
    p.WriteDecimal(p.Number(4), 14),
)
ORDER_TO_PICK: Final = p.WirePlan(
    mapping="cd" * 32,
    walk=_ORDER,
    when=None,
    emits=_PICK,
    key=p.Key(((p.Content(1, 2),),)),
    max_input_bytes=MAX_BYTES,
    max_output_bytes=MAX_BYTES,
    marks=20,
    numbers=5,
)

_HEAD: Final = text("ORD 7") + num(1_767_225_600_000) + text(b"\x01\xe2\x40") + text("EUR")
_TAIL: Final = text("web") + text("C-1") + text("Jörg") + text("Łukasz")
_LINES: Final = listed(
    text("SKU-1") + num(2) + text(b"\x03\xe8"),
    text("SKÜ-2") + num(300) + text(b"\xff"),
    text("") + num(0) + text(b"\0"),
)
_MAIL: Final = text("a@example.com")
_KEY: Final = b"default/ORD%207"
_WHOLE: Final = text("C-1") + text("Jörg Łukasz") + _MAIL + _LINES + num(3) + text(b"\x06\xa4")

ORDERS: Final = Case(
    "order to pick",
    ORDER_TO_PICK,
    (
        (
            _HEAD + num(1) + b"\2" + text("SPRING") + b"\2" + text("ring twice, é") + b"\2" + num(2) + _TAIL
            + b"\2" + _MAIL + b"\1" + _LINES + text("shop"),
            (_KEY, _HEAD + num(0) + b"\2" + text("SPRING") + num(2) + _WHOLE),
        ),
        (
            _HEAD + num(3) + b"\0\0\0" + _TAIL + b"\2" + _MAIL + b"\0" + _LINES + text("shop"),
            (_KEY, _HEAD + num(2) + b"\0" + num(5) + _WHOLE),
        ),
        (_HEAD + num(0) + b"\0\0\0" + _TAIL + b"\0\0" + _LINES + text("shop"), REFUSED),
        (_HEAD + num(4) + b"\0\0\0" + _TAIL + b"\2" + _MAIL + b"\0" + _LINES + text("shop"), REFUSED),
    ),
)  # fmt: skip
