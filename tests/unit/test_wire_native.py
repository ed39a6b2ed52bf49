"""The native engine: what it makes of plans, and that no bytes get the better of it. Not built, not tested."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import islice, pairwise
from random import Random

import pytest
import wire_case as w
from wire_mutating import mutated
from wire_plans import CASES

from heddle.errors import AuthError, DependencyDownError
from heddle.wire import plan as p
from heddle.wire.engine import Engine
from heddle.wire.native_engine import NativeEngine, native_engine
from heddle.wire.python_engine import PythonEngine

heddle_native = pytest.importorskip("heddle_native", reason="the native engine is not built: make native")

MESSAGES = int(os.environ.get("HEDDLE_FUZZ", "40000"))
"""So many mutated messages; `make native-test` takes a million."""

WIDE = {"wide decimal", "decimal of 40 digits", "ask exactly"}
"""Whole numbers of more than 128 bits: here alone may this engine refuse what the other does."""

OTHER = b"\x00\x00\x00\x00\x08"
IDS = p.Record((w.ID,))


def ready(case: w.Case, engine: Engine | None = None) -> Engine:
    engine = engine or native_engine() or pytest.fail("it is there, but for other plans")
    engine.add(w.WRITER, case.plan, case.functions, w.FRAME)
    return engine


def results(engine: Engine, records: Sequence[bytes]) -> list[w.Expected]:
    outputs, refused = engine.transcode(records)
    told: list[w.Expected] = [
        w.LEFT_OUT if output is None else (output[0], output[1].removeprefix(w.FRAME)) for output in outputs
    ]
    for index in refused:
        assert outputs[index] is None
        told[index] = w.REFUSED
    assert refused == sorted(set(refused))
    return told


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_plans_come_out_as_written_beside_them(case: w.Case) -> None:
    made = results(ready(case), [w.WRITER + body for body, _ in case.records])
    for (_, expected), result in zip(case.records, made, strict=True):
        assert result == expected or (case.name in WIDE and result == w.REFUSED)


def test_the_marks_of_an_item_are_not_the_next_ones() -> None:
    walk = p.Union((p.Null(), p.Record((p.Union((p.Null(), p.Text(begin=3, end=4))),))))
    copy = p.If(p.Present(3), (p.Copy(3, 4),), (p.Raw(b"\0"),))
    items = (b"\2\2" + w.text("a"), b"\0", b"\2\0", b"\2\2" + w.text("b"))
    case = w.Case("", w.plan(p.Array(walk, 1, begin=2), emits=(p.Each(2, walk, None, (copy,)),)), ())
    (made,) = results(ready(case), [w.WRITER + w.text("k") + w.listed(*items)])
    assert made == (b"default/k", w.listed(w.text("a"), b"\0", b"\0", w.text("b")))


def test_of_two_rows_for_a_text_the_first_counts() -> None:
    rows = ((b"b", b"1"), (b"a", b"2"), (b"b", b"3"), (b"a", b"4"), (b"b", b"0"))
    case = w.Case("", w.plan(emits=(p.Lookup(0, 1, rows),)), ())
    made = results(ready(case), [w.WRITER + w.text(key) for key in "abc"])
    assert made == [(b"default/a", b"2"), (b"default/b", b"1"), w.REFUSED]


SQUARE = p.Multiply((p.Number(0), p.Number(0)))
BACK = p.Multiply((SQUARE, p.Exact(-1)))


@pytest.mark.parametrize(
    ("value", "sign"),
    [
        (p.Add((SQUARE, SQUARE)), 1),
        (p.Add((BACK, BACK, p.Exact(-1))), -1),
        (p.Subtract(p.Subtract(BACK, SQUARE), p.Exact(1)), -1),
        (p.Multiply((SQUARE, p.Exact(2))), 1),
        (p.Multiply((p.Exact(2), SQUARE)), 1),
        (p.Number(1), 1),
    ],
    ids=["add", "add to below", "subtract", "multiply", "multiply the other way", "fold"],
)
def test_what_does_not_fit_128_bits_is_refused_and_what_does_is_exact(value: p.Value, sign: int) -> None:
    folds = (p.Fold(1, SQUARE),) if value == p.Number(1) else ()
    walk = p.Array(p.Integer(64, number=0), 1, folds=folds)
    engine = ready(w.Case("", w.plan(walk, emits=(p.WriteDecimal(value, 60),)), ()))
    exact = sign * 2 * (2**63 - 1) ** 2 - (sign < 0)
    made = results(engine, [w.WRITER + w.text("k") + w.listed(w.num(n), w.num(n)) for n in (2**63 - 1, -(2**63))])
    assert made == [(b"default/k", w.text(exact.to_bytes(exact.bit_length() // 8 + 1, "big", signed=True))), w.REFUSED]


# Bytes that no writer wrote


def agree(case: w.Case, records: Iterator[bytes]) -> int:
    """Both engines give the same or both refuse; the number of records."""
    ours, reference = ready(case), ready(case, PythonEngine())
    count = 0
    while batch := list(islice(records, 1000)):
        count += len(batch)
        for record, mine, other in zip(batch, results(ours, batch), results(reference, batch), strict=True):
            assert mine == other or (case.name in WIDE and mine == w.REFUSED), record
    return count


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_record_that_ends_anywhere_or_has_any_byte_another(case: w.Case) -> None:
    agree(case, truncated_or_changed(case))


def truncated_or_changed(case: w.Case) -> Iterator[bytes]:
    for body, _ in case.records:
        record = w.WRITER + body
        yield from (record[:end] for end in range(len(record)))
        for at in range(min(len(record), 64)):
            for byte in (0, 1, 2, 0x3F, 0x7F, 0x80, 0xFF, record[at] ^ 1, record[at] ^ 0x40, record[at] ^ 0x80):
                yield record[:at] + bytes([byte]) + record[at + 1 :]


def test_mutated_records() -> None:
    dice = Random(20_260_101)  # the same every time
    each = -(-MESSAGES // len(CASES))
    done = sum(agree(case, mutations(case, each, dice)) for case in CASES)
    assert done >= MESSAGES


def mutations(case: w.Case, count: int, dice: Random) -> Iterator[bytes]:
    bodies = [w.WRITER + body for body, _ in case.records]
    for _ in range(count):
        if dice.random() < 0.1:
            yield w.WRITER + dice.randbytes(dice.randrange(40))
        else:
            yield mutated(dice.choice(bodies), bodies, dice)


@pytest.mark.parametrize(
    ("walk", "body"),
    [
        (p.Array(p.Null(), 0), w.num(2**62) + b"\0"),
        (p.Array(p.Null(), 1), w.num(10**5) * 10**5),  # a plan that is wrong about its items
        (p.Array(p.Array(p.Null(), 1), 1), w.num(10**5) * 10**5),
        (p.Array(p.Text(), 1), w.num(-(2**63)) + w.num(2**62)),
        (p.Text(), w.num(2**62)),
        (p.Decimal(38), w.text(b"\0" * 10**6)),
        (p.Map(p.Null()), w.listed(*(w.text(f"{n:06}") for n in range(100_000)), w.text("000000"))),
    ],
    ids=lambda part: type(part).__name__ if not isinstance(part, bytes) else "",
)
def test_few_bytes_do_not_keep_it_busy(walk: p.Walk, body: bytes) -> None:
    engine = ready(w.Case("", w.plan(walk, emits=(), max_input=2_000_000), ()))
    started = time.process_time()
    engine.transcode([w.WRITER + w.text("k") + body])
    assert time.process_time() - started < 1


def test_output_that_grows_faster_than_its_input_ends_at_the_limit() -> None:
    once, each = p.Each(2, p.Fixed(1, begin=3, end=4), None, (p.Copy(3, 4),)), p.Fixed(1)
    array = p.Each(2, each, None, (once,))
    case = w.Case("", w.plan(p.Array(each, 1, begin=2), emits=(array,), max_input=2_000_000), ())
    started = time.process_time()
    assert results(ready(case), [w.WRITER + w.text("k") + w.listed(*[b"a"] * 10**6)]) == [w.REFUSED]
    assert time.process_time() - started < 1
    assert results(ready(case), [w.WRITER + w.text("k") + w.listed(b"a", b"b")]) == [
        (b"default/k", w.listed(w.listed(b"a", b"b"), w.listed(b"a", b"b")))
    ]


# Plans


def told(plan: p.WirePlan) -> dict[str, object]:
    return dict(json.loads(plan.json()))


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"format": p.FORMAT + 1}, "format 2"),
        ({"format": None}, "null"),
        ({"walk": {"op": "enchanted"}}, "enchanted"),
        ({"when": {"op": "present", "mark": 1, "really": True}}, "really"),
        ({"when": {"op": "present"}}, "mark"),
        ({"when": {"op": "present", "mark": -2}}, "-2"),
        ({"emits": [{"op": "raw", "data": "0g"}]}, "hex"),
        ({"emits": [{"op": "raw", "data": "000"}]}, "hex"),
        ({"emits": [{"op": "write_number", "value": {"op": "exact", "value": "1.5"}, "bits": 64}]}, "1.5"),
        ({"emits": [{"op": "write_number", "value": {"op": "exact", "value": "1"}, "bits": 16}]}, "16"),
        ({"later": 1}, "later"),
        ({"marks": 2**40}, "registers"),
    ],
)
def test_a_plan_that_it_does_not_wholly_know_is_refused(changed: dict[str, object], reason: str) -> None:
    plan = told(w.plan(emits=()))
    with pytest.raises(ValueError, match=reason):
        heddle_native.Plans().with_plan(w.WRITER, json.dumps(plan | changed), w.FRAME)


def test_a_part_that_is_missing_is_not_made_up() -> None:
    for name in told(w.plan(emits=())).keys() - {"op"}:
        plan = told(w.plan(emits=()))
        del plan[name]
        with pytest.raises(ValueError, match=name):
            heddle_native.Plans().with_plan(w.WRITER, json.dumps(plan), w.FRAME)


def test_no_engine_where_it_runs_plans_of_other_formats_only(monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(native_engine(), NativeEngine)
    monkeypatch.setattr(heddle_native, "FORMATS", [p.FORMAT + 1])
    assert native_engine() is None


def test_writers_each_by_their_plan() -> None:
    engine = ready(w.Case("", w.plan(p.Text(), emits=(p.Raw(b"a"),)), ()))
    engine.add(OTHER, w.plan(emits=(p.Raw(b"b"),)), (), b"later")
    records = [
        w.WRITER + w.text("1") + w.text(""),
        OTHER + w.text("2"),
        w.WRITER + w.text("3"),
        b"\0\0\0\0\x09" + w.text("4"),
        b"\0\0\0\0",
        b"",
        None,
        OTHER + w.text("5"),
    ]
    outputs, refused = engine.transcode(records)
    assert refused == [2, 3, 4, 5, 6]
    assert [output for output in outputs if output] == [
        (b"default/1", w.FRAME + b"a"),
        (b"default/2", b"laterb"),
        (b"default/5", b"laterb"),
    ]
    engine.add(w.WRITER, w.plan(emits=(p.Raw(b"c"),)), (), w.FRAME)
    assert results(engine, records[2:3]) == [(b"default/3", b"c")]  # type: ignore[arg-type]


def test_every_call_has_its_function() -> None:
    plan = w.plan(emits=(p.Spliced(0),), calls=(p.Call((), "test"),))
    with pytest.raises(ValueError, match="0 functions for 1 calls"):
        ready(w.Case("", plan, ()))


def test_a_call_for_which_there_is_no_place_refuses_the_record() -> None:
    each = p.Each(2, p.Text(), None, (p.Spliced(0),))
    for emit in (each, p.Spliced(1)):
        plan = w.plan(p.Array(p.Text(), 1, begin=2), emits=(emit,), calls=(p.Call((), "test"),))
        engine = ready(w.Case("", plan, (), (lambda: b"",)))
        assert results(engine, [w.WRITER + w.text("k") + w.listed(w.text("a"))]) == [w.REFUSED]


def test_a_frame_has_five_bytes() -> None:
    with pytest.raises(ValueError, match="4 bytes"):
        heddle_native.Plans().with_plan(w.WRITER, w.plan(emits=()).json(), b"\0\0\0\1")


# Calls


def calling(
    *functions: Callable[..., bytes], emits: tuple[p.Emit, ...], when: p.Condition | None = None, key: int = p.UNSET
) -> Engine:
    """Each function gets the second field, a text that may be null."""
    optional = p.Union((p.Null(), p.Text(begin=2, end=3)))
    calls = tuple(p.Call((p.Argument(2, 3),), "test") for _ in functions)
    made = w.plan(optional, emits=emits, when=when, calls=calls, key=p.Key(call=key) if key >= 0 else None)
    return ready(w.Case("", made, (), functions))


def optional(key: str, content: str | None) -> bytes:
    return w.WRITER + w.text(key) + (b"\0" if content is None else b"\2" + w.text(content))


def test_functions_get_their_arguments_as_written_or_none() -> None:
    seen: list[bytes | None] = []

    def echo(data: bytes | None) -> bytes:
        seen.append(data)
        return (data or b"-").upper()

    engine = calling(echo, emits=(p.Raw(b"<"), p.Spliced(0), p.Raw(b">"), p.Spliced(0)))
    made = results(engine, [optional("a", "x"), optional("b", None), optional("c", "yz")])
    assert made == [(b"default/a", b"<\2X>\2X"), (b"default/b", b"<->-"), (b"default/c", b"<\4YZ>\4YZ")]
    assert seen == [b"\2x", None, b"\4yz"]  # once each, in order


def test_a_function_is_called_only_where_its_result_is_used() -> None:
    def there(data: bytes | None) -> bytes:
        assert data is not None
        return data

    inner = p.If(p.Holds(0), (p.Spliced(1),), (p.Raw(b"no"),))
    engine = calling(
        lambda data: b"\1" if there(data) == b"\2y" else b"\0",
        lambda data: b"*" if there(data) == b"\2y" else pytest.fail("not asked for"),
        emits=(p.If(p.Present(2), (inner,), ()),),
    )
    records = [optional("a", None), optional("b", "y"), optional("c", "z")]
    assert results(engine, records) == [(b"default/a", b""), (b"default/b", b"*"), (b"default/c", b"no")]


def test_a_function_behind_another_is_called_only_where_its_result_is_used() -> None:
    engine = calling(
        lambda data: b"!",
        lambda data: data or pytest.fail("not asked for"),
        emits=(p.Spliced(0), p.If(p.Present(2), (p.Spliced(1),), ())),
    )
    made = results(engine, [optional("a", None), optional("b", "y")])
    assert made == [(b"default/a", b"!"), (b"default/b", b"!\2y")]


def test_a_function_decides_what_is_left_out_and_makes_the_key() -> None:
    engine = calling(
        lambda data: b"\1" if data else b"\0",
        lambda data: b"key " + data if data else pytest.fail("not asked for"),
        when=p.Holds(0),
        key=1,
        emits=(p.Raw(b"!"),),
    )
    assert results(engine, [optional("a", None), optional("b", "y")]) == [w.LEFT_OUT, (b"key \2y", b"!")]


def test_a_function_that_fails_refuses_its_record_alone() -> None:
    def failing(data: bytes) -> bytes:
        if data == b"\2y":
            raise KeyError(data)
        return data

    engine = calling(failing, emits=(p.Spliced(0),))
    records = [optional("a", "x"), optional("b", "y"), b"", optional("c", "z")]
    assert results(engine, records) == [(b"default/a", b"\2x"), w.REFUSED, w.REFUSED, (b"default/c", b"\2z")]


@pytest.mark.parametrize("error", [DependencyDownError("away"), AuthError("no"), KeyboardInterrupt()])
def test_what_is_not_the_records_fault_goes_through(error: BaseException) -> None:
    def failing(data: bytes) -> bytes:
        raise error

    with pytest.raises(type(error)):
        calling(failing, emits=(p.Spliced(0),)).transcode([optional("a", "x")])


# Threads


def slow_batch() -> tuple[Engine, list[bytes]]:
    """Long to walk, short to write."""
    walk = p.Array(p.Integer(64, number=0), 1, folds=(p.Fold(1, p.Number(0)),))
    emits = (p.WriteNumber(p.Number(1), 64),)
    engine = ready(w.Case("", w.plan(walk, emits=emits, max_input=2_000_000), ()))
    return engine, [w.WRITER + w.text("k") + w.num(400_000) + w.num(70) * 400_000 + b"\0"] * 100


def test_other_threads_run_while_a_batch_does() -> None:
    engine, records = slow_batch()

    def stalls() -> bool:
        """Whether this thread stood still for half of the time that a batch took beside it."""
        took: list[float] = []

        def run() -> None:
            started = time.monotonic()
            engine.transcode(records)
            took.append(time.monotonic() - started)

        beside = threading.Thread(target=run)
        ticks = [time.monotonic()]
        beside.start()
        while not took:
            ticks.append(time.monotonic())
        beside.join()
        return max(later - earlier for earlier, later in pairwise(ticks)) > took[0] / 2

    assert not all(stalls() for _ in range(5))  # once may be the machine


def test_threads_may_share_an_engine() -> None:
    case = next(case for case in CASES if case.name == "array of mixed records")
    engine = ready(case)
    records = [w.WRITER + body for body, _ in case.records] * 500
    expected, made = results(engine, records), []
    threads = [threading.Thread(target=lambda: made.append(results(engine, records))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert made == [expected] * 4
