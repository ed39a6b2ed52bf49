"""What emits write: numbers, texts, choices, lists, keys and calls."""

from __future__ import annotations

from typing import Final

from wire_case import (
    FRAME,
    LEFT_OUT,
    MAX_BYTES,
    REFUSED,
    WRITER,
    Case,
    Expected,
    keyed,
    listed,
    nested,
    num,
    numbers,
    plan,
    text,
    writing,
)

from heddle.wire import plan as p

N: Final = p.Number(0)
LONG: Final = 2**63 - 1


def decimal(*data: int) -> bytes:
    return text(bytes(data))


NUMBERS: Final = (
    numbers(
        "write long", p.WriteNumber(N, 64), *((n, num(n)) for n in (0, -1, 63, 64, -64, -65, 2**40, LONG, -LONG - 1))
    ),
    numbers(
        "write int",
        p.WriteNumber(N, 32),
        *((n, num(n)) for n in (0, 2**31 - 1, -(2**31))),
        *((n, REFUSED) for n in (2**31, -(2**31) - 1, LONG)),
    ),
    numbers("write a constant", p.WriteNumber(p.Exact(-70), 32), (5, num(-70))),
    numbers("write too large a constant", p.WriteNumber(p.Exact(2**63), 64), (5, REFUSED)),
    numbers(
        "add",
        p.WriteNumber(p.Add((N, p.Exact(1), N)), 64),
        (0, num(1)),
        (-1, num(-1)),
        (2**61, num(2**62 + 1)),
        (2**62, REFUSED),
        (-(2**62), num(1 - 2**63)),
        (-LONG - 1, REFUSED),
    ),
    numbers("add nothing", p.WriteNumber(p.Add(()), 64), (5, num(0))),
    numbers("multiply nothing", p.WriteNumber(p.Multiply(()), 64), (5, num(1))),
    numbers("subtract", p.WriteNumber(p.Subtract(p.Exact(-10), N), 64), (3, num(-13)), (-3, num(-7)), (LONG, REFUSED)),
    numbers(
        "subtract what was subtracted",
        p.WriteNumber(p.Subtract(p.Exact(1), p.Subtract(N, p.Exact(-2))), 64),
        (3, num(-4)),
        (-3, num(2)),
    ),
    numbers(
        "multiply",
        p.WriteNumber(p.Multiply((N, p.Add((N, p.Exact(-1))), p.Exact(-2))), 64),
        (3, num(-12)),
        (-3, num(-24)),
        (0, num(0)),
        (2**40, REFUSED),
    ),
    numbers(
        "write decimal",
        p.WriteDecimal(N, 18),
        *(
            (n, text(n.to_bytes(size, "big", signed=True)))
            for n, size in (
                (0, 1),
                (-1, 1),
                (127, 1),
                (128, 2),
                (-127, 1),
                (255, 2),
                (256, 2),
                (32_767, 2),
                (32_768, 3),
                (-32_767, 2),
                (-32_769, 3),
                (2**31, 5),
                (10**18 - 1, 8),
                (1 - 10**18, 8),
            )
        ),
        (10**18, REFUSED),
        (-(10**18), REFUSED),
    ),
    numbers(
        "write too long a decimal", p.WriteDecimal(N, 3), (999, decimal(3, 0xE7)), (1_000, REFUSED), (-1_000, REFUSED)
    ),
    numbers(
        "write fixed decimal",
        p.WriteDecimal(N, 4, size=3),
        (0, b"\0\0\0"),
        (-1, b"\xff\xff\xff"),
        (9_999, b"\0\x27\x0f"),
        (10_000, REFUSED),
        (-10_000, REFUSED),
    ),
    numbers("write decimal of constant", p.WriteDecimal(p.Exact(-12_345), 5), (0, decimal(0xCF, 0xC7))),
    numbers(
        "wide decimal",
        p.WriteDecimal(p.Multiply((N, N, N, p.Exact(10**40))), 200),
        (0, decimal(0)),
        (LONG, text((LONG**3 * 10**40).to_bytes(41, "big", signed=True))),
        wide=True,
    ),
    numbers(
        "digits",
        p.WriteText((p.Digits(N, 2),)),
        (0, text("0.00")),
        (5, text("0.05")),
        (-5, text("-0.05")),
        (1_250, text("12.50")),
        (-1_250, text("-12.50")),
        (LONG, text("92233720368547758.07")),
    ),
    numbers(
        "digits without point",
        p.WriteText(
            (
                p.Said(b"#"),
                p.Digits(N),
            )
        ),
        (0, text("#0")),
        (-12, text("#-12")),
    ),
    numbers("digits of many places", p.WriteText((p.Digits(N, 20),)), (-7, text("-0.00000000000000000007"))),
)

