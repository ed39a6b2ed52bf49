"""The pure Python engine: what it makes of plans, of batches and of calls, and the code that does it."""

from __future__ import annotations

import traceback

import pytest
import wire_case as w
from wire_orders import ORDERS
from wire_plans import CASES
from wire_python import ready, told

from heddle.errors import AuthError, DependencyDownError
from heddle.wire import plan as p
from heddle.wire.python_engine import PythonEngine

OTHER = b"\x00\x00\x00\x00\x08"


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_plans_come_out_as_written_beside_them(case: w.Case) -> None:
    assert told(ready(case), [body for body, _ in case.records]) == [expected for _, expected in case.records]


# Batches


def test_a_batch_keeps_its_order_and_names_what_it_refused() -> None:
    engine = ready(ORDERS)
    engine.add(OTHER, w.plan(emits=(p.Raw(b"other"),)), (), b"\x00\x00\x00\x00\x01")
    good, expected = ORDERS.records[0]
    values = [
        None,
        w.WRITER + good,
        b"",
        OTHER + w.text("a"),
        w.WRITER,
        b"\x00\x00\x00\x00\x05" + good,
        w.WRITER + good,
    ]
    outputs, refused = engine.transcode(values)
    mine = (expected[0], w.FRAME + expected[1])
    assert list(outputs) == [None, mine, None, (b"default/a", b"\x00\x00\x00\x00\x01other"), None, None, mine]
    assert refused == [0, 2, 4, 5]
    outputs, refused = engine.transcode([])
    assert (list(outputs), refused) == ([], [])


def test_a_plan_that_is_added_again_replaces_the_first() -> None:
    engine = ready(ORDERS)
    engine.add(w.WRITER, w.plan(emits=()), (), w.FRAME)
    assert told(engine, [w.text("a")]) == [(b"default/a", b"")]


@pytest.mark.parametrize("error", [DependencyDownError("the registry is down"), AuthError("it does not let us in")])
def test_what_is_not_the_records_fault_passes_through(error: Exception) -> None:
    def fails(_: bytes | None) -> bytes:
        raise error

    calls = (p.Call((p.Argument(0, 1),), "fails"),)
    engine = ready(w.Case("", w.plan(emits=(p.Spliced(0),), calls=calls), (), (fails,)))
    with pytest.raises(type(error)):
        engine.transcode([w.WRITER + w.text("a")])


@pytest.mark.parametrize(
    "error", [KeyError("k"), RecursionError(), MemoryError(), OSError(), Exception("any"), NameError("x")]
)
def test_whatever_else_a_call_raises_refuses_its_record(error: Exception) -> None:
    def picky(data: bytes | None) -> bytes:
        if data == b"bad":
            raise error
        return b"!"

    calls = (p.Call((p.Argument(0, 1),), "picky"),)
    engine = ready(w.Case("", w.plan(emits=(p.Spliced(0),), calls=calls), (), (picky,)))
    assert told(engine, [w.text("a"), w.text("bad"), w.text("b")]) == [
        (b"default/a", b"!"),
        w.REFUSED,
        (b"default/b", b"!"),
    ]


def test_a_call_is_made_once_for_a_record_and_only_where_it_is_needed() -> None:
    made: list[bytes | None] = []

    def noted(data: bytes | None) -> bytes:
        made.append(data)
        return b"\1"

    some = p.Union((p.Null(), p.Text(begin=2, end=3)))
    emits = (p.If(p.Present(2), (p.If(p.Holds(0), (p.Spliced(0),), ()), p.Spliced(0)), ()),)
    plan = w.plan(some, emits=emits, calls=(p.Call((p.Argument(2, 3),), "noted"),))
    engine = ready(w.Case("", plan, (), (noted,)))
    assert told(engine, [w.text("a") + b"\0", w.text("b") + b"\2" + w.text("x")]) == [
        (b"default/a", b""),
        (b"default/b", b"\1\1"),
    ]
    assert made == [w.text("x")]


def test_calls_without_their_functions_are_refused_when_they_are_added() -> None:
    plan = w.plan(emits=(p.Spliced(0),), calls=(p.Call((), "none"),))
    with pytest.raises(ValueError, match="0 functions for 1 calls"):
        PythonEngine().add(w.WRITER, plan, (), w.FRAME)


# The code


def test_the_code_can_be_read_and_stands_in_tracebacks() -> None:
    def broken(_: bytes | None) -> bytes:
        raise DependencyDownError("down")

    calls = (p.Call((p.Argument(0, 1),), "broken"),)
    engine = ready(w.Case("", w.plan(emits=(p.Spliced(0),), calls=calls), (), (broken,)))
    assert "def one(d):" in engine.source(w.WRITER)
    try:
        engine.transcode([w.WRITER + w.text("a")])
    except DependencyDownError as error:
        lines = traceback.format_exception(error)
    assert any("return function0(a0)" in line for line in lines)
    with pytest.raises(KeyError):
        engine.source(OTHER)


def test_names_come_from_numbers_only() -> None:
    said = 'é"""\\\n" + __import__("os") + "'
    case = w.Case("", w.plan(emits=(p.WriteText((p.Said(said.encode()),)), p.Raw(b"'\"\\" * 40))), ())
    assert told(ready(case), [w.text("a")]) == [(b"default/a", w.text(said) + b"'\"\\" * 40)]


def test_a_plan_deeper_than_python_compiles_is_refused_when_it_is_added() -> None:
    emits: tuple[p.Emit, ...] = (p.Raw(b"x"),)
    for _ in range(300):
        emits = (p.If(p.Compare(p.Number(0), "==", p.Exact(0)), emits, ()), p.Raw(b"y"))
    engine = PythonEngine()
    with pytest.raises(ValueError, match="compiler"):
        engine.add(w.WRITER, w.plan(p.Integer(64, number=0), emits=emits), (), w.FRAME)
    assert told(engine, [w.text("a") + b"\0"]) == [w.REFUSED]


def test_a_plan_of_many_fields_compiles_and_runs() -> None:
    fields = [p.Union((p.Null(), p.Text(begin=2 * i, end=2 * i + 1))) for i in range(1, 1_500)]
    emits = tuple(p.If(p.Present(2 * i), (p.Copy(2 * i, 2 * i + 1),), (p.Raw(b"-"),)) for i in range(1, 1_500))
    engine = ready(w.Case("", w.plan(*fields, emits=emits, max_input=20_000, max_output=20_000), ()))
    body = (b"\2" + w.text("ab") + b"\0" + b"\2" + w.text("é")) * 500
    written = (w.text("ab") + b"-" + w.text("é")) * 500
    assert told(engine, [w.text("k") + body[: -len(b"\2" + w.text("é"))]]) == [
        (b"default/k", written[: -len(w.text("é"))])
    ]
