"""Whatever engine runs a mapping, what comes out is what the references make of the record, byte for byte.

The references are `decode_reference`, `interpret` and `encode_reference`; on records that other software is known to
read alike also fastavro, with the interpreted rules between its reader and its writer. `make wire-fuzz` draws many
times as many examples."""

from __future__ import annotations

import os
import re
from random import Random
from typing import Any, get_args

import pytest
from hypothesis import HealthCheck, Phase, given, note, seed, settings
from hypothesis import strategies as st
from mapping_support import ORDER, array, null_or, schema
from wire_crossings import CROSSINGS, honest_records
from wire_engines import CODECS, ENGINES, Run, engine_names, may_be_too_wide
from wire_generating import AMOUNTS, SCHEMAS, Drawn, Subject, ambiguous_schemas, draw_crossing
from wire_oracle import Answer, Crossing, contract_in_memory, crossing_between
from wire_targets import NUMBERS
from wire_values import encoded

from heddle.mapping import join
from heddle.wire import plan as wire

MANY = os.environ.get("HEDDLE_WIRE") == "full"
quiet = settings(
    max_examples=3000 if MANY else 150,
    derandomize=not MANY,
    deadline=None,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)
seeds = st.integers(0, 2**64).map(Random)


def agree(crossing: Crossing, values: list[bytes | None], *codecs: str) -> list[Answer]:
    """Outputs, records left out and refusals are the reference's; an engine did by itself all that is no failure."""
    expected = [crossing.answer(value) for value in values]
    for codec in codecs:
        run = Run(crossing, codec)
        for _ in range(2):  # the second time all plans are there
            assert run.transcode(values) == expected, codec
            done_again = [index for index in run.refused if expected[index].refusal is None]
            assert not done_again or (codec == "native" and may_be_too_wide(crossing)), codec
    return expected


def batch(drawn: Drawn, dice: Random, records: int) -> list[bytes | None]:
    """Records of all writers as they come, and what is none."""
    good = [drawn.record(dice) for _ in range(records)]
    odd = [None, b"", b"\x00\x00", b"{}", b"\x00\x00\x00\xff\xff", b"\x00\x00\x00\x00\x02\x00", good[0][:-1]]
    values = [*good, *dice.sample(odd, dice.randrange(3))]
    dice.shuffle(values)
    note(drawn.told())
    note(f"values: {[value and value.hex() for value in values]}")
    return values


SUBJECTS = {
    "anything": Subject(SCHEMAS, failing=False, fields=5),
    # One rule at a time, so that the first refusal of a record hides nothing.
    "refusals": Subject(SCHEMAS, failing=True, fields=1),
    "numbers": Subject(st.just(AMOUNTS), failing=True, fields=2, kinds=NUMBERS, asks=0.1),
    "conditions": Subject(SCHEMAS, failing=True, fields=2, kinds=("asked",), asks=0.3),
    "unions": Subject(ambiguous_schemas(), failing=False, fields=3),
}


@pytest.mark.parametrize("subject", SUBJECTS)
@quiet
@given(st.data(), seeds)
def test_drawn_mappings_on_each_engine_are_the_references(subject: str, data: st.DataObject, dice: Random) -> None:
    """On all that this machine has: to draw a mapping and to interpret it takes longer than to run it."""
    drawn = draw_crossing(data.draw, dice, SUBJECTS[subject])
    agree(drawn.crossing, batch(drawn, dice, 6), *engine_names())


@quiet
@given(st.data(), seeds)
def test_drawn_mappings_on_the_object_path_are_the_references(data: st.DataObject, dice: Random) -> None:
    """So whatever an engine refuses is the reference's in the end."""
    drawn = draw_crossing(data.draw, dice, SUBJECTS[dice.choice(list(SUBJECTS))])
    agree(drawn.crossing, batch(drawn, dice, 6), "objects")


@quiet
@given(st.data(), seeds)
def test_the_references_do_what_fastavro_does(data: st.DataObject, dice: Random) -> None:
    drawn = draw_crossing(data.draw, dice, SUBJECTS[dice.choice(["anything", "refusals", "numbers"])])
    note(drawn.told())
    for _ in range(6):
        value = drawn.record(dice)
        if drawn.odd[value[:5]]:
            continue
        note(value.hex())
        expected = drawn.crossing.answer(value)
        try:
            found = drawn.crossing.fastavro_answer(value)
        except UnicodeDecodeError:
            found = Answer(refusal=expected.refusal)
            assert expected.refusal is not None
            assert expected.refusal[0] == "invalid-utf8"
        assert found == expected


INSTRUCTIONS = {
    re.sub(r"(?<!^)(?=[A-Z])", "_", part.__name__).lower()
    for union in (wire.Value, wire.Walk, wire.Condition, wire.Part, wire.Emit)
    for part in get_args(union)
}