A, B, C = p.Text(content=2, end=3), p.Text(content=4, end=5), p.Text(content=6, end=7)
PARTS_A, PARTS_B = (p.Content(2, 3),), (p.Content(4, 5),)
OPTIONAL = p.Union((p.Null(), p.Text(content=8, end=9)))

TEXTS: Final = (
    writing(
        "join two texts",
        (p.WriteText((p.Content(2, 3), p.Said(b", "), p.Content(4, 5))),),
        (text("a") + text("ß"), text("a, ß")),
        (text("") + text(""), text(", ")),
        (text("x" * 62) + text(""), text("x" * 62 + ", ")),
        (text("x" * 40) + text("y" * 400), text("x" * 40 + ", " + "y" * 400)),
        (text("a") + text(b"\xff"), REFUSED),
        fields=(A, B),
    ),
    writing(
        "a text three times",
        (p.WriteText((p.Content(2, 3), p.Content(2, 3), p.Said(b"/"), p.Content(2, 3))),),
        (text("ab"), text("abab/ab")),
        (text("é" * 40), text("é" * 80 + "/" + "é" * 40)),
        fields=(A,),
    ),
    writing("a said text", (p.WriteText((p.Said("größer".encode()), p.Said(b"!"))),), (b"", text("größer!"))),
    writing("no text", (p.WriteText(()), p.Raw(b"")), (b"", text(""))),
    writing("a long said text", (p.WriteText((p.Said(b"long" * 100),)),), (b"", text("long" * 100))),
    writing(
        "join what is there",
        (
            p.WriteJoin(
                (
                    p.JoinPart(PARTS_A),
                    p.JoinPart((p.Said(b"<"), p.Content(8, 9), p.Said(b">")), present=8),
                    p.JoinPart(PARTS_B),
                ),
                b" ",
            ),
        ),
        (text("a") + b"\0" + text("b"), text("a b")),
        (text("a") + b"\2" + text("ü") + text("b"), text("a <ü> b")),
        (text("") + b"\2" + text("") + text(""), text(" <> ")),
        (text("a" * 70) + b"\2" + text("") + text(""), text("a" * 70 + " <> ")),
        fields=(A, OPTIONAL, B),
    ),
    writing(
        "pick",
        (p.Pick(0, (b"\0", None, b"ab")), p.WriteText((p.Picked(0, (b"new", b"x", None)),))),
        (num(0), b"\0" + text("new")),
        (num(1), REFUSED),
        (num(2), REFUSED),
        fields=(p.Enum(3, number=0),),
    ),
    writing(
        "pick by branch",
        (p.Pick(0, (b"none", b"some")),),
        (b"\0", b"none"),
        (b"\2" + text("a"), b"some"),
        fields=(p.Union((p.Null(), p.Text()), number=0),),
    ),
    writing(
        "pick by boolean",
        (p.Pick(0, (b"no", b"yes")),),
        (b"\0", b"no"),
        (b"\1", b"yes"),
        (b"\2", REFUSED),
        fields=(p.Boolean(number=0),),
    ),
    writing(
        "pick by any number",
        (p.Pick(0, (b"a", b"b")),),
        (num(1), b"b"),
        (num(2), REFUSED),
        (num(-1), REFUSED),
        fields=(p.Integer(32, number=0),),
    ),
    writing(
        "pick nothing for a text",
        (p.WriteText((p.Said(b"<"), p.Picked(0, (None, b"x")))),),
        (b"\0", REFUSED),
        (b"\1", text("<x")),
        fields=(p.Boolean(number=0),),
    ),
    writing(
        "lookup",
        (p.Lookup(2, 3, ((b"a", b"1"), ("ß".encode(), b"22"))),),
        (text("a"), b"1"),
        (text("ß"), b"22"),
        (text("b"), REFUSED),
        (text("a\0"), REFUSED),
        fields=(A,),
    ),
    writing(
        "lookup or else",
        (p.Lookup(2, 3, ((b"a", b"1"), (b"", b"2")), b"?"),),
        (text("a"), b"1"),
        (text(""), b"2"),
        (text("z"), b"?"),
        fields=(A,),
    ),
    writing(
        "spans that lie side by side",
        (p.Copy(0, 1), p.Copy(1, 3), p.Raw(b"<"), p.Raw(b">"), p.Copy(2, 3), p.Copy(2, 3)),
        (text("é"), b"k" + text("é") + b"<>" + "éé".encode()),
        fields=(A,),
    ),
    writing("nothing at all", (), (text("a"), b""), fields=(A,)),
    writing("refuse", (p.Refuse(),), (text("a"), REFUSED), fields=(A,)),
)


