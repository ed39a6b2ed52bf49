"""Capturing single-row inserts into a contract topic, exactly once, beside a reader that only decodes the stream.

Both sides read slots of one database while (and after) the rows are inserted, each row its own transaction. CPU is the
whole process's, librdkafka's threads included: from its start to the last record, and over the second half of them.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import psycopg

from benchmarks.machine import machine, write_result
from benchmarks.sides import peak_rss_mib
from heddle.broker.kafka import KafkaBroker
from heddle.broker.log import Broker
from heddle.contracts import ConfluentRegistry
from heddle.contracts.types import write
from heddle.delivery.drafts import Drafts
from heddle.delivery.pull import PullWorker
from heddle.integration import Outcome
from heddle.local import Stack, running_stack
from heddle.project import load_project, sources_digest
from heddle.secrets import secret
from heddle.settings import load_settings
from heddle.sources.postgres import PostgresSource
from heddle.sources.postgres.pgoutput import Insert, decode
from heddle.sources.postgres.replication import Stream
from heddle.telemetry.logs import configure_logs

NAME, TOPIC, BARE_SLOT = "bench", "bench.payment.v1", "bare"
TARGET_WHOLE_US, TARGET_STEADY_US, TARGET_MIB = 45, 35, 200
READY = "ready"
TIMEOUT_S = 60.0
CONFIRM_EVERY = 1_000

TABLE = """
create table payment (
    payment_id bigint primary key, customer varchar(40) not null, amount numeric(12,2) not null,
    currency varchar(3) not null, paid_at timestamptz not null, note varchar(80)
)"""
INSERTS = """
create procedure pay(payments int) language plpgsql as $$ begin
    for n in 1..payments loop
        insert into payment values (n, 'customer ' || n % 997, (n % 100000) / 100.0, 'EUR',
                                    timestamptz '2026-01-01' + n * interval '1 second', 'invoice ' || n);
        commit;
    end loop;
end $$"""
FIELDS = [
    ("payment_id", "long"),
    ("customer", "string"),
    ("amount", {"type": "bytes", "logicalType": "decimal", "precision": 12, "scale": 2}),
    ("currency", "string"),
    ("paid_at", {"type": "long", "logicalType": "timestamp-micros"}),
    ("note", ["null", "string"]),
]
PRODUCER = f'''"""The payments' database."""

from heddle import PostgresSource, Table, secret
from schemas.bench import Payment

