"""Who tells which metric in this process.

All metrics are asked for when they are exported (asynchronous instruments), so nothing on the way of a record knows of
them: a reader looks at totals that are kept anyhow, once in an export interval, and never where nothing is exported."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from heddle.telemetry.catalogue import Metric

Reading = tuple[int | float, Mapping[str, str]]
"""A value with its attributes."""

_readers: dict[tuple[Metric, str], Callable[[], Iterable[Reading]]] = {}


def observe(metric: Metric, of: str, read: Callable[[], Iterable[Reading]]) -> None:
    """From now on `read` tells `metric` for `of`, in place of who did before. It is called in the exporter's thread,
    and returns at once."""
    _readers[metric, of] = read


def readings(metric: Metric) -> list[Reading]:
    """What is told of it now."""
    return [reading for (known, _), read in tuple(_readers.items()) if known == metric for reading in read()]
