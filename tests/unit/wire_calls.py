"""Calls, keys and limits."""

from __future__ import annotations

from typing import Final

from wire_case import FRAME, LEFT_OUT, MAX_BYTES, REFUSED, TEXT, WRITER, Case, N, X, Y, Z, keyed, num, plan, text

from heddle.wire import plan as p


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
        "a key behind other texts",
        plan(p.Text(), p.Text(content=2, end=3), p.Text(begin=4, end=5), emits=(p.Copy(4, 5),), key=keyed(2, 3)),
        (
            *tuple(
                (text("a") + before + text(entity) + text(behind), (b"default/" + key, text(behind)))
                for before in (text("é"), text("é" * 40))
                for behind in ("é", "é" * 40)
                for entity, key in (("k", b"k"), ("ü", b"%C3%BC"), ("k" * 70, b"k" * 70), ("", b""))
            ),
            (text("a") + text("b") + text(b"\xff") + text("c"), REFUSED),
        ),
    ),
    Case(
        "a key of more than a text",
        plan(p.Text(end=3), emits=(), key=keyed(0, 3)),
        ((text("k") + text("a"), (b"default/k%02a", b"")),),
    ),
    Case(
        "a key of two",
        plan(TEXT, emits=(), key=p.Key(TWO_TEXTS)),
        (
            (text("a") + text("b"), (b"default/a%2Fb", b"")),
            (text("a/b") + text("ü"), (b"default/a%252Fb%2F%25C3%25BC", b"")),
            (text("") + text(""), (b"default/%2F", b"")),
        ),
    ),
    Case(
        "a key with a tenant",
        plan(TEXT, emits=(), key=p.Key(((p.Content(0, 1),),), (p.Content(2, 3),))),
        ((text("a") + text("b"), (b"b/a", b"")), (text("ä/") + text("b c"), (b"b%20c/%C3%A4%2F", b""))),
    ),
    Case(
        "a key of two with a tenant",
        plan(TEXT, emits=(), key=p.Key(TWO_TEXTS, (p.Said(b"our shop"),))),
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
        plan(TEXT, emits=(), when=p.AmongTexts(2, 3, (b"x",)), key=keyed()),
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