def asked(
    name: str, condition: p.Condition, *records: tuple[bytes, bool], fields: tuple[p.Walk, ...] = (A, OPTIONAL)
) -> Case:
    """Whether a condition holds: as the branch of an emit, turned round, and as what leaves a record out."""
    emits = (p.If(condition, (p.Raw(b"yes"),), (p.Raw(b"no"),)), p.If(p.Not(condition), (), (p.Raw(b"!"),)))
    expected: list[tuple[bytes, Expected]] = []
    for data, holds in records:
        expected.append((text("k") + data, (b"default/k", b"yes!") if holds else LEFT_OUT))
    made = plan(*fields, emits=emits, when=p.AnyOf((p.All((condition, condition)), p.AnyOf(()))))
    return Case(f"ask {name}", made, tuple(expected))


def chain(length: int) -> tuple[p.Emit, ...]:
    """If, else if, …: by number 0."""
    emits: tuple[p.Emit, ...] = (p.Raw(b"other"),)
    for number in reversed(range(length)):
        emits = (p.If(p.Compare(N, "==", p.Exact(number)), (p.WriteNumber(p.Exact(number), 32),), emits),)
    return emits


THERE: Final = p.Present(8)
A_IS_X: Final = p.AmongTexts(2, 3, (b"x", "ß".encode()))
SAYS_Y: Final = p.All((THERE, p.AmongTexts(8, 9, (b"y",))))
X, Z, Y = text("x"), text("z"), b"\2" + text("y")
RECORD_OR_NOT: Final = p.Union(
    (
        p.Null(),
        p.Record((p.Text(begin=2, end=3), p.Union((p.Null(), p.Text(begin=4, end=5), p.Boolean(begin=6, end=7))))),
    )
)
TWO_LONGS: Final = (p.Integer(64, number=0), p.Integer(64, number=1))

CONDITIONS: Final = (
    asked("whether it is there", THERE, (X + b"\0", False), (X + Y, True)),
    asked(
        "what it says", A_IS_X, (X + b"\0", True), (text("ß") + b"\0", True), (Z + b"\0", False), (text("") + Y, False)
    ),
    asked("what it says, if anything", SAYS_Y, (X + b"\0", False), (X + Y, True), (X + b"\2" + X, False)),
    asked("both", p.All((A_IS_X, SAYS_Y)), (X + Y, True), (Z + Y, False), (X + b"\0", False)),
    asked("either", p.AnyOf((A_IS_X, SAYS_Y)), (X + Y, True), (Z + Y, True), (X + b"\0", True), (Z + b"\0", False)),
    asked("neither", p.Not(p.AnyOf((A_IS_X, SAYS_Y))), (X + Y, False), (Z + b"\0", True)),
    asked("nothing", p.All(()), (X + Y, True)),
    *(
        asked(
            f"{relation} among numbers",
            p.Compare(N, relation, p.Add((p.Number(1), p.Exact(1)))),
            *(
                (num(left) + num(right), holds(left, right + 1))
                for left in (-3, 0, 2**62)
                for right in (-4, -1, 2**62 - 1)
            ),
            fields=TWO_LONGS,
        )
        for relation, holds in (("==", int.__eq__), ("<", int.__lt__), (">", int.__gt__))
    ),
    asked(
        "exactly",
        p.Compare(p.Multiply((N, N, p.Exact(10**15))), "<", p.Exact(10**33)),
        (num(999_999_999) + num(0), True),
        (num(10**9) + num(0), False),
        fields=TWO_LONGS,
    ),
    asked(
        "one of several numbers",
        p.AmongNumbers(0, (1, -5, 2**40)),
        (num(1) + num(0), True),
        (num(-5) + num(0), True),
        (num(2) + num(0), False),
        (num(2**40) + num(0), True),
        fields=TWO_LONGS,
    ),
    asked("none of no numbers", p.AmongNumbers(0, ()), (num(1) + num(0), False), fields=TWO_LONGS),
    writing(
        "a copy or a constant",
        (p.If(THERE, (p.Raw(b"\2"), p.Copy(10, 11)), (p.Raw(b"\0"),)),),
        (b"\0", b"\0"),
        (b"\2" + text("ü"), b"\2" + text("ü")),
        fields=(p.Union((p.Null(), p.Text(begin=10, end=11, content=8))),),
    ),
    writing(
        "required",
        (p.If(THERE, (p.WriteText((p.Content(8, 9),)),), (p.Refuse(),)),),
        (b"\0", REFUSED),
        (Y, text("y")),
        fields=(OPTIONAL,),
    ),
    writing(
        "unions within unions",
        (
            p.If(
                p.Present(2),
                (
                    p.Copy(2, 3),
                    p.If(p.Present(4), (p.Copy(4, 5),), (p.Raw(b"-"), p.If(p.Present(6), (p.Copy(6, 7),), ()))),
                ),
                (p.Raw(b"0"),),
            ),
        ),
        (b"\0", b"0"),
        (b"\2" + X + b"\0", X + b"-"),
        (b"\2" + X + b"\2" + Z, X + Z),
        (b"\2" + X + b"\4\1", X + b"-\1"),
        (b"\2" + X + b"\6", REFUSED),
        fields=(RECORD_OR_NOT,),
    ),
    writing(
        "a chain of choices",
        chain(40),
        *((num(n), num(n)) for n in (0, 1, 17, 39)),
        (num(40), b"other"),
        (num(-1), b"other"),
        fields=(p.Integer(32, number=0),),
    ),
    writing(
        "nine unions deep",
        (
            p.If(p.Present(8), (p.Copy(8, 9), p.If(p.Present(10), (p.Raw(b"text"),), ())), (p.Raw(b"none"),)),
            p.Pick(1, (b"0", b"1")),
        ),
        (b"\2" * 10 + X + b"\1", X + b"text1"),
        (b"\2" * 9 + b"\0" + b"\1", b"none1"),
        (b"\0" + b"\0", b"none0"),
        (b"\2" * 10 + text(b"\xff") + b"\1", REFUSED),
        fields=(nested(10, p.Text(begin=8, end=9, content=10)), p.Boolean(number=1)),
    ),
)

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


