"""Other versions of a contract: each writer's schema has a plan of its own, and the same output."""

from __future__ import annotations

from typing import Any

import pytest
from lowering_support import (
    OTHER_WRITER,
    between,
    one_field,
    shout,
)
from mapping_support import DATE, LOCAL, MICROS, MILLIS, UUID_TEXT, array, null_or, schema, symbols

from heddle.contracts.encode_reference import encode_reference
from heddle.contracts.limits import DEFAULT_LIMITS
from heddle.contracts.parser import parse_schema
from heddle.contracts.shapes import DictShape
from heddle.mapping import (
    call,
    choose,
    default,
    each,
    equals,
    lookup,
    record,
    take,
    text,
    total_of,
    upper,
    when,
)
from heddle.wire import plan as wire
from heddle.wire.python_engine import PythonEngine

THING = schema(
    "Thing",
    id="string",
    name="string",
    size="long",
    kind=symbols("Kind", "A", "B", "OTHER") | {"default": "OTHER"},
    note=null_or("string"),
    region=("string", "world"),
    box=(null_or(schema("Box", depth="int", label=("string", "-"), hint=(null_or("string"), None))), None),
    data="bytes",
    ratio="double",
    rows=array(schema("Row", a="string", b=("int", 7))),
)  # fmt: skip
THING["fields"][1]["aliases"] = ["title"]
THING_VALUE: dict[str, Any] = {
    "id": "T", "name": "n", "size": 5, "kind": "B", "note": "x", "region": "north",
    "box": {"depth": 3, "label": "l", "hint": None}, "data": b"d", "ratio": 0.5,
    "rows": [{"a": "p", "b": 1}, {"a": "q", "b": 2}],
}  # fmt: skip


def thing(*without: str, **fields: Any) -> dict[str, Any]:
    """Another version of the contract: without some fields, others with another type, new ones at the end."""
    listed = {field["name"]: field for field in THING["fields"] if field["name"] not in without}
    for name, node in fields.items():
        listed[name] = {"name": name, "type": node}
    return THING | {"fields": list(listed.values())}


def by(writer: dict[str, Any], **changes: Any) -> bytes:
    """A record as a writer of this schema wrote it."""
    known = {**THING_VALUE, **changes}
    return encoded(writer, {field["name"]: known[field["name"]] for field in writer["fields"]})


def encoded(writer: dict[str, Any], value: dict[str, Any]) -> bytes:
    return OTHER_WRITER + encode_reference(parse_schema(writer), DictShape(), DEFAULT_LIMITS, value)


