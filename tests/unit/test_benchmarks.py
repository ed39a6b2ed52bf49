"""What the engines gain stays gained: ratios of CPU time, by turns in a process of their own, with wide margins. The
benchmarks see outputs that are not right. The page of results has a place for each of them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.by_hand import HandWritten
from benchmarks.orders import START, TARGET, Frames, bad_ones, fault, frame, headers, key, time_text, values
from benchmarks.outputs import problem_of
from benchmarks.report import PAGE, PARTS, README, filled, written
from heddle.broker.log import Record

ROOT = Path(__file__).parents[2]
MEASURE = "import json; from benchmarks.codec import measured; print(json.dumps(measured(1_500, 500, 9)))"
FRAMES = Frames(frame(1), frame(2))
RECORDS = 1_600


@pytest.fixture(scope="module")
def measured() -> Any:
    """The program compares the sides' outputs byte for byte, and ends with an error where they differ."""
    result = subprocess.run([sys.executable, "-c", MEASURE], cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout.splitlines()[-1])


# On a quiet machine, and on a busy one, it is about twice as many.
@pytest.mark.parametrize(
    ("part", "engine", "least"),
    [("codec", "python", 5.0), ("codec", "native", 30.0), ("step", "python", 3.0), ("step", "native", 6.0)],
)
def test_an_engine_is_many_times_as_fast_as_fastavro_and_a_dict(
    measured: Any, part: str, engine: str, least: float
) -> None:
    if engine not in measured[part]:
        pytest.skip("the native engine is not installed")
    assert measured[part][engine]["times_by_hand"] >= least


@pytest.fixture(scope="module")
def picks() -> list[Record]:
    """As a side should write them."""
    by_hand, time = HandWritten(FRAMES), time_text(START)
    return [
        Record(TARGET, 0, number, key(number), by_hand.value(value), by_hand.headers(headers(number, time)), 0)
        for number, value in enumerate(values(range(RECORDS), FRAMES.source))
        if not fault(number)
    ]


def test_outputs_as_they_should_be_are_found_right(picks: list[Record]) -> None:
    assert len(picks) == RECORDS - bad_ones(RECORDS) == RECORDS - 2
    assert problem_of(picks, RECORDS, FRAMES, is_copy=False) == ""


def test_what_is_wrong_with_outputs_is_found(picks: list[Record]) -> None:
    first, second, *rest = picks

    def problem(*changed: Record) -> str:
        return problem_of([*changed, *rest], RECORDS, FRAMES, is_copy=False)

    assert problem(first) == "1 outputs are missing, 0 are too many"
    assert problem(first, first) == "1 outputs were written twice"
    assert problem(first, second._replace(key=key(500))) == "1 outputs are missing, 1 are too many"
    assert problem(first, second._replace(headers=second.headers[1:])) == "an output has other headers than the seven"
    assert problem(first, second._replace(headers=first.headers)) == "two outputs have one id"
    assert problem(first, second._replace(value=first.value)) == "1 outputs differ, the first is of order 1"
    assert problem(first, second._replace(value=(second.value or b"") + b"\0")).startswith("1 outputs differ")


def test_bad_orders_are_bad(picks: list[Record]) -> None:
    by_hand, read = HandWritten(FRAMES), list(values(range(RECORDS), FRAMES.source))
    assert [(number, fault(number)) for number in range(RECORDS) if fault(number)] == [
        (500, "unmappable"),
        (1500, "undecodable"),
    ]
    for number in (500, 1500):
        with pytest.raises((ValueError, EOFError, IndexError)):
            by_hand.value(read[number])


def test_every_benchmark_has_its_place_in_the_page() -> None:
    for path, names in ((PAGE, list(PARTS)), (README, ["headlines"])):
        text = path.read_text(encoding="utf-8")
        for name in names:
            assert f"<!-- {name} -->\nnew\n<!-- end -->" in filled(text, name, "new\n")
        with pytest.raises(ValueError, match="0 places"):
            filled(text, "another", "")


def test_results_are_told_with_date_machine_and_versions() -> None:
    about = {
        "date": "2026-03-01T09:30:00+00:00",
        "machine": "AMD EPYC, 2 cores, Linux 6.1, Python 3.11.7, confluent-kafka 2.16.1",
        "load": 0.3,
        "versions": {"python": "3.11.7", "fastavro": "1.13.1"},
    }
    text = written(about, lambda _: iter(["| a |"]))
    assert text == "2026-03-01; AMD EPYC, 2 cores, Linux 6.1, load 0.3; python 3.11.7, fastavro 1.13.1.\n\n| a |\n"