def upper(data: bytes | None) -> bytes:
    return b"\0" if data is None else b"\2" + data.upper()


def fails(data: bytes | None) -> bytes:
    if data != text("fine"):
        raise RuntimeError("a call that does not like it")
    return b"fine"


def is_x(data: bytes | None, other: bytes | None) -> bytes:
    return b"\1" if data == X or other == X else b"\0"


def key_of(data: bytes | None) -> bytes:
    return b"tenant/%b" % (data or b"-")


COPIED: Final = p.Text(begin=2, end=3)
MAYBE: Final = p.Union((p.Null(), p.Text(begin=4, end=5)))
ARGUMENT, OTHER = p.Argument(2, 3), p.Argument(4, 5)

CALLS: Final = (
    Case(
        "a call's bytes",
        plan(
            COPIED,
            MAYBE,
            emits=(p.Spliced(0), p.Raw(b"|"), p.Spliced(1), p.Spliced(0)),
            calls=(p.Call((ARGUMENT,), "upper"), p.Call((OTHER,), "upper")),
        ),
        (
            (text("k") + X + b"\0", (b"default/k", b"\2\2X|\0\2\2X")),
            (text("k") + X + Y, (b"default/k", b"\2\2X|\2\2Y\2\2X")),
        ),
        (upper, upper),
    ),
    Case(
        "a call that fails",
        plan(COPIED, emits=(p.Spliced(0),), calls=(p.Call((ARGUMENT,), "fails"),)),
        ((text("k") + text("fine"), (b"default/k", b"fine")), (text("k") + X, REFUSED)),
        (fails,),
    ),
    Case(
        "a call that is not needed",
        plan(
            COPIED,
            MAYBE,
            emits=(p.If(p.Present(4), (p.Spliced(0),), (p.Raw(b"-"),)),),
            calls=(p.Call((OTHER,), "upper"),),
        ),
        ((text("k") + X + b"\0", (b"default/k", b"-")), (text("k") + X + Y, (b"default/k", b"\2\2Y"))),
        (upper,),
    ),
    Case(
        "a condition that is a call",
        plan(
            COPIED,
            MAYBE,
            when=p.Not(p.Holds(0)),
            emits=(p.If(p.Holds(0), (), (p.Raw(b"no"),)),),
            calls=(p.Call((ARGUMENT, OTHER), "is x"),),
        ),
        (
            (text("k") + Z + b"\0", (b"default/k", b"no")),
            (text("k") + X + b"\0", LEFT_OUT),
            (text("k") + Z + b"\2" + X, LEFT_OUT),
        ),
        (is_x,),
    ),
    Case(
        "a call without arguments",
        plan(emits=(p.Spliced(0),), calls=(p.Call((), "constant"),)),
        ((text("k"), (b"default/k", b"const")),),
        (lambda: b"const",),
    ),
    Case(
        "a key that is a call",
        plan(MAYBE, emits=(), key=p.Key(call=0), calls=(p.Call((OTHER,), "key"),)),
        ((text("k") + b"\0", (b"tenant/-", b"")), (text("k") + Y, (b"tenant/" + text("y"), b""))),
        (key_of,),
    ),
)

