"""Bytes that nobody wrote: an engine takes none that the reference refuses, and what it writes otherwise has a name.

`make wire-fuzz` does the same to many more (`wire_fuzz`)."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import pytest
from hypothesis import HealthCheck, Phase, given, note, settings
from hypothesis import strategies as st
from mapping_support import array, schema
from wire_crossings import CROSSINGS, honest_records
from wire_engines import engines_here
from wire_fuzz import Fuzzer
from wire_generating import SCHEMAS, Subject, draw_crossing
from wire_judging import COPIED, COPIES, DONE_AGAIN, FASTAVRO_LAXER, LEFT, SAME, Disagreement, judged
from wire_mutating import mutated
from wire_oracle import Answer, contract_in_memory, crossing_between
from wire_spelling import BLOCKS
from wire_values import value_of
from wire_writers import at_the_edge, spelt_oddly

seeds = st.integers(0, 2**64).map(Random)


def test_mutated_records_are_refused_or_done_as_the_reference_does_them(
    record_property: Callable[[str, object], None],
) -> None:
    fuzzer = Fuzzer("every run the same", honest=100)
    for number in range(40):
        fuzzer.batch(number)
    assert fuzzer.tally.messages == 20_000
    for engine in engines_here(CROSSINGS["benchmark"]):
        seen = fuzzer.tally.seen[engine]
        assert seen[SAME] > 2_000
        assert {name for name in COPIES if seen[COPIED + name]} == COPIES
        assert {name for name in LEFT if seen[DONE_AGAIN + name]} == LEFT
    assert {code for code in FASTAVRO_LAXER if fuzzer.tally.seen["fastavro"][f"fastavro reads {code}"]} == {
        *FASTAVRO_LAXER
    }
    record_property("summary", f"{fuzzer.tally.messages:,} mutated records on {', '.join(fuzzer.tally.seen)}")


@settings(
    max_examples=60,
    derandomize=True,
    deadline=None,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)
@given(st.data(), seeds)
def test_mutated_records_of_drawn_mappings_are_too(data: st.DataObject, dice: Random) -> None:
    drawn = draw_crossing(data.draw, dice, Subject(SCHEMAS, failing=False, fields=4))
    note(drawn.told())
    good = [drawn.record(dice) for _ in range(4)]
    values = [mutated(dice.choice(good), good, dice) for _ in range(25)]
    for frame, node in drawn.crossing.nodes.items():
        values += [frame + spelt_oddly(node, value_of(node, dice), dice) for _ in range(5)]
        values += [frame + at_the_edge(node, value_of(node, dice), dice) for _ in range(10)]
    answers = [drawn.crossing.answer(value) for value in values]
    for engine, run in engines_here(drawn.crossing).items():
        run.transcode(values)
        outputs, refused = run.alone(values)
        for index, value in enumerate(values):
            note(f"{engine} {value.hex()}")
            judged(drawn.crossing, value, answers[index], outputs[index], index in refused)


NAME = "benchmark"
((FRAME, NODE),) = CROSSINGS[NAME].nodes.items()
RECORD = honest_records(NAME, 1, Random(0), odd=False)[0]
ANSWER = CROSSINGS[NAME].answer(RECORD)
OTHER = CROSSINGS[NAME].answer(honest_records(NAME, 2, Random(0), odd=False)[1])


@pytest.mark.parametrize(
    ("expected", "output", "refused"),
    [
        (ANSWER, OTHER.output, False),
        (ANSWER, None, False),
        (ANSWER, None, True),
        (ANSWER, ANSWER.output and (b"default/other", ANSWER.output[1]), False),
        (ANSWER, ANSWER.output and (ANSWER.output[0], b"\x00\x00\x00\x00\x63" + ANSWER.output[1][5:]), False),
        (Answer(), ANSWER.output, False),
        (Answer(refusal=("required", "email")), ANSWER.output, False),
        (Answer(refusal=("required", "email")), None, False),
    ],
)
def test_the_judge_lets_no_disagreement_pass(expected: Answer, output: tuple[bytes, bytes], refused: bool) -> None:
    assert judged(CROSSINGS[NAME], RECORD, ANSWER, ANSWER.output, False) == SAME
    with pytest.raises(Disagreement):
        judged(CROSSINGS[NAME], RECORD, expected, output, refused)


def test_the_judge_names_what_may_be_copied_and_nothing_else() -> None:
    fields = schema("Thing", id="string", numbers=array("int"))
    one, other = (contract_in_memory(f"test.{name}.v1", fields) for name in ("thing", "other"))
    crossing = crossing_between(one, other, {"id": "id", "numbers": "numbers"}, (fields,))
    ((frame, _),) = crossing.nodes.items()
    plain, blocks, longer = map(bytes.fromhex, ("026104020400", "0261020201020400", "02610482000400"))
    expected = crossing.answer(frame + plain)
    assert expected.output is not None
    key, canonical = expected.output

    def judge(read: bytes, written: bytes) -> str:
        assert crossing.answer(frame + read) == expected
        return judged(crossing, frame + read, expected, (key, canonical[:5] + written), refused=False)

    assert judge(plain, plain) == judge(blocks, plain) == SAME
    assert judge(blocks, blocks) == COPIED + BLOCKS
    for read, written in ((plain, blocks), (longer, longer), (blocks, longer)):
        with pytest.raises(Disagreement):
            judge(read, written)
