"""The page of metrics is the code's, and who does not ask for them pays nothing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from heddle.delivery.metadata import Counts
from heddle.http.notices import notice_of
from heddle.integration import Outcome
from heddle.operations.settled import Settled
from heddle.sources.rest.announced import Announced
from heddle.telemetry.catalogue import CATALOGUE, RECORDS_SETTLED, SOURCE_DEPRECATION, SOURCE_SUNSET
from heddle.telemetry.metrics import readings

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "metrics.md"


def test_the_page_has_the_catalogue() -> None:
    rows = [
        f"| `{each.name}` | {each.kind} | `{each.unit}` | {' '.join(f'`{name}`' for name in each.attributes)} | "
        f"{each.what} |"
        for each in CATALOGUE
    ]
    table = [line for line in PAGE.read_text().splitlines() if line.startswith("| `")]
    assert table == rows


def test_without_being_asked_nothing_is_imported() -> None:
    code = (
        "import sys; from heddle.telemetry.export import exported_metrics\n"
        "with exported_metrics('p', 'c', '0'): pass\n"
        "print([name for name in sys.modules if name.startswith('opentelemetry')])"
    )
    done = subprocess.run([sys.executable, "-c", code], env={}, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


class Worker:
    totals = Counts()


def test_a_worker_that_takes_anothers_place_counts_on() -> None:
    settled, first, second = Settled("a flow"), Worker(), Worker()

    def emitted() -> float:
        told = {attributes["heddle.outcome"]: value for value, attributes in settled.read()}
        assert set(told) == set(Outcome)
        return told["emitted"]

    assert emitted() == 0
    settled.follow(first)
    first.totals = Counts(Counts().by_outcome | {Outcome.EMITTED: 5})
    assert emitted() == 5
    settled.follow(second)
    assert emitted() == 5
    second.totals = Counts(Counts().by_outcome | {Outcome.EMITTED: 2})
    assert emitted() == 7
    assert (7, {"heddle.subscription": "a flow", "heddle.outcome": "emitted"}) in readings(RECORDS_SETTLED)


def test_of_several_paths_the_earliest_counts_until_it_is_taken_back() -> None:
    announced = Announced("polled", "api.example")
    announced.observed()

    def told() -> tuple[list[float], list[float]]:
        gauges = (SOURCE_DEPRECATION, SOURCE_SUNSET)
        mine = {"heddle.source": "polled", "server.address": "api.example"}
        deprecated, sunset = ([value for value, about in readings(gauge) if about == mine] for gauge in gauges)
        return deprecated, sunset

    assert told() == ([], [])
    announced.heed("/a", 200, {"deprecation": "true", "sunset": "Wed, 01 Jul 2026 00:00:00 GMT"}, {})
    assert told() == ([], [1782864000])
    announced.heed("/b", 200, {"deprecation": "@5", "sunset": "Mon, 01 Jun 2026 00:00:00 GMT"}, {})
    assert told() == ([5], [1780272000])
    for status in (304, 404, 503):
        announced.heed("/b", status, {}, {})
    assert told() == ([5], [1780272000])
    announced.heed("/b", 200, {}, {})
    assert told() == ([], [1782864000])


def test_an_announcement_is_to_the_second() -> None:
    notice = notice_of({"deprecation": "@1767225601"})
    assert notice is not None
    assert notice.deprecated_at is not None
    assert notice.deprecated_at.timestamp() == 1767225601