TWO_TEXTS: Final = ((p.Content(0, 1),), (p.Content(2, 3),))
KEYS: Final = (
    Case(
        "a key",
        plan(emits=()),
        (
            *tuple(
                (text(t), (b"default/" + key, b""))
                for t, key in (
                    ("k", b"k"),
                    ("", b""),
                    ("aZ09-._~", b"aZ09-._~"),
                    ("a b", b"a%20b"),
                    ("/", b"%2F"),
                    ("ü", b"%C3%BC"),
                    ("a%20", b"a%2520"),
                    ("\x00", b"%00"),
                    ("x" * 100, b"x" * 100),
                    ("+*!'()@:,;=&$", b"%2B%2A%21%27%28%29%40%3A%2C%3B%3D%26%24"),
                    ("a" * 70 + "é", b"a" * 70 + b"%C3%A9"),
                    ("-€", b"-%E2%82%AC"),
                )
            ),
            (text(b"\xff"), REFUSED),
            (text(b"a\xff"), REFUSED),
            (text(b"a" * 70 + b"\xff"), REFUSED),
        ),
    ),
    Case(
        "a key of two",
        plan(A, emits=(), key=p.Key(TWO_TEXTS)),
        (
            (text("a") + text("b"), (b"default/a%2Fb", b"")),
            (text("a/b") + text("ü"), (b"default/a%252Fb%2F%25C3%25BC", b"")),
            (text("") + text(""), (b"default/%2F", b"")),
        ),
    ),
    Case(
        "a key with a tenant",
        plan(A, emits=(), key=p.Key(((p.Content(0, 1),),), (p.Content(2, 3),))),
        ((text("a") + text("b"), (b"b/a", b"")), (text("ä/") + text("b c"), (b"b%20c/%C3%A4%2F", b""))),
    ),
    Case(
        "a key of two with a tenant",
        plan(A, emits=(), key=p.Key(TWO_TEXTS, (p.Said(b"our shop"),))),
        ((text("a") + text("b"), (b"our%20shop/a%2Fb", b"")),),
    ),
    Case(
        "a key of a number and words",
        plan(
            p.Integer(64, number=0),
            p.Enum(2, number=1),
            emits=(),
            key=p.Key(((p.Digits(N), p.Said(b":"), p.Picked(1, (b"new", None))),)),
        ),
        (
            (text("") + num(-5) + num(0), (b"default/-5%3Anew", b"")),
            (text("") + num(10**15) + num(0), (b"default/1000000000000000%3Anew", b"")),
            (text("") + num(5) + num(1), REFUSED),
        ),
    ),
    Case(
        "a key of a condition that does not hold",
        plan(A, emits=(), when=A_IS_X, key=keyed()),
        (
            (text("a") + X, (b"default/a", b"")),
            (text("a") + Z, LEFT_OUT),
            (text(b"\xff") + Z, REFUSED),
            (text("a") + Z + b"\0", REFUSED),
        ),
    ),
)


def sized(name: str, max_input: int, max_output: int, *records: tuple[int, bool]) -> Case:
    made = plan(p.Text(begin=2, end=3), emits=(p.Copy(2, 3), p.Copy(2, 3)), max_input=max_input, max_output=max_output)
    expected = tuple(
        (text("k") + text("x" * size), (b"default/k", text("x" * size) * 2) if good else REFUSED)
        for size, good in records
    )
    return Case(name, made, expected)


LIMITS: Final = (
    sized("too long an input", len(WRITER) + 2 + 11, MAX_BYTES, (9, True), (10, True), (11, False), (1_000, False)),
    sized("too long an output", MAX_BYTES, len(FRAME) + 22, (9, True), (10, True), (11, False), (500, False)),
)

EMITS: Final = (*NUMBERS, *TEXTS, *CONDITIONS, *LISTS, *CALLS, *KEYS, *LIMITS)
