"""What conditions hold, and what is written where they do."""

from __future__ import annotations

from typing import Final

from wire_case import MAYBE_TEXT, REFUSED, N, X, Y, Z, asked, nested, num, text, writing

from heddle.wire import plan as p


def chain(length: int) -> tuple[p.Emit, ...]:
    """If, else if, …: by number 0."""
    emits: tuple[p.Emit, ...] = (p.Raw(b"other"),)
    for number in reversed(range(length)):
        emits = (p.If(p.Compare(N, "==", p.Exact(number)), (p.WriteNumber(p.Exact(number), 32),), emits),)
    return emits


THERE: Final = p.Present(8)
A_IS_X: Final = p.AmongTexts(2, 3, (b"x", "ß".encode()))
SAYS_Y: Final = p.All((THERE, p.AmongTexts(8, 9, (b"y",))))
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
        fields=(MAYBE_TEXT,),
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
        "one mark in two branches",
        (p.If(p.Present(4), (p.Copy(4, 5),), (p.Raw(b"-"),)),),
        (b"\0", b"-"),
        (b"\2" + X, X),
        (b"\4\1" + Z + b"\1", Z),
        fields=(
            p.Union((p.Null(), p.Text(begin=4, end=5), p.Record((p.Boolean(), p.Text(begin=4, end=5), p.Boolean())))),
        ),
    ),
    writing(
        "the content of a uuid",
        (p.WriteText((p.Said(b"urn:"), p.Content(4, 5))),),
        (text("12345678-1234-5678-9abc-1234567890ef"), text("urn:12345678-1234-5678-9abc-1234567890ef")),
        fields=(p.Text(uuid=True, content=4, end=5),),
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
