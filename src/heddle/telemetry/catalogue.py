"""Every metric there is. docs/reference/metrics.md has the same table; tests/unit/test_metrics.py compares them.

Names, units and attributes follow OpenTelemetry's conventions: units are UCUM's, and not part of the name."""

from __future__ import annotations

from typing import Literal, NamedTuple

SOURCE = "heddle.source"
SUBSCRIPTION = "heddle.subscription"
OUTCOME = "heddle.outcome"
SERVER = "server.address"


class Metric(NamedTuple):
    """`attributes`: those of each reading, all of them. A counter begins at 0 with its process."""

    name: str
    kind: Literal["counter", "gauge"]
    unit: str
    attributes: tuple[str, ...]
    what: str


RECORDS_SETTLED = Metric(
    "heddle.records.settled",
    "counter",
    "{record}",
    (SUBSCRIPTION, OUTCOME),
    "Live records that committed with this outcome; their sum is what was read and settled",
)
SOURCE_DEPRECATION = Metric(
    "heddle.source.deprecation.timestamp",
    "gauge",
    "s",
    (SOURCE, SERVER),
    "Unix time from which on a polled API calls itself deprecated, the earliest of its paths",
)
SOURCE_SUNSET = Metric(
    "heddle.source.sunset.timestamp",
    "gauge",
    "s",
    (SOURCE, SERVER),
    "Unix time from which on a polled API says that it answers no more, the earliest of its paths",
)

CATALOGUE = (RECORDS_SETTLED, SOURCE_DEPRECATION, SOURCE_SUNSET)
