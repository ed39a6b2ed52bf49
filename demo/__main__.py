"""`make demo`: from signed webhooks and a captured database to ledger rows and calls to an API, through an outage,
killed workers and dead letters.

Exits 1 when any invariant fails."""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

from demo.application import FOLDER, REPOSITORY, STATE, copy_application
from demo.census import ERP, Baseline, baseline, take_census
from demo.deliveries import crm_deliveries
from demo.erp_leg import ErpLeg
from demo.oncall import HEDDLE, DemoError, OnCall, console, heading, prompt, say
from demo.outage import SINK, postgres_outage
from demo.players import CrmPlayer, PaymentsPlayer
from demo.repair import repair
from demo.report import print_checks, report
from demo.workers import Workers, supervisor
from heddle.broker.kafka import KafkaBroker
from heddle.contracts import ConfluentRegistry
from heddle.delivery.subscription import subscription_of
from heddle.errors import HeddleError
from heddle.operations.state import subscription_states
from heddle.operations.supervise import held
from heddle.project import load_project
from heddle.secrets import secret
from heddle.settings import Settings, load_settings

LOG = STATE / "demo.log"
DELIVERIES, RATE = 5_000, 500.0
BEFORE_OUTAGE, UNDER_OUTAGE, UNDER_KILL = 2_000, 1_500, 300
KILLED = (SINK, "erp", "billing-charges")
READY_TIMEOUT_S = 60.0
NEXT_STEPS = (
    ("status", "servers and subscriptions"),
    ("tail ledger.entry.v1 --beginning --limit 3", "events as their contract says"),
    ("mapping show deal-to-invoice", "the mapping as a document"),
    ("dlq jobs", "what was done, by whom, and why; `dlq jobs JOB` has the receipt"),
    ("dlq list --state discarded", "markers of what shall never take effect"),
    ("rewind ledger --to 5m", "a plan to read again; nothing takes effect twice"),
    ("down", "stop the servers; `make demo` starts them again"),
)


def main() -> int:
    options = _options()
    STATE.mkdir(parents=True, exist_ok=True)
    try:
        with LOG.open("w") as log, held(STATE / "run", "demo", ["demo"]):
            return _play(OnCall(FOLDER, log), log, keep=options.keep)
    except KeyboardInterrupt:
        console.print("demo: interrupted", style="red")
        return 130
    except (DemoError, HeddleError) as error:
        console.print(f"demo: {error}", style="red", markup=False)
        if hint := getattr(error, "hint", ""):
            console.print(f"  {hint}", markup=False)
        console.print(f"  the workers' log: {LOG.relative_to(REPOSITORY)}", markup=False)
        return 1


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    parser.add_argument("--keep", action="store_true", help="leave stack and workers running")
    return parser.parse_args()


def _play(on_call: OnCall, log: IO[str], *, keep: bool) -> int:
    _forget_other_clusters()
    os.chdir(FOLDER)
    with held(STATE / "run", load_settings().instance, [SINK]):  # an earlier demo's workers would run what we replace
        copy_application()
    with _stack(on_call, keep=keep):
        subscriptions = [subscription_of(component) for component in load_project(REPOSITORY).components.values()]
        settings = load_settings()
        assert settings.dsn is not None
        broker = KafkaBroker(settings)
        before = baseline(broker, subscriptions)
        erp = ErpLeg(on_call, broker, ConfluentRegistry(settings), settings.dsn.get_secret_value())
        with erp.api_serving(), supervisor(FOLDER, log, keep=keep) as process:
            say("starting the gateway and one worker for each subscription")
            workers = Workers(process, STATE, broker, subscriptions)
            failed = _run(workers, on_call, settings, before, erp)
            _next_steps(keep, failed, workers.pid)
    return 1 if failed else 0


def _forget_other_clusters() -> None:
    """The demo kills a database and changes code: whatever is set, it keeps to the stack that it starts itself."""
    kept = ("HEDDLE_CACHE_DIR", "HEDDLE_GATEWAY_PORT")
    for name in [name for name in os.environ if name.startswith("HEDDLE_") and name not in kept]:
        say(f"{name} is set; the demo goes without it")
        del os.environ[name]


@contextmanager
def _stack(on_call: OnCall, *, keep: bool) -> Iterator[None]:
    """The local stack with topics, schemas and tables. One that did not run before is stopped again at the end."""
    was_up = (STATE / "stack.json").exists() and _is_up()
    say("the local stack is running" if was_up else "starting Kafka, the schema registry and PostgreSQL")
    if not was_up:
        _up()
    try:
        say("applying contracts: topics, schemas, tables")
        on_call.quietly("apply")
        if _is_half_done():
            say("an earlier demo was interrupted: beginning afresh")
            on_call.quietly("down", "--purge")
            _up()
            on_call.quietly("apply")
        yield
    finally:
        if not was_up and not keep:
            say("stopping the local stack (the first time takes some seconds); its data stays")
            on_call.quietly("down")


