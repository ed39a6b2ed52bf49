"""The scenario's ground for real: Kafka, PostgreSQL, and worker processes that are ended by kill -9."""

from __future__ import annotations

import subprocess
from pathlib import Path

import faults_flow
from faults_project import Shell, SmallProject, stopped
from faults_watch import query
from scenario_grounds import BATCH_MAX_RECORDS, LEDGER, Booked, Copy, Ground

from heddle.broker.kafka import KafkaBroker
from heddle.contracts import ConfluentRegistry
from heddle.integration import Component
from heddle.local import Stack
from heddle.secrets import secret
from heddle.settings import Settings
from heddle.sinks.sql import SqlSink

TABLE = "shop.ledger"

_FLOW = """
import os
from pathlib import Path

from faults_flow import flow_of
from schemas.shop import Bill, Order

flow = flow_of(Order, Bill, Path(__file__).parents[1] / "mended", f"{os.environ['SCENARIO_SEED']} {os.getpid()}")
"""
_SINK = """
from faults_flow import POLICY
from heddle import SqlSink, secret
from schemas.shop import Bill

sink = SqlSink(
    "ledger", reads=Bill, table="shop.ledger", key=("account", "seq"), version="cents", dsn=secret("store/dsn"),
    owner="testers", on_failure=POLICY,
)
"""
# What takes effect is written down in its order; a row that changes is written down again. One row in a hundred fails,
# anew in each second, so that halving a batch finds it: as a missing parent row, an application's own error, a check
# that is not passed, a deadlock.
_LEDGER_KEEPS_A_JOURNAL = """
create table shop.journal (
    n bigserial, batch bigint not null default txid_current(), account text, seq bigint, cents bigint
);
create function shop.stumble() returns trigger language plpgsql as $$
declare
    throw text := concat_ws(' ', new.account, new.seq, date_trunc('second', now()));
    dice bigint := mod(abs(hashtext(throw)::bigint), 2000);
begin
    case
        when dice < 12 then raise exception using errcode = '23503', message = 'no parent yet';
        when dice < 18 then raise exception using errcode = 'HD001', message = 'an own error';
        when dice < 22 then raise exception using errcode = '23514', message = 'refused';
        when dice < 23 then raise exception using errcode = '40P01', message = 'deadlock detected';
        else null;
    end case;
    insert into shop.journal (account, seq, cents) values (new.account, new.seq, new.cents);
    return new;
end $$;
create trigger stumble before insert or update on shop.ledger for each row execute function shop.stumble();
"""


class KafkaGround(Ground):
    """Applied, nothing running."""

    def __init__(self, project: SmallProject, stack: Stack, seed: str) -> None:
        types = project.types
        (project.root / "faults_flow.py").write_text(Path(faults_flow.__file__).read_text())
        (project.root / "topologies/flow.py").write_text(_FLOW)
        (project.root / "consumers/sink.py").write_text(_SINK)
        self._stack = stack
        self._shell = Shell(
            project, stack, SCENARIO_SEED=seed, HEDDLE_BATCH_MAX_RECORDS=str(BATCH_MAX_RECORDS)
        )  # fmt: skip
        self._running: dict[Copy, subprocess.Popen[bytes]] = {}
        flow = faults_flow.flow_of(types.Order, types.Bill, project.mended, seed)
        sink = SqlSink(
            LEDGER, reads=types.Bill, table=TABLE, key=("account", "seq"), version="cents", dsn=secret("store/dsn"),
            owner="testers", on_failure=faults_flow.POLICY,
        )  # fmt: skip
        components: dict[str, Component] = {flow.name: flow, LEDGER: sink}
        settings = Settings(bootstrap_servers=stack.bootstrap_servers, registry_url=stack.registry_url, local=True)
        super().__init__(project, KafkaBroker(settings), ConfluentRegistry(settings), settings, components)
        self._shell.apply()
        query(stack.dsn, _LEDGER_KEEPS_A_JOURNAL)

    def start(self, copy: Copy) -> None:
        self._running[copy] = self._shell.start("worker", copy.component, "--instance", copy.instance)

    def kill(self, copy: Copy) -> None:
        process = self._running.pop(copy)
        assert process.poll() is None, f"{copy} had ended\n{self.project.last_lines()}"
        process.kill()
        process.wait()

    def stop(self, copy: Copy) -> None:
        code = stopped(self._running.pop(copy))
        assert code == 0, f"{copy} ended with {code}\n{self.project.last_lines()}"

    def check(self) -> None:
        for copy, process in self._running.items():
            code = process.poll()
            assert code is None, f"{copy} ended with {code}\n{self.project.last_lines()}"

    def ledger(self) -> list[Booked]:
        rows = query(self._stack.dsn, "select batch, account, seq, cents from shop.journal order by n")
        return [Booked(*row) for row in rows]

    def close(self) -> None:
        """Whatever has happened, nobody is left. One that is still on its way up ends by the signal itself."""
        for process in self._running.values():
            process.terminate()
        for process in self._running.values():
            stopped(process)
        self._running.clear()
