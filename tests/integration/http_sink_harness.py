"""What the HTTP sink's tests share: a sink on a target of its own, and one call of its writer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from http_target import Target
from sql_sink_harness import delivered, entry

from heddle import Breaker, Deadlines, Endpoint, HttpSink, IdempotencyKey, OnFailure, Retry
from heddle.errors import Failure
from heddle.event import stable_id
from heddle.integration import Applied, Delivered
from heddle.sinks.http.writer import HttpWriter
from schemas.ledger import Entry

QUICK = OnFailure(
    quick_tries=2,
    quick_delay_s=0.01,
    transient=Retry(tries=50, first_delay_s=0.1, longest_delay_s=0.5),
    breaker=Breaker(first_probe_s=0.1, longest_probe_s=0.5),
)
SHORT = Deadlines(connect_s=1.0, read_s=1.0, total_s=1.5)


def posting(entry: Entry) -> dict[str, Any]:
    return {"entry": entry.entry_id, "currency": entry.currency}


def sink_of(url: str, **options: Any) -> HttpSink[Entry]:
    given: dict[str, Any] = {
        "call": Endpoint("POST", "/v1/entries", body=posting),
        "idempotency": IdempotencyKey(),
        "on_failure": QUICK,
        "deadlines": SHORT,
        **options,
    }
    return HttpSink("billing", reads=Entry, url=url, owner="finance", **given)


@contextmanager
def opened(target: Target, **options: Any) -> Iterator[HttpWriter[Entry]]:
    writer = sink_of(target.url, **options).open()
    try:
        yield writer
    finally:
        writer.close()


def apply(
    writer: HttpWriter[Entry], *batch: Delivered[Any], may_begin: Callable[[], bool] = lambda: True
) -> tuple[list[Applied | None], list[Failure]]:
    return writer.apply_while(batch, may_begin)


def events(*names: str) -> Sequence[Delivered[Entry]]:
    """One for each name, in order; a name is its key."""
    return [delivered(entry(name), offset) for offset, name in enumerate(names)]


def key_of(event: Delivered[Any]) -> str:
    return stable_id(*event.event.identity)
