"""The SQL sink into a real PostgreSQL, over one connection, beside what one would write without it.

    python -m benchmarks.sql [--events N] [--batches B …] [--runs R] [--dsn DSN]

Five sides take turns on empty tables; one batch is one transaction; 5 % of the events are re-deliveries:
  sink         invoices, one row of 12 columns each, through the sink as a worker calls it
  step         the same invoices from bytes: decoded, headers read, bodies hashed, then through the sink
  sink-lines   ledger entries of two rows each, through the sink
  bare-copy    the same invoices without Heddle: binary COPY of ready rows into a temporary table, then one
               statement that inserts into the same inbox and upserts what was new; no answer per event, no fence
  executemany  the same invoices without Heddle: psycopg's pipelined executemany of an inbox-and-upsert statement

Batches are made outside of the clock. Client CPU is user + system of this process; server CPU is that of the session's
backend, without the server's writers. Wall time means little on a machine that does something else beside: compare the
sides of one run. Without --dsn a throw-away PostgreSQL is started that does not wait for the disk, and only then server
CPU is known. Writes benchmarks/out/sql.json."""

from __future__ import annotations

import argparse
import gc
import os
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import astuple, fields
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any, NamedTuple

import psutil
import psycopg

from benchmarks.machine import machine, write_result
from heddle.broker.log import Record
from heddle.contracts import AvroCodec, MemoryRegistry, contract_of
from heddle.delivery.sink_step import SinkStep, delivered
from heddle.delivery.steps import Budget
from heddle.event import Identity, Lineage, event_headers, stable_id
from heddle.integration import Applied, Outcome
from heddle.secrets import secret
from heddle.sinks.sql import SqlSink
from schemas.billing import Invoice
from schemas.ledger import Entry, Line

SCHEMA = "heddle_bench"
SECRET = "bench/dsn"
SOURCE = "/order-to-cash/deal-to-invoice"
REVISION = "0123456789abcdef.0"
START = datetime(2026, 1, 1, tzinfo=UTC)
REPEATED_EVERY = 20
TARGET_ROWS_PER_S, TARGET_RATIO = 60_000, 0.8
APPLICATION = "heddle-bench"
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
INBOX = 'ce_id, ce_source, sink, topic, partition, "offset", revision, body_hash'
UPSERT = (
    f" on conflict (invoice_id) do update set {', '.join(f'{name} = excluded.{name}' for name in COLUMNS[1:])}"
    f" where present.changed_at <= excluded.changed_at"
)
STAGED = {
    "ce_id": "text", "ce_source": "text", "partition": "int4", '"offset"': "int8", "revision": "text",
    "body_hash": "bytea", "invoice_id": "text", "deal_id": "text", "customer": "text", "sales_agent": "text",
    "issued_on": "date", "product": "text", "list_price": "numeric", "discount": "numeric", "total": "numeric",
    "currency": "text", "status": "text", "changed_at": "timestamptz",
}  # fmt: skip


class Side(NamedTuple):
    """`prepare` makes a batch of numbers into what `apply` takes, outside of the clock; `apply` commits it and says how
    many rows were written. `application`: the session's name at the server."""

    prepare: Callable[[range], Any]
    apply: Callable[[Any], int]
    application: str


def main() -> None:
    options = _options()
    with ExitStack() as stack:
        dsn = options.dsn or stack.enter_context(_throwaway())
        os.environ[secret(SECRET).environment_name] = dsn
        results: dict[int, dict[str, list[Result]]] = {size: {name: [] for name in SIDES} for size in options.batches}
        for number in range(options.runs + 1):  # the first round warms caches and counts for nothing
            for size, by_side in results.items():
                for name, runs in by_side.items():
                    result = _run(name, size, options, dsn)
                    if number:
                        runs.append(result)
                        print(f"run {number}  {size:>5}  {name:<12} {_line(result)}", flush=True)
        _drop(dsn)
    _report(results, options)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=20_000)
    parser.add_argument("--batches", type=int, nargs="+", default=[1_000, 2_000, 5_000])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--dsn", default="", help="an existing PostgreSQL; its schema heddle_bench is dropped")
    return parser.parse_args()


@contextmanager
def _throwaway() -> Iterator[str]:
    """Kafka and the registry, which nobody needs here, take no processor time while we measure."""
    from heddle.local import running_stack

    print("starting a throw-away stack …", flush=True)
    with running_stack() as stack:
        stack.registry.stop()
        stack.kafka.stop()
        yield stack.dsn