def instructions_of(crossing: Crossing) -> set[str]:
    """Those of all of its plans, of which there is one for each writer."""
    lowered = [crossing.lowered(frame) for frame in crossing.nodes]
    assert [each.reason for each in lowered if each.plan is None] == []
    return {name for each in lowered if each.plan for name in re.findall(r'"op":"([a-z_]+)"', each.plan.json())}


def test_every_instruction_is_needed_by_a_mapping_of_these_tests() -> None:
    """What is never drawn is never compared."""
    seen = set[str]().union(*map(instructions_of, CROSSINGS.values()))
    kept, outputs = [], []

    @settings(quiet, derandomize=False, max_examples=40)
    @given(st.data(), seeds)
    def draw(data: st.DataObject, dice: Random) -> None:
        for schemas in (SCHEMAS, st.just(ORDER)):
            drawn = draw_crossing(data.draw, dice, Subject(schemas, failing=False, fields=8))
            seen.update(instructions_of(drawn.crossing))
            kept.append(drawn.kept)
            outputs.append(drawn.crossing.answer(drawn.record(dice)).output is not None)

    for number in range(10):
        seed(number)(draw)()
        if seen >= INSTRUCTIONS:
            break
    assert INSTRUCTIONS - seen == set()
    assert sum(kept) > 0.8 * len(kept)
    assert sum(outputs) > 0.5 * len(outputs)


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("name", CROSSINGS)
def test_declared_mappings_agree_on_honest_records(name: str, codec: str) -> None:
    values: list[bytes | None] = [*honest_records(name, 60, Random(name), odd=False)]
    answers = agree(CROSSINGS[name], values, codec)
    assert sum(answer.output is not None for answer in answers) > 10
    assert [CROSSINGS[name].fastavro_answer(value) for value in values if value] == answers


def identity(source: dict[str, Any]) -> Crossing:
    """Every field taken as it is."""
    one, other = (contract_in_memory(f"test.{name}.v1", source) for name in ("thing", "other"))
    return crossing_between(one, other, {field["name"]: field["name"] for field in source["fields"]}, (source,))


@pytest.mark.parametrize("codec", CODECS)
def test_writers_that_take_turns_keep_indexes_and_order(codec: str) -> None:
    """Three versions of one contract, each with a plan of its own; an unknown one, and no record at all."""
    reader = schema("Thing", id="string", word=("string", "none"), number=("long", 7))
    writers = (reader, schema("Thing", number="int", id="string"), schema("Thing", word="bytes", id="string"))
    source = contract_in_memory("test.thing.v1", reader)
    target = contract_in_memory("test.out.v1", schema("Out", id="string", out="string"))
    rules = {"id": "id", "out": join("word", "number", by=" ")}
    crossing = crossing_between(source, target, rules, writers)
    fields: list[dict[str, Any]] = [{"word": "w", "number": 1}, {"number": 2}, {"word": b"x"}]
    values: list[bytes | None] = []
    for number in range(60):
        frame, node = list(crossing.nodes.items())[number % 3]
        values.append(frame + encoded(node, fields[number % 3] | {"id": f"{number}"}))
    values[7], values[20], values[21] = b"\x00\x00\x00\x10\x00\x00", None, values[21][:-1]  # type: ignore[index]
    answers = agree(crossing, values, codec)
    assert [index for index, answer in enumerate(answers) if answer.output is None] == [7, 20, 21]
    words = ["w 1", "none 2", "x 7"] * 20
    made = [encoded(target.root, {"id": f"{number}", "out": word}) for number, word in enumerate(words)]
    assert [answer.output[1][5:] for answer in answers if answer.output] == [
        value for index, value in enumerate(made) if index not in (7, 20, 21)
    ]


@pytest.mark.parametrize("codec", ENGINES)
def test_what_no_plan_can_do_is_done_by_the_object_path(codec: str) -> None:
    """A type that contains itself has no plan; a list of items without bytes has one, which refuses its items."""
    one = {"value": 1, "next": None}
    endless = identity(schema("Thing", id="string", head=schema("Node", value="int", next=null_or("Node"))))
    empty = identity(schema("Thing", id="string", holes=array("null")))
    for crossing, values, left in (
        (endless, [{"id": "a", "head": one}, {"id": "b", "head": {"value": 2, "next": one}}], [0, 1]),
        (empty, [{"id": "a", "holes": []}, {"id": "b", "holes": [None, None]}], [1]),
    ):
        ((frame, node),) = crossing.nodes.items()
        records: list[bytes | None] = [frame + encoded(node, value) for value in values]
        run = Run(crossing, codec)
        assert run.transcode(records) == [crossing.answer(record) for record in records]
        assert [answer.output is not None for answer in map(crossing.answer, records)] == [True, True]
        assert run.refused == left
