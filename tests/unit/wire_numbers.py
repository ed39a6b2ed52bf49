"""What is written of numbers."""

from __future__ import annotations

from typing import Final

from wire_case import REFUSED, N, decimal, num, numbers, text, writing

from heddle.wire import plan as p

LONG: Final = 2**63 - 1
MILLIS: Final = (-62_135_596_800_000, 253_402_300_799_999)

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
    *(
        writing(
            f"write {name} that was read",
            (p.WriteNumber(p.Add((N, p.Exact(1))), 64),),
            *((num(n), num(n + 1)) for n in good),
            *((num(n), REFUSED) for n in bad),
            fields=(p.Integer(*walk, number=0),),
        )
        for name, walk, good, bad in (
            ("an int", (32,), (0, 64, 2**31 - 1, -(2**31)), (2**31, -(2**31) - 1, LONG)),
            ("a date", (32, -719_162, 2_932_896), (0, 63, -719_162, 2_932_896), (-719_163, 2_932_897)),
            ("a time of day", (32, 0, 86_399_999), (0, 63, 86_399_999), (-1, -64, 86_400_000)),
            ("a time", (64, *MILLIS), (0, -1, 1_767_225_600_000, *MILLIS), (MILLIS[0] - 1, MILLIS[1] + 1, LONG)),
        )
    ),
    writing(
        "write a long that was read",
        (p.WriteNumber(N, 64),),
        *((data, REFUSED) for data in (b"\x80" * 9 + b"\2", b"\xff" * 9 + b"\3", b"\x80" * 10 + b"\1", b"\xff" * 30)),
        fields=(p.Integer(64, number=0),),
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
                (-128, 2),  # as the codec does, though one would hold it
                (-129, 2),
                (255, 2),
                (256, 2),
                (32_767, 2),
                (32_768, 3),
                (-32_767, 2),
                (-32_768, 3),
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