def _run(name: str, size: int, options: argparse.Namespace, dsn: str) -> Result:
    _drop(dsn)
    INVOICES.apply_plan()
    ENTRIES.apply_plan()
    with SIDES[name](dsn) as side:
        backend = None if options.dsn else _backend(dsn, side.application)
        wall_s = cpu_s = rows = 0.0
        server_s = _cpu_s(backend)
        gc.freeze()  # as a worker does: the collector shall look at what a batch left behind, not at all that is loaded
        for start in range(0, options.events, size):
            batch = side.prepare(range(start, min(start + size, options.events)))
            gc.collect()
            wall, cpu = time.perf_counter(), time.process_time()
            rows += side.apply(batch)
            wall_s, cpu_s = wall_s + time.perf_counter() - wall, cpu_s + time.process_time() - cpu
        server_s = _cpu_s(backend) - server_s
        gc.unfreeze()
    fresh = options.events - options.events // REPEATED_EVERY
    assert rows % fresh == 0, "an event was lost or applied twice"
    result = {"rows": rows, "rows_per_s": rows / wall_s, "client_cpu_us_per_event": cpu_s / options.events * 1e6}
    return result if backend is None else {**result, "server_cpu_us_per_event": server_s / options.events * 1e6}


def _backend(dsn: str, application: str) -> psutil.Process:
    with psycopg.connect(dsn) as connection:
        found = connection.execute("select pid from pg_stat_activity where application_name = %s", (application,))
        [(pid,)] = found.fetchall()
    return psutil.Process(pid)


def _cpu_s(process: psutil.Process | None) -> float:
    """User and system time so far, in steps of 10 ms."""
    if process is None:
        return 0.0
    times = process.cpu_times()
    return float(times.user + times.system)


# The sides


@contextmanager
def _sink(sink: SqlSink[Any], make: Callable[[int], Any], rows_per_event: int) -> Iterator[Side]:
    writer = sink.open()
    writer.bump([0])

    def prepare(numbers: range) -> Any:
        return [delivered(_record(number, b""), make(_original(number))) for number in numbers]

    def apply(batch: Any) -> int:
        answers, failures = writer.apply(batch)
        assert not failures
        return _applied(answers) * rows_per_event

    yield Side(prepare, apply, f"heddle/{sink.name}")
    writer.close()


@contextmanager
def _step(_dsn: str) -> Iterator[Side]:
    contract = contract_of(Invoice)
    codec: AvroCodec[Invoice] = AvroCodec(contract, MemoryRegistry([contract]))
    step = SinkStep(INVOICES, codec, "")
    step.bump([0])
    budget = Budget(3600, threading.Event())

    def prepare(numbers: range) -> Any:
        return [_record(number, codec.encode(_invoice(_original(number)))) for number in numbers]

    def apply(batch: Any) -> int:
        return _applied(step.run(batch, budget).results)

    yield Side(prepare, apply, f"heddle/{INVOICES.name}")
    step.close()


@contextmanager
def _bare_copy(dsn: str) -> Iterator[Side]:
    names = ", ".join(COLUMNS)
    columns = ", ".join(f"{name} {kind}" for name, kind in STAGED.items())
    statement = (
        f"with fresh as (insert into {SCHEMA}.heddle_inbox ({INBOX})"
        f" select ce_id, ce_source, 'bare-copy', 'bench', partition, \"offset\", revision, body_hash from stage"
        f' order by ce_id on conflict do nothing returning partition, "offset")'
        f" insert into {SCHEMA}.invoice as present ({names})"
        f' select distinct on (invoice_id) {names} from stage join fresh using (partition, "offset")'
        f" order by invoice_id, changed_at desc {UPSERT}"
    )
    with _connection(dsn) as connection:
        connection.execute(f"create temporary table stage ({columns}) on commit delete rows")

        def apply(rows: Any) -> int:
            with connection.transaction(), connection.cursor() as cursor:
                with cursor.copy("copy stage from stdin (format binary)") as copy:
                    copy.set_types(list(STAGED.values()))
                    for row in rows:
                        copy.write_row(row)
                return cursor.execute(statement).rowcount

        yield Side(_ready_rows, apply, APPLICATION)


@contextmanager
def _executemany(dsn: str) -> Iterator[Side]:
    statement = (
        f"with fresh as (insert into {SCHEMA}.heddle_inbox ({INBOX})"
        f" values (%s, %s, 'executemany', 'bench', %s, %s, %s, %s) on conflict do nothing returning 1)"
        f" insert into {SCHEMA}.invoice as present ({', '.join(COLUMNS)})"
        f" select {', '.join(['%s'] * len(COLUMNS))} from fresh {UPSERT}"
    )
    with _connection(dsn) as connection:

        def apply(rows: Any) -> int:
            with connection.transaction(), connection.cursor() as cursor:
                cursor.executemany(statement, rows)
                return cursor.rowcount

        yield Side(_ready_rows, apply, APPLICATION)


