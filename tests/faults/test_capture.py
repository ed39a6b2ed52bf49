"""A database is captured while its sources are killed and the broker restarts: the topics replay to the tables,
exactly, and an outbox beside them is published once and in order.

HEDDLE_FAULTS=full: 200,000 changes, 30 kill -9 and 3 restarts of the broker (`make faults`). HEDDLE_FAULTS_SEED repeats
a run."""

from __future__ import annotations

import os
import random
import secrets
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import capture_outbox
import orjson
import psycopg
import pytest
from capture_project import SLOT, SOURCE, Business, CaptureProject
from faults_project import Shell, SmallProject

from heddle.broker.kafka import KafkaBroker
from heddle.contracts import ConfluentRegistry
from heddle.local import Stack
from heddle.settings import Settings

FULL = os.environ.get("HEDDLE_FAULTS") == "full"
CHANGES, KILLS, RESTARTS = (200_000, 30, 3) if FULL else (4_000, 4, 1)
RECOVERY_TIMEOUT_S = 120.0
SLOTS = (SLOT, capture_outbox.SLOT)

pytestmark = [pytest.mark.stack, pytest.mark.faults, pytest.mark.timeout(3600 if FULL else 300)]


def test_the_topics_replay_to_the_tables(
    own_stack: Stack, tmp_path: Path, record_property: Callable[[str, Any], None]
) -> None:
    seed = int(os.environ.get("HEDDLE_FAULTS_SEED") or secrets.randbits(32))
    record_property("summary", f"seed {seed}")
    dice = random.Random(seed)
    own_stack.postgres.create_database("shop")
    dsn = own_stack.dsn.rpartition("/")[0] + "/shop"
    project = CaptureProject(tmp_path / "app", dsn)
    shell = Shell(cast(SmallProject, project), own_stack, HEDDLE_SECRET_SHOP_DSN=dsn)
    shell.apply()
    business = Business(dsn, random.Random(seed))
    settings = Settings.model_validate(
        {"bootstrap_servers": own_stack.bootstrap_servers, "registry_url": own_stack.registry_url}
    )
    broker = KafkaBroker(settings)
    with shell.running(SOURCE, capture_outbox.SOURCE) as supervisor:
        faults = ["kill"] * KILLS + ["broker"] * RESTARTS + ["snapshot"]
        dice.shuffle(faults)
        for slot in SLOTS:
            until(lambda slot=slot: confirmed(dsn, slot) > 0, f"there is slot {slot}")  # type: ignore[misc]
        for fault in faults:
            begun = log_end(dsn)
            working = threading.Thread(target=business.work, args=(CHANGES // len(faults),))
            working.start()
            if fault == "kill":
                for slot in SLOTS:
                    until(
                        lambda begun=begun, slot=slot: confirmed(dsn, slot) > begun,  # type: ignore[misc]
                        f"{slot} captures these changes",
                    )
                threading.Event().wait(dice.random() * 0.2)  # anywhere in its work
                for source in (SOURCE, capture_outbox.SOURCE):
                    victim = shell.worker(supervisor, f"{source}.pull")
                    assert victim is not None, "it captured a moment ago"
                    victim.kill()
            elif fault == "broker":
                own_stack.kafka.kill()
                own_stack.kafka.start()
            else:
                for table in ("customer", "track"):
                    asked = shell.begun("snapshot", SOURCE, "--table", f"public.{table}")
                    assert shell.done(asked) == 0, project.last_lines()
            working.join()
        end = log_end(dsn)
        until(lambda: confirmed(dsn, SLOT) >= end and not is_reading(broker), "all is captured")
        until(lambda: capture_outbox.left(dsn) == 0, "the outbox is empty")
    business.close()
    registry = ConfluentRegistry(settings)
    missing = extra = events = streamed = 0
    for layout in project.layouts:
        replay, rows = project.replayed(layout, broker, registry), project.rows(layout)
        missing += len(rows - replay.rows)
        extra += len(replay.rows - rows)
        events += replay.events
        streamed += replay.streamed
        assert (replay.doubles, replay.disorder) == (0, 0), layout.table
    notices, again = capture_outbox.published(project.types, broker, registry)
    record_property(
        "summary",
        f"{business.changes} changes, {events} events ({streamed} from the stream), {KILLS} kill -9, "
        f"{RESTARTS} broker restarts: {missing} rows missing, {extra} extra; "
        f"{business.notices.written.total()} outbox rows, {again} ids again",
    )
    assert (missing, extra) == (0, 0)
    assert again == 0
    assert notices == {account: list(range(1, last + 1)) for account, last in business.notices.written.items()}
    assert streamed > CHANGES // 2, "most changes came from the stream"


def is_reading(broker: KafkaBroker) -> bool:
    """Whether a snapshot is under way, by the last position that was committed."""
    reader = broker.reader()
    try:
        tail = reader.tails(f"{SOURCE}.position", [0], RECOVERY_TIMEOUT_S)[0]
    finally:
        reader.close()
    return tail is None or bool(orjson.loads(tail.value or b"")["position"]["snapshots"])


def log_end(dsn: str) -> int:
    return _lsn(dsn, "select pg_logical_emit_message(true, 'end', 'end')::text")


def confirmed(dsn: str, slot: str) -> int:
    return _lsn(dsn, f"select confirmed_flush_lsn::text from pg_replication_slots where slot_name = '{slot}'")


def _lsn(dsn: str, query: str) -> int:
    with psycopg.connect(dsn, autocommit=True) as connection:
        row = connection.execute(query.encode()).fetchone()
    high, _, low = str(row[0] if row else "0/0").partition("/")
    return int(high, 16) << 32 | int(low, 16)


def until(holds: Callable[[], bool], what: str) -> None:
    pace, deadline_s = threading.Event(), time.monotonic() + RECOVERY_TIMEOUT_S
    while not holds():
        assert time.monotonic() < deadline_s, f"not within {RECOVERY_TIMEOUT_S} s: {what}"
        pace.wait(0.05)
