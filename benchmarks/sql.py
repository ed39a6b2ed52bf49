"""The SQL sink into a real PostgreSQL: rows per second and per CPU-second of the client, against plain executemany.

    python benchmarks/sql.py [--events N] [--batch B] [--runs R] [--dsn DSN]

Three sides take turns on empty tables; one batch is one transaction; 5 % of the events are re-deliveries:
  sink         invoices, one row of 12 columns each, through SqlSink
  sink-lines   ledger entries of two rows each, through SqlSink
  executemany  the same invoices through psycopg's pipelined executemany of one inbox-and-upsert statement per event
CPU is user + system of this process during the batches; the events are decoded before the clock starts. Without --dsn a
throw-away stack is started, whose PostgreSQL does not wait for the disk. Writes benchmarks/out/sql.json.
"""

from __future__ import annotations

import argparse
import gc
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import astuple, fields
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
from machine import machine, write_result

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from heddle.broker.log import Record
from heddle.event import Event, Identity, Lineage
from heddle.integration import Delivered, Outcome
from heddle.secrets import secret
from heddle.sinks.sql import SqlSink
from schemas.billing import Invoice
from schemas.ledger import Entry, Line

SCHEMA = "heddle_bench"
SECRET = "bench/dsn"
START = datetime(2026, 1, 1, tzinfo=UTC)
REPEATED_EVERY = 20
REVISION = "0123456789abcdef.0"
Result = dict[str, float]

INVOICES = SqlSink(
    "bench-invoices",
    reads=Invoice,
    table=f"{SCHEMA}.invoice",
    key="invoice_id",
    version="changed_at",
    dsn=secret(SECRET),
    owner="benchmarks",
)
ENTRIES = SqlSink(
    "bench-entries",
    reads=Entry,
    table=f"{SCHEMA}.entry_line",
    key="entry_id",
    version="booked_at",
    rows="lines",
    dsn=secret(SECRET),
    owner="benchmarks",
)
COLUMNS = [field.name for field in fields(Invoice)]


def main() -> None:
    options = _options()
    with _database(options.dsn) as dsn:
        os.environ[secret(SECRET).environment_name] = dsn
        sides: dict[str, Callable[[], Result]] = {
            "sink": lambda: _sink(INVOICES, _batches(_invoice, options), 1),
            "sink-lines": lambda: _sink(ENTRIES, _batches(_entry, options), 2),
            "executemany": lambda: _executemany(dsn, _batches(_invoice, options)),
        }
        results: dict[str, list[Result]] = {name: [] for name in sides}
        for number in range(options.runs + 1):  # the first round warms caches and counts for nothing
            for name, run in sides.items():
                _empty_tables(dsn)
                gc.unfreeze()
                result = run()
                if number:
                    results[name].append(result)
                    print(f"run {number}  {name:<12} {_line(result)}", flush=True)
        _drop(dsn)
    _report(results, options)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=40_000)
    parser.add_argument("--batch", type=int, default=2_000)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--dsn", default="", help="an existing PostgreSQL; its schema heddle_bench is dropped")
    return parser.parse_args()


@contextmanager
def _database(dsn: str) -> Iterator[str]:
    if dsn:
        yield dsn
        return
    from heddle.local import running_stack

    print("starting a throw-away stack …", flush=True)
    with running_stack() as stack:
        yield stack.dsn


def _batches(make: Callable[[int], Any], options: argparse.Namespace) -> list[list[Delivered[Any]]]:
    events = [_delivered(make, number) for number in range(options.events)]
    gc.freeze()  # a worker holds one batch at a time; the collector shall not walk over all of them
    return [events[i : i + options.batch] for i in range(0, len(events), options.batch)]


def _delivered(make: Callable[[int], Any], number: int) -> Delivered[Any]:
    """Every twentieth event is the one before it, delivered again."""
    original = number - (number % REPEATED_EVERY == REPEATED_EVERY - 1)
    identity = Identity("/order-to-cash/deal-to-invoice", f"k7w2m5r3{original:018d}")
    record = Record("bench", 0, number, b"default/%d" % original, b"", [], 0)
    lineage = Lineage(REVISION, identity)
    event = Event(make(original), identity, "bench", "2026-01-01T00:00:00.000000Z", str(original), lineage, None)
    return Delivered(record, event, original.to_bytes(16, "big"))


def _invoice(number: int) -> Invoice:
    return Invoice(
        invoice_id=f"INV-{number:08d}",
        deal_id=f"DEAL{number:06d}",
        customer=f"Müller & Søn {number % 997}",
        sales_agent="Moses Frase",
        issued_on=date(2026, 1, 1) + timedelta(days=number % 365),
        product="GTX Plus Basic",
        list_price=Decimal("1096.00"),
        discount=Decimal(number % 100),
        total=Decimal("1096.00") - number % 100,
        currency="USD",
        status="OPEN",
        changed_at=START + timedelta(seconds=number),
    )