@contextmanager
def _connection(dsn: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(dsn, autocommit=True, application_name=APPLICATION) as connection:
        connection.execute("set synchronous_commit = on")
        yield connection


SIDES: dict[str, Callable[[str], Any]] = {
    "sink": lambda _: _sink(INVOICES, _invoice, 1),
    "step": _step,
    "sink-lines": lambda _: _sink(ENTRIES, _entry, 2),
    "bare-copy": _bare_copy,
    "executemany": _executemany,
}


def _applied(answers: Sequence[Any]) -> int:
    assert all(isinstance(answer, Applied) for answer in answers)
    return sum(answer.outcome is Outcome.APPLIED for answer in answers)


# The events


def _original(number: int) -> int:
    """Every twentieth event is the one before it, delivered again."""
    return number - (number % REPEATED_EVERY == REPEATED_EVERY - 1)


def _record(number: int, value: bytes) -> Record:
    original = _original(number)
    identity = Identity(SOURCE, stable_id("bench", str(original)))
    headers = event_headers(
        identity, "bench", b"2026-01-01T00:00:00.000000Z", Lineage(REVISION, identity).pack(), None, []
    )
    return Record("bench", 0, number, b"default/%d" % original, value, headers, 0)


def _ready_rows(numbers: range) -> list[tuple[Any, ...]]:
    """As (inbox columns, invoice columns)."""
    rows = []
    for number in numbers:
        record, event, body_hash, _, _ = delivered(_record(number, b""), _invoice(_original(number)))
        source, event_id = event.identity
        inbox = (event_id, source, record.partition, record.offset, event.lineage.revision, body_hash)
        rows.append(inbox + astuple(event.value))
    return rows


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


def _drop(dsn: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(f"drop schema if exists {SCHEMA} cascade")


# What the runs say


def _line(result: Result) -> str:
    server = result.get("server_cpu_us_per_event")
    told = "" if server is None else f" {server:>5.1f} µs server"
    client = result["client_cpu_us_per_event"]
    return f"{result['rows_per_s']:>8,.0f} rows/s   CPU per event: {client:>5.1f} µs client{told}"


def _summary(by_side: dict[str, list[Result]]) -> dict[str, Any]:
    """Ratios are those of one round, then their median: what disturbed one side disturbed the other."""

    def ratio(baseline: str, of: Callable[[Result], float]) -> float:
        pairs = zip(by_side["sink"], by_side[baseline], strict=True)
        return statistics.median(of(ours) / of(theirs) for ours, theirs in pairs)

    def rows_per_s(result: Result) -> float:
        return result["rows_per_s"]

    def events_per_cpu_s(result: Result) -> float:
        """Of both processors together, which is what a batch takes where they wait for each other."""
        return 1e6 / (result["client_cpu_us_per_event"] + result.get("server_cpu_us_per_event", 0.0))

    return {
        "ratio_to_bare_copy": ratio("bare-copy", rows_per_s),
        "cpu_ratio_to_bare_copy": ratio("bare-copy", events_per_cpu_s),
        "ratio_to_executemany": ratio("executemany", rows_per_s),
        "median": {name: _median(runs) for name, runs in by_side.items()},
        "runs": by_side,
    }


def _median(runs: Sequence[Result]) -> Result:
    return {name: statistics.median(run[name] for run in runs) for name in runs[0]}


def _report(results: dict[int, dict[str, list[Result]]], options: argparse.Namespace) -> None:
    print(f"\n{machine()}\n{options.events:,} events, medians of {options.runs} runs")
    batches = {size: _summary(by_side) for size, by_side in results.items()}
    for size, summary in batches.items():
        print(f"\n{size:,} per transaction")
        for name, median in summary["median"].items():
            print(f"  {name:<12} {_line(median)}")
        print(
            f"  sink: {summary['ratio_to_bare_copy']:.2f}x the rows per second of bare-copy "
            f"({summary['cpu_ratio_to_bare_copy']:.2f}x per CPU second of client and server), "
            f"{summary['ratio_to_executemany']:.1f}x those of executemany"
        )
    first = batches[options.batches[0]]
    reached = first["median"]["sink"]["rows_per_s"], first["ratio_to_bare_copy"]
    met = reached[0] >= TARGET_ROWS_PER_S or reached[1] >= TARGET_RATIO
    print(
        f"\n{options.batches[0]:,} per transaction: {'meets' if met else 'misses'} the target of "
        f"{TARGET_ROWS_PER_S:,} rows/s, or {TARGET_RATIO} of bare-copy"
    )
    write_result(
        "sql",
        {
            "events": options.events,
            "throwaway_postgres": not options.dsn,
            "rows_per_s": reached[0],
            "ratio_to_bare_copy": reached[1],
            "batches": batches,
        },
    )


if __name__ == "__main__":
    main()