bench = PostgresSource(
    "{NAME}", dsn=secret("bench/dsn"), publication="heddle", slot="heddle_bench", owner="bench",
    tables=[Table("public.payment", emits=Payment)],
)
'''
Result = dict[str, float]


def main(records: int, runs: int) -> None:
    by_side: dict[str, list[Result]] = {"heddle": [], "bare": []}
    print("starting a throw-away stack …", flush=True)
    with running_stack() as stack, tempfile.TemporaryDirectory() as folder:
        for run in range(runs):
            home = Path(folder) / str(run)
            for name, result in _run(stack, home, records, run).items():
                by_side[name].append(result)
                print(f"run {run + 1}  {name:<7} {_line(result)}", flush=True)
    _report(by_side, records)


def _run(stack: Stack, home: Path, records: int, run: int) -> dict[str, Result]:
    database = f"bench{run}"
    stack.postgres.create_database(database)
    dsn = stack.dsn.rpartition("/")[0] + f"/{database}"
    with psycopg.connect(dsn, autocommit=True) as connection:
        for statement in (TABLE, INSERTS, "create publication heddle for all tables"):
            connection.execute(statement.encode())
        slot = f"{BARE_SLOT}{run}"
        connection.execute("select pg_create_logical_replication_slot(%s, 'pgoutput')", (slot,))
    _project(home, run)
    environment = os.environ | {
        "HEDDLE_BOOTSTRAP_SERVERS": stack.bootstrap_servers,
        "HEDDLE_REGISTRY_URL": stack.registry_url,
        "HEDDLE_LOCAL": "true",
        secret("bench/dsn").environment_name: dsn,
        "PYTHONPATH": str(Path(__file__).parents[1]),
    }
    subprocess.run(
        [sys.executable, "-m", "heddle", "apply"], cwd=home, env=environment, check=True, stdout=subprocess.DEVNULL
    )
    results = {}
    for name in ("heddle", "bare"):
        words = [name, str(records), slot]
        side = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.capture", "--side", *words],
            cwd=home, env=environment, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert side.stdout is not None
        assert side.stdout.readline().strip() == READY
        if name == "heddle":
            with psycopg.connect(dsn, autocommit=True) as connection:
                connection.execute("set synchronous_commit = off")
                connection.execute(f"call pay({records:d})".encode())
        out, _ = side.communicate(timeout=600)
        assert side.returncode == 0
        results[name] = json.loads(out.splitlines()[-1])
    _check(KafkaBroker(load_settings(bootstrap_servers=stack.bootstrap_servers)), f"bench{run}.payment.v1", records)
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("select pg_drop_replication_slot(slot_name) from pg_replication_slots where not active")
    return results


def _project(home: Path, run: int) -> None:
    domain = f"bench{run}"
    schemas = home / "schemas" / domain
    schemas.mkdir(parents=True)
    (home / "producers").mkdir()
    (home / ".heddle").mkdir()
    (home / "pyproject.toml").write_text('[tool.heddle]\nproject = "bench"\n')
    fields: list[dict[str, Any]] = [{"name": name, "type": kind, "doc": name} for name, kind in FIELDS]
    schema = {"type": "record", "name": "Payment", "namespace": f"{domain}.v1", "doc": "A payment.", "fields": fields}
    (schemas / "payment.v1.avsc").write_text(json.dumps(schema))
    (schemas / "payment.v1.toml").write_text(
        'owner = "bench"\ndescription = "For a benchmark."\nkey = ["payment_id"]\n'
    )
    write(home)
    text = PRODUCER.replace("schemas.bench", f"schemas.{domain}").replace(f'"{NAME}"', f'"{NAME}-{run}"')
    (home / "producers" / "bench.py").write_text(text.replace("heddle_bench", f"heddle_bench{run}"))


def heddle_side(records: int) -> Result:
    """What `heddle run` starts for a source, up to the last record."""
    project, settings = load_project(), load_settings()
    configure_logs(settings)
    (source,) = (each for each in project.sources if isinstance(each, PostgresSource))
    drafts = Drafts(source, ConfluentRegistry(settings), sources_digest(project.root))
    worker = PullWorker(source, drafts, KafkaBroker(settings), settings)
    worker.open()
    stop = threading.Event()
    while not worker.is_leader:
        worker.turn(stop)
    worker.turn(stop)
    print(READY, flush=True)
    half_s, half, done = 0.0, 0, 0
    begun_s = time.monotonic()
    while done < records:
        worker.turn(stop)
        done = worker.counts.by_outcome[Outcome.EMITTED]
        if not half and done >= records // 2:
            half_s, half = time.process_time(), done
    result = _result(records, half_s, half, begun_s)
    worker.close()
    return result


def bare_side(records: int, slot: str) -> Result:
    """Reads and decodes, keeps nothing, and tells the server now and then."""
    stream = Stream("bare", secret("bench/dsn"))
    stream.start(slot, 0, "heddle")
    print(READY, flush=True)
    done, half_s, half = 0, 0.0, 0
    begun_s = time.monotonic()
    while done < records:
        data = stream.read(1.0)
        if isinstance(data, bytes) and isinstance(decode(data), Insert):
            done += 1
            if done % CONFIRM_EVERY == 0:
                stream.confirm(0)
            if done == records // 2:
                half_s, half = time.process_time(), done
    result = _result(records, half_s, half, begun_s)
    stream.close()
    return result


def _result(records: int, half_s: float, half: int, begun_s: float) -> Result:
    cpu_s = time.process_time()
    return {
        "whole_us": cpu_s / records * 1e6,
        "steady_us": (cpu_s - half_s) / (records - half) * 1e6,
        "per_second": records / (time.monotonic() - begun_s),
        "rss_mib": peak_rss_mib(),
    }


def _check(broker: Broker, topic: str, records: int) -> None:
    """Each row once."""
    admin, reader = broker.admin(), broker.reader()
    ids: set[bytes | None] = set()
    count = 0
    for partition in range(admin.topics([topic])[topic].partitions):
        for record in reader.scan(topic, partition, TIMEOUT_S, 0, settled=True):
            ids.add(dict(record.headers)["ce_id"])
            count += 1
    reader.close()
    admin.close()
    if not count == len(ids) == records:
        raise SystemExit(f"{records} rows, {count} events, {len(ids)} ids")


def _line(result: Result) -> str:
    return (
        f"{result['whole_us']:6.1f} µs whole  {result['steady_us']:6.1f} µs second half  "
        f"{result['per_second']:8,.0f}/s  {result['rss_mib']:4.0f} MiB"
    )


def _report(by_side: dict[str, list[Result]], records: int) -> None:
    least = {name: min(runs, key=lambda run: run["whole_us"]) for name, runs in by_side.items()}
    print(f"\n{machine()}\n{records:,} single-row inserts; CPU per record of one process, least of the runs\n")
    for name, result in least.items():
        print(f"{name:<7} {_line(result)}")
    ours = least["heddle"]
    meets = (
        ours["whole_us"] <= TARGET_WHOLE_US and ours["steady_us"] <= TARGET_STEADY_US and ours["rss_mib"] < TARGET_MIB
    )
    print(
        f"\n{'meets' if meets else 'misses'} the targets: {TARGET_WHOLE_US} µs whole, "
        f"{TARGET_STEADY_US} µs second half, {TARGET_MIB} MiB"
    )
    write_result("capture", {"records": records, "meets_targets": meets, "least": least, "runs": by_side})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=300_000)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--side", nargs=3, metavar=("NAME", "RECORDS", "SLOT"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        name, count, slot = options.side
        print(json.dumps(heddle_side(int(count)) if name == "heddle" else bare_side(int(count), slot)))
    else:
        main(options.records, options.runs)
