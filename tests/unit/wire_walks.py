"""What a walk accepts and refuses, value by value."""

from __future__ import annotations

from typing import Final

from wire_case import copying, listed, nested, num, text

from heddle.wire import plan as p

INT_MAX, INT_MIN = 2**31 - 1, -(2**31)
LONG_MAX, LONG_MIN = 2**63 - 1, -(2**63)
DAY_LOW, DAY_HIGH = -719_162, 2_932_896
MILLIS_LOW, MILLIS_HIGH = -62_135_596_800_000, 253_402_300_799_999
MICROS_LOW, MICROS_HIGH = -62_135_596_800_000_000, 253_402_300_799_999_999
UUID_TEXT = "12345678-1234-5678-9abc-1234567890ef"
LONG_TEXT = "Grüße " * 20


def deep(depth: int, leaf: p.Walk) -> p.Array:
    """An array of arrays, with marks 2 and 3."""
    for _ in range(depth - 1):
        leaf = p.Array(leaf, 1)
    return p.Array(leaf, 1, begin=2, end=3)


WALKS: Final = (
    copying("null", p.Null(begin=2, end=3), (b"",), (b"\x80",)),
    copying("boolean", p.Boolean(begin=2, end=3), (b"\0", b"\1"), (b"\2", b"\x80\0", b"\xff")),
    copying(
        "int",
        p.Integer(32, begin=2, end=3),
        tuple(num(n) for n in (0, -1, 63, -64, 64, -65, 8191, 300_000, INT_MAX, INT_MIN)),
        (num(INT_MAX + 1), num(INT_MIN - 1), num(LONG_MAX), b"\x80" * 4 + b"\x10", b"\x80" * 11 + b"\1", b"\x80" * 900),
    ),
    copying(
        "long",
        p.Integer(64, begin=2, end=3),
        tuple(num(n) for n in (0, -1, 64, -65, 2**31, 2**41, 2**48, 2**55, LONG_MAX, LONG_MIN)),
        (b"\x80" * 9 + b"\x02", b"\xff" * 9 + b"\x03", b"\x80" * 10 + b"\1", b"\x80" * 900),
    ),
    copying(
        "date",
        p.Integer(32, DAY_LOW, DAY_HIGH, begin=2, end=3),
        tuple(num(n) for n in (0, -1, 100, 8_191, 8_192, 20_000, -20_000, 2**20 - 1, 2**20, DAY_LOW, DAY_HIGH)),
        tuple(num(n) for n in (DAY_LOW - 1, -800_000, -(2**20), DAY_HIGH + 1, INT_MIN, INT_MAX)),
    ),
    copying(
        "time of day",
        p.Integer(32, 0, 86_399_999, begin=2, end=3),
        tuple(num(n) for n in (0, 63, 64, 43_200_000, 86_399_999)),
        tuple(num(n) for n in (-1, -64, -65, 86_400_000, INT_MIN, INT_MAX)),
    ),
    copying(
        "milliseconds",
        p.Integer(64, MILLIS_LOW, MILLIS_HIGH, begin=2, end=3),
        tuple(num(n) for n in (0, 1_700_000_000_000, -1_700_000_000_000, 2**41 - 1, 2**41, MILLIS_LOW, MILLIS_HIGH)),
        tuple(num(n) for n in (MILLIS_LOW - 1, MILLIS_HIGH + 1, LONG_MIN, LONG_MAX)),
    ),
    copying(
        "an int that is read as a moment",
        p.Integer(32, MILLIS_LOW, MILLIS_HIGH, begin=2, end=3),
        tuple(num(n) for n in (0, -1, 2**20, 2**27, INT_MAX, INT_MIN)),
        tuple(num(n) for n in (INT_MAX + 1, INT_MIN - 1, 2**38, 2**40, 1_700_000_000_000, LONG_MAX)),
    ),
    copying(
        "microseconds",
        p.Integer(64, MICROS_LOW, MICROS_HIGH, begin=2, end=3),
        tuple(num(n) for n in (0, 1_700_000_000_000_000, -1_700_000_000_000_000, 2**55, MICROS_LOW, MICROS_HIGH)),
        tuple(num(n) for n in (MICROS_LOW - 1, MICROS_HIGH + 1, LONG_MIN, LONG_MAX)),
    ),
    copying("float", p.Real(4, begin=2, end=3), (b"\0" * 4, b"\xff\xfe\xfd\x80"), (b"\0" * 3, b"")),
    copying("double", p.Real(8, begin=2, end=3), (b"\0" * 8, b"\xff" * 8), (b"\0" * 7,)),
    copying(
        "text",
        p.Text(begin=2, end=3),
        tuple(text(t) for t in ("", "a", "x" * 63, "x" * 64, "ü" * 31, "ü" * 32, LONG_TEXT, "\0\n", "😀", "\x7f")),
        (
            text(b"\xff"),
            text(b"\xc3"),
            text(b"a\xc3"),
            text(b"\xed\xa0\x80"),
            text(b"\xc0\x80"),
            text(b"\x80" * 64),
            text(b"a" * 70 + b"\xe2\x82"),
            num(-1) + b"a",
            num(-100) + b"a" * 200,
            num(500) + b"a",
            num(LONG_MAX) + b"a",
        ),
    ),
    copying(
        "uuid",
        p.Text(uuid=True, begin=2, end=3),
        (text(UUID_TEXT),),
        tuple(
            text(t)
            for t in (
                "",
                UUID_TEXT.upper(),
                UUID_TEXT.replace("-", ""),
                UUID_TEXT.replace("-", "_"),
                "1" * 36,
                UUID_TEXT[:35] + "g",
                UUID_TEXT[:35],
                UUID_TEXT + "1",
                f"{{{UUID_TEXT[:34]}}}",
            )
        ),
    ),
    copying(
        "bytes",
        p.Bytes(begin=2, end=3),
        tuple(text(b) for b in (b"", b"\xff", b"\x80" * 63, b"\x80" * 64, b"\0" * 300)),
        (num(-1) + b"a", num(500) + b"a", num(LONG_MAX) + b"a"),
    ),
    copying("fixed", p.Fixed(3, begin=2, end=3), (b"\xff\xfe\x80",), (b"\xff\xfe",)),
    copying(
        "decimal",
        p.Decimal(4, begin=2, end=3),
        tuple(text(b) for b in (b"\0", b"\x7f", b"\x80", b"\xff", b"\x27\x0f", b"\xd8\xf1")),
        tuple(text(b) for b in (b"", b"\x27\x10", b"\xd8\xf0", b"\x7f\xff\xff", b"\x80" * 70)),
    ),
    copying(
        "decimal of 40 digits",
        p.Decimal(40, begin=2, end=3),
        tuple(text((n).to_bytes(17, "big", signed=True)) for n in (0, 10**40 - 1, 1 - 10**40)),
        tuple(text((n).to_bytes(17, "big", signed=True)) for n in (10**40, -(10**40))),
    ),
    copying(
        "fixed decimal",
        p.Decimal(4, size=4, begin=2, end=3),
        tuple(n.to_bytes(4, "big", signed=True) for n in (0, -1, 9_999, -9_999)),
        (*tuple(n.to_bytes(4, "big", signed=True) for n in (10000, -10000, 2**31 - 1)), b"\x00\x00\x00"),
    ),
    copying("small fixed decimal", p.Decimal(4, size=1, begin=2, end=3), (b"\x80", b"\x7f"), (b"",)),
    copying("enum", p.Enum(3, begin=2, end=3), (b"\0", b"\4"), (b"\6", b"\1", b"\x80\1", b"\x7f")),
    copying(
        "large enum",
        p.Enum(100, begin=2, end=3),
        tuple(num(n) for n in (0, 63, 64, 99)),
        tuple(num(n) for n in (100, -1, -64, LONG_MAX)),
    ),
    copying(
        "union",
        p.Union((p.Null(), p.Text(), p.Integer(64), p.Real(8)), begin=2, end=3),
        (b"\0", b"\2" + text("é"), b"\2" + text(LONG_TEXT), b"\4" + num(2**40), b"\6" + b"\xff" * 8),
        (b"\x08", b"\1", b"\3", b"\x80", b"\xff\1", b"\2" + text(b"\xff")),
    ),
    copying("union of one", p.Union((p.Text(),), begin=2, end=3), (b"\0" + text("a"),), (b"\2" + text("a"), b"\1")),
    copying("union of none", p.Union((), begin=2, end=3), (), (b"\0", b"\2")),
    copying(
        "large union",
        p.Union(tuple(p.Fixed(n) for n in range(100)), begin=2, end=3),
        (b"\0", num(17) + b"\xff" * 17, num(64) + b"\xff" * 64, num(99) + b"\xff" * 99),
        (num(100), num(-1)),
    ),
    copying(
        "array",
        p.Array(p.Integer(32), 1, begin=2, end=3),
        (
            b"\0",
            listed(num(1), num(-300)),
            listed(*[num(n) for n in range(100)]),
            b"\2\2\4\4\6\0",
            b"\x03\x04\2\4\0",
            b"\x03\x80\1\2\4\0",
            b"\x01\x04\2\2\4\0",
        ),
        (
            b"\x03\x03\2\4\0",
            b"\2" + num(2**40) + b"\0",
            num(3_000) + b"\2" * 100,
            num(2**62) + b"\2",
            num(LONG_MIN) + b"\2",
            num(-(2**62)) + b"\2\2\2",
        ),
    ),
    copying(
        "array of texts",
        p.Array(p.Text(), 1, begin=2, end=3),
        (
            b"\0",
            listed(text("a"), text("ü"), text(LONG_TEXT), text("")),
            b"\x01" + num(8) + text("abc") + b"\2" + text("é") + b"\0",
        ),
        (listed(text("a"), text(b"\xff")), listed(text(b"\xc3"), text(b"\xa9")), listed(text("a"), num(-3))),
    ),
    copying(
        "array of mixed records",
        p.Array(p.Record((p.Text(), p.Decimal(10), p.Union((p.Null(), p.Real(4))), p.Text())), 5, begin=2, end=3),
        (
            b"\0",
            listed(
                *[
                    text("é") + text(b"\xff\x80") + b"\2" + b"\xff" * 4 + text("ß"),
                    text("") + text(b"\1") + b"\0" + text(""),
                ]
                * 2
            ),
        ),
        (
            listed(text("é") + text(b"\xff\x80") + b"\0" + text(b"\xff")),
            listed(text(b"\xff") + text(b"\xff\x80") + b"\0" + text("a")),
        ),
    ),
    copying(
        "array of nothing", p.Array(p.Null(), 0, begin=2, end=3), (b"\0",), (b"\2\0", num(2**50) + b"\0", b"\1\0\0")
    ),
    copying(
        "array of arrays",
        p.Array(p.Array(p.Array(p.Text(), 1), 1), 1, begin=2, end=3),
        (b"\0", listed(b"\0", listed(b"\0", listed(text("a"), text("ß"))), listed(listed(text("é"))))),
        (listed(listed(listed(text(b"\xff")))),),
    ),
    copying(
        "twelve arrays deep",
        deep(12, p.Text()),
        (b"\2" * 12 + text("é") + b"\0" * 12, b"\2" * 11 + b"\0" + b"\0" * 11, b"\0"),
        (b"\2" * 12 + text(b"\xff") + b"\0" * 12, b"\2" * 12),
    ),
    copying(
        "map",
        p.Map(p.Integer(64), begin=2, end=3),
        (b"\0", listed(text("a") + num(1), text("ü") + num(10**12), text(LONG_TEXT) + num(0))),
        (
            listed(text("a") + num(1), text("a") + num(1)),
            listed(text(b"\xff") + num(1)),
            b"\2" + text("a") + num(1) + b"\2" + text("a") + num(2) + b"\0",
        ),
    ),
    copying(
        "map of maps",
        p.Map(p.Map(p.Bytes()), begin=2, end=3),
        (listed(text("a") + listed(text("a") + text(b"\xff")), text("b") + listed(text("a") + text(b""))),),
        (listed(text("a") + listed(text("a") + text(b""), text("a") + text(b""))),),
    ),
    copying(
        "record",
        p.Record((p.Text(), p.Record((p.Integer(32), p.Text())), p.Boolean()), begin=2, end=3),
        (text("ä") + num(7) + text("ö") + b"\1", text("ä") + num(7_000) + text("ö") + b"\0"),
        (text("ä") + num(7) + text(b"\xff") + b"\1",),
    ),
    copying(
        "nine unions deep",
        nested(9, p.Text(), 2, 3),
        (b"\2" * 9 + text("é"), b"\2" * 8 + b"\0", b"\0"),
        (b"\2" * 9 + text(b"\xff"), b"\2" * 9 + b"\4"),
    ),
)