ROW = schema("OutRow", a="string", b="int")
EVOLVED: list[tuple[str, dict[str, Any], dict[str, Any], Any, Any, str]] = [
    ("added", thing("region"), {}, "string", take("region"), "constant"),
    ("added, as text", thing("region"), {}, "string", text("in ", take("region")), "constant"),
    ("added, looked up", thing("region"), {}, "int", lookup("region", {"world": 1}, otherwise=2), "constant"),
    ("added record", thing("box"), {}, null_or("int"), take("box.depth"), "constant"),
    ("added inside a record", thing(box=null_or(schema("Box", depth="int"))), {"box": {"depth": 3}}, null_or("string"),
     take("box.label"), "instructions"),
    ("added null inside a record", thing(box=null_or(schema("Box", depth="int"))), {"box": {"depth": 3}},
     null_or("string"), take("box.hint"), "constant"),
    ("added inside of items", thing(rows=array(schema("Row", a="string"))), {"rows": [{"a": "p"}, {"a": "q"}]},
     array(ROW), each("rows", record(a="a", b="b")), "instructions"),
    ("added inside of items, taken whole", thing(rows=array(schema("Row", a="string"))), {"rows": [{"a": "p"}]},
     array(ROW), take("rows"), "instructions"),
    ("added inside of a total", thing(rows=array(schema("Row", a="string"))), {"rows": [{"a": "p"}, {"a": "q"}]},
     "long", total_of("rows.b"), "instructions"),
    ("dropped inside of items", thing(rows=array(schema("Row", a="string", gone="bytes", b="int"))),
     {"rows": [{"a": "p", "gone": b"xy", "b": -1}]}, array(ROW), take("rows"), "instructions"),
    ("turned round inside of items", thing(rows=array(schema("Row", b="int", a="string"))), {}, array(ROW),
     take("rows"), "instructions"),
    ("renamed", thing("name", title="string"), {"title": "t"}, "string", take("name"), "copied"),
    ("int as long", thing(size="int"), {}, "long", take("size"), "copied"),
    ("int as double", thing(ratio="int"), {"ratio": 3}, "double", take("ratio"), "call"),
    ("float as double", thing(ratio="float"), {}, "double", take("ratio"), "call"),
    ("int as long as text", thing(size="int"), {"size": -40}, "string", text(take("size")), "instructions"),
    ("always there as nullable", thing(note="string"), {}, null_or("string"), take("note"), "copied"),
    ("always null", thing(note="null"), {"note": None}, null_or("string"), take("note"), "constant"),
    ("nullable the other way round", thing(note=["string", "null"]), {}, null_or("string"), take("note"),
     "instructions"),
    ("null the other way round", thing(note=["string", "null"]), {"note": None}, "string", default("note", "-"),
     "instructions"),
    ("two types as one", thing(size=["int", "long"]), {"size": 2**40}, "long", take("size"), "instructions"),
    ("one branch", thing(name=["string"]), {}, "string", take("name"), "copied"),
    ("bytes as text", thing(name="bytes"), {"name": "ä".encode()}, "string", take("name"), "copied"),
    ("bytes as text, joined", thing(name="bytes"), {"name": b"a"}, "string", text(take("name"), "!"), "instructions"),
    ("text as bytes", thing(data="string"), {"data": "ä"}, "bytes", take("data"), "copied"),
    ("symbols in another order", thing(kind=symbols("Kind", "B", "A")), {}, symbols("Out", "A", "B", "OTHER"),
     take("kind"), "instructions"),
    ("symbols in the target's order", thing(kind=symbols("Kind", "B", "A")), {}, symbols("Out", "B", "A", "OTHER"),
     take("kind"), "copied"),
    ("a symbol that is gone", thing(kind=symbols("Kind", "GONE", "B")), {"kind": "GONE"}, "string", take("kind"),
     "instructions"),
    ("a symbol that is gone, asked", thing(kind=symbols("Kind", "GONE", "ODD", "B")), {"kind": "ODD"}, "string",
     choose(when(equals("kind", "OTHER"), "other"), otherwise="known"), "instructions"),
    ("a function of a default", thing("region"), {}, "string", upper("region"), "constant"),
    ("a function of a default inside", thing(box=null_or(schema("Box", depth="int"))), {"box": {"depth": 3}},
     null_or("string"), upper("box.label"), "instructions"),
    ("called with a default", thing("region"), {}, null_or("string"), call(shout, "region"), "call"),
    ("called with a default inside", thing(box=null_or(schema("Box", depth="int"))), {"box": {"depth": 3}},
     null_or("string"), call(shout, "box.label"), "call"),
    ("called with null around a default", thing(box=null_or(schema("Box", depth="int"))), {"box": None},
     null_or("string"), call(shout, "box.label"), "call"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("writer", "changes", "node", "rule", "way"), [case[1:] for case in EVOLVED], ids=[case[0] for case in EVOLVED]
)
def test_another_writer_has_another_plan_and_the_same_output(
    writer: dict[str, Any], changes: dict[str, Any], node: Any, rule: Any, way: str
) -> None:
    given = one_field(node, rule, source=THING, other=writer)
    value = by(writer, **changes)
    assert given.way(frame=OTHER_WRITER) == way
    assert given.agree([value, given.reader.encode_dict(THING_VALUE), value])[0] is not None


def test_fields_in_another_order_are_written_in_the_targets_order() -> None:
    writer = THING | {"fields": THING["fields"][::-1]}
    given = between(THING, source=THING, other=writer, **{name: name for name in THING_VALUE})
    value, own = by(writer), given.reader.encode_dict(THING_VALUE)
    assert [type(emit) for emit in given.wire_plan().emits] == [wire.Copy]
    assert len(given.wire_plan(OTHER_WRITER).emits) > 1
    one, other = given.agree([value, own])
    assert one == other


def test_what_a_writer_has_more_is_walked_and_checked_and_not_copied() -> None:
    fields = list(THING["fields"])
    fields.insert(1, {"name": "gone", "type": "string"})
    given = between(THING, source=THING, other=THING | {"fields": fields}, **{name: name for name in THING_VALUE})
    value = by(THING | {"fields": fields}, gone="in the way")
    assert [type(emit) for emit in given.wire_plan(OTHER_WRITER).emits] == [wire.Copy, wire.Copy]
    spoilt = value.replace(b"in the way", b"in the w\xff\xff")
    assert [out is None for out in given.agree([value, spoilt])] == [False, True]


def test_a_default_that_may_be_changed_is_new_in_each_call() -> None:
    def spoilt(tags: list[str]) -> str:
        tags.append("x")
        return str(len(tags))

    source = schema("Source", id="string", tags=(array("string"), ["a"]))
    given = one_field("string", call(spoilt, "tags"), source=source, other=schema("Source", id="string"))
    values = [OTHER_WRITER + b"\x02a"] * 3
    assert [out and out[1][-1:] for out in given.agree(values)] == [b"2", b"2", b"2"]


CLOCKS = schema(
    "Clocks", id="string", day=DATE, at=MILLIS, seen=MICROS, local=LOCAL,
    clock={"type": "int", "logicalType": "time-millis"}, fine={"type": "long", "logicalType": "time-micros"},
)  # fmt: skip
DAY_MS = 86_400_000
EDGES: list[tuple[str, int, int]] = [
    ("day", -719_162, 2_932_896),
    ("at", -719_162 * DAY_MS, 2_932_897 * DAY_MS - 1),
    ("seen", -719_162 * DAY_MS * 1000, 2_932_897 * DAY_MS * 1000 - 1),
    ("local", -719_162 * DAY_MS, 2_932_897 * DAY_MS - 1),
    ("clock", 0, DAY_MS - 1),
    ("fine", 0, DAY_MS * 1000 - 1),
]  # fmt: skip


@pytest.mark.parametrize(("name", "first", "last"), EDGES)
def test_a_moment_that_python_has_not_is_refused_though_it_would_be_copied(name: str, first: int, last: int) -> None:
    """A writer may say plain numbers where the contract says dates and times."""
    types = {field["name"]: field["type"] for field in CLOCKS["fields"]}
    plain = schema("Clocks", **{n: t["type"] if isinstance(t, dict) else t for n, t in types.items()})
    given = between(CLOCKS, source=CLOCKS, other=plain, **{field: field for field in types})
    known = {"id": "i", **dict.fromkeys(types.keys() - {"id"}, 0)}
    values = [encoded(plain, known | {name: number}) for number in (first - 1, first, last, last + 1)]
    assert [type(emit) for emit in given.wire_plan(OTHER_WRITER).emits] == [wire.Copy]
    assert [output is None for output in given.agree(values)] == [True, False, False, True]


def test_a_number_of_more_bits_than_its_type_is_refused_though_it_would_be_copied() -> None:
    source = schema("Source", id="string", n="int")
    given = one_field("int", "n", source=source, other=source)
    values = [OTHER_WRITER + b"\x02i" + number for number in (b"\xfe\xff\xff\xff\x0f", b"\x80\x80\x80\x80\x10")]
    assert [output is None for output in given.agree(values)] == [False, True]


def test_a_uuid_that_the_codec_would_spell_otherwise_is_left_to_it() -> None:
    source = schema("Source", id="string", u=UUID_TEXT)
    given = one_field(UUID_TEXT, "u", source=source, other=schema("Source", id="string", u="string"))
    found = given.lowered(OTHER_WRITER)
    assert found.plan is not None
    engine = PythonEngine()
    engine.add(OTHER_WRITER, found.plan, found.functions, given.writer.frame)
    spelt = ["12345678-1234-5678-1234-56781234abcd", "12345678-1234-5678-1234-56781234ABCD", "x" * 36]
    values = [encoded(schema("Source", id="string", u="string"), {"id": "i", "u": text}) for text in spelt]
    assert engine.transcode(values)[1] == [1, 2]
    outputs, failures = given.objects.transcode(values)
    assert [failure.index for failure in failures] == [2]
    assert outputs[0] == outputs[1]
