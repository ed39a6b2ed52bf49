"""A zombie: frozen (SIGSTOP) past its session timeout with a transaction open, replaced, and woken again (SIGCONT).

When it wakes, the successor has settled everything: whatever appears from then on, the zombie wrote."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import psutil
import pytest
from faults_app import READY_TIMEOUT_S, Application
from faults_load import RECOVERY_TIMEOUT_S, Load, assert_holds
from faults_watch import Watch, locked_ledger, query, sink_waits_for_table

from heddle.sinks.sql.session import IDLE_IN_TRANSACTION_TIMEOUT_S

FLOW, SINK = "deal-to-invoice", "ledger"
INVOICES, ENTRIES = "billing.invoice.v1", "ledger.entry.v1"
CHANGES, FIRST = 800, 1_200
PART = 100
LOOKS = 150
SESSION_TIMEOUT_S = 6.0
# A new process on a busy machine: to import, to join, to take over.
START_ALLOWANCE_S = 20.0

ANYWHERE, UNCOMMITTED, EXPIRED = "frozen anywhere", "frozen with records uncommitted", "frozen until they expired"
LATE = pytest.mark.skipif(os.environ.get("HEDDLE_FAULTS") != "full", reason="takes long; `make faults` runs it")

pytestmark = [pytest.mark.stack, pytest.mark.faults, pytest.mark.timeout(300)]


@pytest.fixture
def load(running_app: Application, watch: Watch) -> Iterator[Load]:
    """Workers up, nothing played yet."""
    running_app.until("every subscription has its worker", watch.everybody_works, READY_TIMEOUT_S)
    with Load(running_app, watch, CHANGES, FIRST) as load:
        yield load


@pytest.mark.parametrize("how", [ANYWHERE, UNCOMMITTED, pytest.param(EXPIRED, marks=LATE)])
def test_a_frozen_flow_writes_nothing_once_it_is_replaced(
    app: Application, watch: Watch, load: Load, how: str, record_property: Callable[[str, object], None]
) -> None:
    """It wakes with prefetched records that are no longer its own, or in the middle of a transaction."""
    caught = freeze_under_load(app, watch, load) if how == ANYWHERE else freeze_in_transaction(app, watch, load)
    with frozen(caught) as zombie, app.successor(FLOW):
        app.until("the successor settled all", lambda: watch.lag(FLOW) == 0, RECOVERY_TIMEOUT_S)
        if how == EXPIRED:
            app.until("the transaction is ended", lambda: not watch.has_undecided_records(INVOICES), RECOVERY_TIMEOUT_S)
        before, settled = watch.ends(INVOICES), watch.settled(FLOW)
        zombie.resume()
        fate = fate_of(zombie, app, watch, FLOW)
        assert watch.visible(INVOICES, before) == 0
        assert watch.settled(FLOW) == settled
        with load.playing():
            pass
        census, _ = load.finish()
    record_property("summary", f"the zombie {fate}")
    assert_holds(census, f"the zombie {fate}\n{app.last_lines()}")


def test_a_frozen_sink_blocks_nobody_for_long_and_writes_nothing_once_it_is_replaced(
    app: Application, watch: Watch, load: Load, record_property: Callable[[str, object], None]
) -> None:
    """Frozen with its transaction open and the fence in hand."""
    dsn = app.stack.dsn
    with locked_ledger(dsn), load.playing(CHANGES // 2):
        app.until("its transaction is open", lambda: sink_waits_for_table(dsn), RECOVERY_TIMEOUT_S)
        zombie = app.process(SINK)
        zombie.suspend()
    settles, began = watch.progress(SINK), time.monotonic()
    with frozen(zombie), app.successor(SINK):
        app.until("the successor settles", settles, RECOVERY_TIMEOUT_S)
        blocked_s = time.monotonic() - began
        app.until("nothing is on its way", watch.drained, RECOVERY_TIMEOUT_S)
        before = ledger(dsn)
        zombie.resume()
        fate = fate_of(zombie, app, watch, SINK)
        assert ledger(dsn) == before
        with load.playing():
            pass
        census, _ = load.finish()
    record_property("summary", f"its successor worked after {blocked_s:.1f} s; the zombie {fate}")
    assert blocked_s < SESSION_TIMEOUT_S + IDLE_IN_TRANSACTION_TIMEOUT_S + START_ALLOWANCE_S
    assert_holds(census, f"the zombie {fate}\n{app.last_lines()}")


@contextmanager
def frozen(process: psutil.Process) -> Iterator[psutil.Process]:
    """However the block ends, it leaves no frozen process behind."""
    try:
        yield process
    finally:
        with suppress(psutil.NoSuchProcess):
            process.resume()


def fate_of(zombie: psutil.Process, app: Application, watch: Watch, name: str) -> str:
    """Wait until it, or the process that its supervisor starts in its place, is in the group beside its successor."""
    app.until(
        "the zombie ended or joined again", lambda: has_ended(zombie) or watch.members(name) == 2, READY_TIMEOUT_S
    )
    fate = "ended" if has_ended(zombie) else "joined again"
    app.until("the group has both", lambda: watch.members(name) == 2, READY_TIMEOUT_S)
    return fate


def freeze_under_load(app: Application, watch: Watch, load: Load) -> psutil.Process:
    process, works = app.process(FLOW), watch.progress(FLOW)
    with load.playing(CHANGES // 2):
        app.until("the flow works", works, RECOVERY_TIMEOUT_S)
        process.suspend()
    return process


def freeze_in_transaction(app: Application, watch: Watch, load: Load) -> psutil.Process:
    """Plays until the flow is caught with records on its output topic that it has not committed. Looks before it
    freezes: transactions are short, and what has just begun one is still in it oftener than what is met by chance."""
    process = app.process(FLOW)
    while load.left > PART:
        with load.playing(PART):
            app.until("the flow works", watch.progress(FLOW), RECOVERY_TIMEOUT_S)
            for _ in range(LOOKS):
                if not watch.has_undecided_records(INVOICES):
                    continue
                process.suspend()
                if watch.is_transaction_left_open(INVOICES):
                    return process
                process.resume()
    raise AssertionError("the flow was never caught inside a transaction")


def ledger(dsn: str) -> list[tuple[object, ...]]:
    """Every row version of the ledger and its inbox: a rewritten row shows, too."""
    rows = query(dsn, "select 'line', xmin::text, ctid::text from ledger.entry_line order by 2, 3")
    return rows + query(dsn, "select 'inbox', xmin::text, ctid::text from ledger.heddle_inbox order by 2, 3")


def has_ended(process: psutil.Process) -> bool:
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
