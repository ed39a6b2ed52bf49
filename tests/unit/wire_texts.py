"""What is written of texts, indexes and lookups."""

from __future__ import annotations

from typing import Final

from wire_case import MAYBE_TEXT, OTHER_TEXT, REFUSED, TEXT, num, text, writing

from heddle.wire import plan as p

PARTS_A, PARTS_B = (p.Content(2, 3),), (p.Content(4, 5),)
TEXTS: Final = (
    writing(
        "join two texts",
        (p.WriteText((p.Content(2, 3), p.Said(b", "), p.Content(4, 5))),),
        (text("a") + text("ß"), text("a, ß")),
        (text("") + text(""), text(", ")),
        (text("x" * 62) + text(""), text("x" * 62 + ", ")),
        (text("x" * 40) + text("y" * 400), text("x" * 40 + ", " + "y" * 400)),
        (text("a") + text(b"\xff"), REFUSED),
        fields=(TEXT, OTHER_TEXT),
    ),
    writing(
        "a text three times",
        (p.WriteText((p.Content(2, 3), p.Content(2, 3), p.Said(b"/"), p.Content(2, 3))),),
        (text("ab"), text("abab/ab")),
        (text("é" * 40), text("é" * 80 + "/" + "é" * 40)),
        fields=(TEXT,),
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
        fields=(TEXT, MAYBE_TEXT, OTHER_TEXT),
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
        fields=(TEXT,),
    ),
    writing(
        "lookup or else",
        (p.Lookup(2, 3, ((b"a", b"1"), (b"", b"2")), b"?"),),
        (text("a"), b"1"),
        (text(""), b"2"),
        (text("z"), b"?"),
        fields=(TEXT,),
    ),
    writing(
        "spans that lie side by side",
        (p.Copy(0, 1), p.Copy(1, 3), p.Raw(b"<"), p.Raw(b">"), p.Copy(2, 3), p.Copy(2, 3)),
        (text("é"), b"k" + text("é") + b"<>" + "éé".encode()),
        fields=(TEXT,),
    ),
    writing("nothing at all", (), (text("a"), b""), fields=(TEXT,)),
    writing("refuse", (p.Refuse(),), (text("a"), REFUSED), fields=(TEXT,)),
)
