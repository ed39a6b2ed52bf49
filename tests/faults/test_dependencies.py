"""Kafka, the registry and PostgreSQL fail under the running application: it recovers without a hand, and no dead letter
comes from it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from faults_app import GATEWAY, READY_TIMEOUT_S, Application
from faults_load import RECOVERY_TIMEOUT_S, Load, assert_holds, events, outcome_figures
from faults_watch import Watch, query, sink_waits_in_commit

from demo.census import Census
from heddle.local import Stack

CHANGES, FIRST = 600, 1_200
CONVERTER, FLOW, SINK = "crm-deals", "deal-to-invoice", "ledger"
POSTGRES_KILLS = 3

Report = Callable[[str, object], None]

pytestmark = [pytest.mark.stack, pytest.mark.faults, pytest.mark.timeout(300)]


@pytest.fixture(autouse=True)
def all_servers_up(own_stack: Stack) -> None:
    """Whatever a test leaves dead, the next finds alive."""
    own_stack.start()


@pytest.fixture
def load(running_app: Application, watch: Watch) -> Iterator[Load]:
    """Workers up, nothing played yet."""
    running_app.until("every subscription has its worker", watch.everybody_works, READY_TIMEOUT_S)
    with Load(running_app, watch, CHANGES, FIRST) as load:
        yield load


def test_kafka_is_killed_under_load_and_the_gateway_with_it(
    app: Application, watch: Watch, load: Load, record_property: Report
) -> None:
    """What the gateway had accepted must be in the log already: it is killed before Kafka comes back. That is away for
    longer than a worker waits for an answer."""
    gave_up = app.said(f"restarting component={FLOW}")
    with load.playing():
        app.until("the CRM is in full swing", lambda: load.accepted > CHANGES // 4, READY_TIMEOUT_S)
        app.stack.kafka.kill()
        app.process(GATEWAY).kill()
        app.until("the flow's worker gives up", gave_up, READY_TIMEOUT_S)
        app.stack.kafka.start()
    settle(load, record_property)


def test_the_registry_is_down_when_workers_start_and_dies_again_under_load(
    running_app: Application, watch: Watch, record_property: Report
) -> None:
    """Processes that know no schema yet wait for it, in the group; the others have what they need."""
    app = running_app
    with app.resting():
        app.stack.registry.kill()
    app.until("every subscription has its worker", watch.everybody_works, READY_TIMEOUT_S)
    app.stack.registry.start()
    with Load(app, watch, CHANGES, FIRST) as load:
        app.stack.registry.kill()
        waits = app.said(f"paused component={CONVERTER} error=dependency-down")
        with load.playing(CHANGES // 2):
            app.until("the converter waits for the registry", waits, READY_TIMEOUT_S)
        works = watch.progress(SINK)
        app.stack.registry.start()
        app.until("the sink works", works, RECOVERY_TIMEOUT_S)
        app.stack.registry.kill()
        waits = app.said(f"paused component={FLOW} error=dependency-down")
        app.process(FLOW).kill()
        with load.playing():
            app.until("the flow's new process waits for the registry", waits, READY_TIMEOUT_S)
        app.stack.registry.start()
        settle(load, record_property)


def test_postgres_is_killed_under_load_and_inside_of_commit(
    app: Application, watch: Watch, load: Load, record_property: Report
) -> None:
    for _ in range(POSTGRES_KILLS):
        with load.playing(CHANGES // 6):
            app.until("the sink works", watch.progress(SINK), RECOVERY_TIMEOUT_S)
            app.stack.postgres.kill()
            app.stack.postgres.start()
    with load.playing(CHANGES // 8):
        app.until("the sink works", watch.progress(SINK), RECOVERY_TIMEOUT_S)
    kill_inside_of_commit(app, load)
    census = settle(load, record_property)
    assert census.settled[SINK].recovered, "no commit had its answer lost"


def kill_inside_of_commit(app: Application, load: Load) -> None:
    """A standby that does not exist holds COMMIT after its record is written and before its answer is given."""
    dsn = app.stack.dsn
    query(dsn, "alter system set synchronous_standby_names = 'nobody'")
    query(dsn, "select pg_reload_conf()")
    with load.playing():
        app.until("the sink is inside of COMMIT", lambda: sink_waits_in_commit(dsn), RECOVERY_TIMEOUT_S)
        query(dsn, "alter system reset synchronous_standby_names")  # for the next start; this one goes on holding
        app.stack.postgres.kill()
        app.stack.postgres.start()


def settle(load: Load, record_property: Report) -> Census:
    census, recovery_s = load.finish()
    summary = f"{events(census):,} events, lag 0 after {recovery_s:.1f} s; {outcome_figures(census, load)}"
    record_property("summary", summary)
    assert_holds(census, summary)
    return census