def _is_up() -> bool:
    status = subprocess.run([HEDDLE, "status", "--json"], capture_output=True, check=False)
    try:
        return all(server["health"] == "ready" for server in json.loads(status.stdout)["servers"])
    except (ValueError, KeyError):
        return False


def _up() -> None:
    if subprocess.run([HEDDLE, "up"], check=False).returncode:
        raise DemoError("the local stack did not start; the lines above say why")


def _is_half_done() -> bool:
    """Whether there is something to read, or a dead letter, before anything was sent."""
    components = load_project(REPOSITORY).components.values()
    states = subscription_states(KafkaBroker(load_settings()), [subscription_of(component) for component in components])
    return any(state.lag.lag or state.unresolved for state in states)


def _run(workers: Workers, on_call: OnCall, settings: Settings, before: Baseline, erp: ErpLeg) -> list[str]:
    """Plays, disturbs, repairs, counts. Returns the invariants that do not hold."""
    gateway = workers.gateway_url()
    say(f"the gateway listens on {gateway}")
    workers.until("every subscription has its worker", workers.all_work)
    run = f"r{int(time.time()):x}"
    deliveries, expected = crm_deliveries(run, DELIVERIES)
    crm = CrmPlayer(f"{gateway}/hooks/crm", secret("crm/webhook").resolve(), deliveries, RATE)
    stripe = secret("payments/webhook").resolve()
    payments = PaymentsPlayer(workers.broker, ConfluentRegistry(settings), run, f"{gateway}/hooks/payments", stripe)
    payments.start()
    payments.listening.wait(READY_TIMEOUT_S)
    say(f"the CRM posts {len(deliveries):,} deliveries, {RATE:.0f} a second; a card processor pays invoices")
    erp.begin()
    undisturbed_until = _disturb(workers, on_call, crm, erp)
    erp.end(run)
    repair(workers, on_call)
    _settle(workers, payments, erp)
    assert settings.dsn is not None
    census = take_census(
        workers.broker, workers.subscriptions, before, run, expected, crm.answers.sent_at,
        crm.answers.accepted_ids | payments.answers.accepted_ids, settings.dsn.get_secret_value(), repaired=True,
    )  # fmt: skip
    of_erp = erp.census()
    report(census, workers.subscriptions, crm.answers, payments.answers, undisturbed_until)
    erp.report(of_erp)
    census.checks |= of_erp.checks
    print_checks(census)
    return [name for name, holds in census.checks.items() if not holds]


def _disturb(workers: Workers, on_call: OnCall, crm: CrmPlayer, erp: ErpLeg) -> float:
    """All deliveries, while the database goes down and comes back, and workers are killed. Returns when it began."""
    with crm.playing(BEFORE_OUTAGE):
        pass
    say(f"  {BEFORE_OUTAGE:,} sent")
    workers.until(
        "each worker has done something", lambda: all(r.counts.total for r in workers.lag() if r.subscription != ERP)
    )
    began = time.time()
    with crm.playing(UNDER_OUTAGE):
        postgres_outage(workers, on_call, json.loads((STATE / "stack.json").read_text())["pids"]["postgres"])
    heading("Workers are killed under load: a sink, the capture, and who calls the API")
    with crm.playing():
        accepted = crm.answers.accepted
        workers.until("the CRM is in full swing", lambda: crm.answers.accepted > accepted + UNDER_KILL)
        for name in KILLED:
            pid = workers.signal(name, signal.SIGKILL)
            prompt(f"kill -9 {pid}", f"{name}; its supervisor starts another")
        erp.read_again(on_call)
    console.print()
    say("all sent")
    workers.until("all but the killed ones have settled everything", lambda: workers.drained(without=KILLED))
    return began


def _settle(workers: Workers, payments: PaymentsPlayer, erp: ErpLeg) -> None:
    console.print()
    say("waiting until every subscription has settled everything")
    workers.until("the ERP is captured", erp.is_captured)
    workers.until("everything settled", workers.drained)
    payments.stop()
    if payments.error is not None:
        raise DemoError(f"the payments player failed: {payments.error}")
    workers.until("everything settled", workers.drained)
    workers.until("every call to the billing API has its answer", lambda: erp.settled(workers))


def _next_steps(keep: bool, failed: list[str], supervisor: int) -> None:
    console.print()
    if failed:
        console.print(f"invariants that FAILED: {len(failed)}; the log: {LOG.relative_to(REPOSITORY)}", style="red")
    elif keep:
        place = FOLDER.relative_to(REPOSITORY)
        console.print("Stack and workers are running. Next, try:")
        console.print(f'  cd {place}; PATH="{REPOSITORY}/.venv/bin:$PATH"', markup=False, soft_wrap=True)
        for command, what in NEXT_STEPS:
            console.print(f"  heddle {command}  [dim]# {what}[/dim]", soft_wrap=True)
        console.print("The billing API has ended with the demo: its sinks would wait for it.")
        console.print(f"The workers stop with: kill {supervisor}")
    else:
        console.print("Every invariant holds. Next: `make demo KEEP=1` leaves it running to explore.")


if __name__ == "__main__":
    sys.exit(main())