def _entry(number: int) -> Entry:
    amount, zero = Decimal(number % 5000) / 100, Decimal("0.00")
    return Entry(
        entry_id=f"invoice:INV-{number:08d}",
        source_id=f"INV-{number:08d}",
        kind="INVOICE",
        booked_at=START + timedelta(seconds=number),
        currency="USD",
        lines=(
            Line(account="receivables", debit=amount, credit=zero),
            Line(account="revenue", debit=zero, credit=amount),
        ),
    )


def _sink(sink: SqlSink[Any], batches: Sequence[list[Delivered[Any]]], rows_per_event: int) -> Result:
    writer = sink.open()
    writer.bump([0])
    applied = 0
    began, cpu = time.perf_counter(), time.process_time()
    for batch in batches:
        answers, failures = writer.apply(batch)
        assert not failures
        applied += sum(answer is not None and answer.outcome is Outcome.APPLIED for answer in answers)
    result = _result(began, cpu, batches, applied * rows_per_event)
    writer.close()
    return result


def _executemany(dsn: str, batches: Sequence[list[Delivered[Any]]]) -> Result:
    names = ", ".join(COLUMNS)
    statement = (
        f"with fresh as (insert into {SCHEMA}.heddle_inbox"
        f' (sink, topic, ce_id, ce_source, partition, "offset", revision, body_hash)'
        f" values ('executemany', 'bench', %s, %s, %s, %s, %s, %s) on conflict do nothing returning 1)"
        f" insert into {SCHEMA}.invoice as present ({names})"
        f" select {', '.join(['%s'] * len(COLUMNS))} from fresh"
        f" on conflict (invoice_id) do update set {', '.join(f'{c} = excluded.{c}' for c in COLUMNS[1:])}"
        f" where present.changed_at <= excluded.changed_at"
    )
    applied = 0
    with psycopg.connect(dsn) as connection:
        connection.execute("set synchronous_commit = on")
        connection.commit()
        began, cpu = time.perf_counter(), time.process_time()
        for batch in batches:
            cursor = connection.cursor()
            cursor.executemany(statement, [_parameters(event) for event in batch])  # type: ignore[arg-type]
            connection.commit()
            applied += cursor.rowcount
        return _result(began, cpu, batches, applied)


def _parameters(delivered: Delivered[Any]) -> tuple[Any, ...]:
    record, event, body_hash, _ = delivered
    inbox = (
        event.identity.id,
        event.identity.source,
        record.partition,
        record.offset,
        event.lineage.revision,
        body_hash,
    )
    return inbox + astuple(event.value)


def _result(began: float, cpu: float, batches: Sequence[list[Delivered[Any]]], rows: int) -> Result:
    cpu_s, wall_s = time.process_time() - cpu, time.perf_counter() - began
    events = sum(map(len, batches))
    assert rows % (events - events // REPEATED_EVERY) == 0, "an event was lost or applied twice"
    return {
        "rows": rows,
        "rows_per_s": rows / wall_s,
        "rows_per_cpu_s": rows / cpu_s,
        "client_cpu_us_per_event": cpu_s / events * 1e6,
    }


def _empty_tables(dsn: str) -> None:
    _drop(dsn)
    INVOICES.apply_plan()
    ENTRIES.apply_plan()


def _drop(dsn: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(f"drop schema if exists {SCHEMA} cascade")  # type: ignore[arg-type]


def _line(result: Result) -> str:
    return (
        f"{result['rows_per_s']:>9,.0f} rows/s  {result['rows_per_cpu_s']:>9,.0f} rows per client CPU-second  "
        f"{result['client_cpu_us_per_event']:>6.1f} µs client CPU per event"
    )


def _report(results: dict[str, list[Result]], options: argparse.Namespace) -> None:
    medians = {name: _median(runs) for name, runs in results.items()}
    print(f"\n{machine()}\n{options.events:,} events, {options.batch:,} per transaction, median of {options.runs} runs")
    for name, median in medians.items():
        print(f"  {name:<12} {_line(median)}")
    ratio = medians["sink"]["rows_per_cpu_s"] / medians["executemany"]["rows_per_cpu_s"]
    speed = medians["sink"]["rows_per_s"] / medians["executemany"]["rows_per_s"]
    print(f"  sink against executemany: {ratio:.1f}x the rows per client CPU-second, {speed:.1f}x the rows per second")
    write_result(
        "sql",
        {
            "events": options.events,
            "batch": options.batch,
            "psycopg": psycopg.__version__,
            "throwaway_postgres": not options.dsn,
            "median": medians,
            "runs": results,
            "cpu_ratio": ratio,
            "wall_ratio": speed,
        },
    )


def _median(runs: Sequence[Result]) -> Result:
    return {name: statistics.median(run[name] for run in runs) for name in runs[0]}


if __name__ == "__main__":
    main()
