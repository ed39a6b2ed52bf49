"""What is written of lists: counts, sums, and lists of some of the items."""

from __future__ import annotations

from typing import Final

from wire_case import REFUSED, X, Y, Z, decimal, listed, num, text, writing

from heddle.wire import plan as p

LINE: Final = p.Record((p.Text(begin=2, end=3), p.Integer(32, number=1), p.Decimal(10, number=2)))
LINES: Final = p.Array(
    LINE, 4, begin=4, end=5, count=3, folds=(p.Fold(4, p.Multiply((p.Number(1), p.Number(2)))), p.Fold(5, p.Number(1)))
)
WALKED: Final = p.Record(
    (p.Text(begin=12, end=13, content=14), p.Integer(32, begin=15, end=16, number=6), p.Decimal(10, begin=17, end=18))
)
TAKEN: Final = p.Each(
    4, WALKED, p.Compare(p.Number(6), ">", p.Exact(1)), (p.Copy(15, 18), p.WriteText((p.Content(14, 13), p.Said(b"!"))))
)
TOTALS: Final = (p.WriteNumber(p.Number(3), 64), p.WriteDecimal(p.Number(4), 14), p.WriteNumber(p.Number(5), 64))


def line(sku: str, quantity: int, *price: int) -> bytes:
    return text(sku) + num(quantity) + decimal(*price)


ONE, TWO, THREE = line("a", 1, 100), line("ü", 2, 0xFF), line("c" * 70, 300, 1, 0)
THIRD = num(300) + decimal(1, 0) + text("c" * 70 + "!")
SECOND = num(2) + decimal(0xFF) + text("ü!")
EACH_TAG: Final = p.Each(
    8, p.Union((p.Null(), p.Text(content=9, end=10))), p.Present(9), (p.WriteText((p.Content(9, 10),)),)
)
EACH_TAGGED: Final = p.Each(
    4,
    p.Record((p.Text(begin=6, end=7), p.Array(p.Union((p.Null(), p.Text())), 1, begin=8, end=11, count=7))),
    None,
    (EACH_TAG, p.Copy(6, 7), p.WriteNumber(p.Number(7), 32)),
)
TAGGED: Final = p.Array(p.Record((p.Text(), p.Array(p.Union((p.Null(), p.Text())), 1))), 2, begin=4, end=5)

LISTS: Final = (
    writing(
        "count and total",
        TOTALS,
        (b"\0", b"\0" + decimal(0) + b"\0"),
        (listed(ONE, TWO), num(2) + decimal(98) + num(3)),
        (listed(ONE, TWO, THREE), num(3) + decimal(1, 0x2C, 0x62) + num(303)),
        (b"\2" + ONE + b"\2" + TWO + b"\0", num(2) + decimal(98) + num(3)),
        (b"\3" + num(len(ONE + TWO)) + ONE + TWO + b"\1" + num(len(TWO)) + TWO + b"\0", num(3) + decimal(96) + num(5)),
        (listed(ONE, text("a") + num(1)), REFUSED),
        fields=(LINES,),
    ),
    writing(
        "some items",
        (p.Raw(b"<"), TAKEN, p.Raw(b">")),
        (b"\0", b"<\0>"),
        (listed(ONE), b"<\0>"),
        (listed(TWO, ONE, THREE), b"<" + listed(SECOND, THIRD) + b">"),
        (b"\2" + TWO + b"\2" + ONE + b"\1" + num(len(THREE)) + THREE + b"\0", b"<" + listed(SECOND, THIRD) + b">"),
        (listed(*[TWO] * 100), b"<" + listed(*[SECOND] * 100) + b">"),
        fields=(LINES,),
    ),
    writing(
        "all items twice",
        (p.Each(4, WALKED, None, (p.Copy(12, 13),)), p.Each(4, WALKED, None, ())),
        (listed(ONE, TWO), listed(text("a"), text("ü")) + b"\4\0"),
        (b"\0", b"\0\0"),
        fields=(LINES,),
    ),
    writing(
        "items that may be there",
        (p.If(p.Present(4), (p.Raw(b"\2"), TAKEN), (p.Raw(b"\0"),)), p.If(p.Present(4), TOTALS, ())),
        (b"\0", b"\0"),
        (b"\2" + listed(TWO), b"\2" + listed(SECOND) + num(1) + decimal(0xFE) + num(2)),
        (b"\2\0", b"\2\0\0" + decimal(0) + b"\0"),
        fields=(p.Union((p.Null(), LINES)),),
    ),
    writing(
        "lists in lists",
        (EACH_TAGGED,),
        (b"\0", b"\0"),
        (
            listed(X + listed(b"\0", Y, Y), Z + b"\0"),
            listed(listed(text("y"), text("y")) + X + num(3), b"\0" + Z + num(0)),
        ),
        fields=(TAGGED,),
    ),
    writing(
        "a choice within items",
        (
            p.Each(
                4,
                WALKED,
                None,
                (
                    p.If(
                        p.Compare(p.Number(6), "<", p.Exact(2)),
                        (p.If(p.Compare(p.Number(6), "<", p.Exact(0)), (p.Raw(b"-"),), (p.Raw(b"+"),)),),
                        (p.Copy(12, 13),),
                    ),
                ),
            ),
        ),
        (listed(line("a", 1, 0), line("b", -1, 0), line("c", 5, 0)), listed(b"+", b"-", text("c"))),
        fields=(LINES,),
    ),
    writing(
        "refused within items",
        (p.Each(4, WALKED, p.Compare(p.Number(6), ">", p.Exact(1)), (p.Refuse(),)),),
        (listed(ONE), b"\0"),
        (listed(ONE, TWO), REFUSED),
        fields=(LINES,),
    ),
)
