"""`make demo`: the whole road, from signed webhooks to ledger rows, with a worker killed on the way.

Exits 1 when any invariant fails."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import psutil
from rich.console import Console
from rich.table import Table

from demo.census import Census, baseline, take_census
from demo.deliveries import crm_deliveries
from demo.players import Answers, PaymentsPlayer, play_crm
from heddle.broker.kafka import KafkaBroker
from heddle.contracts import ConfluentRegistry
from heddle.delivery.metadata import Counts
from heddle.delivery.subscription import Subscription, subscription_of
from heddle.errors import HeddleError
from heddle.integration import Outcome
from heddle.operations.lag import subscription_lag
from heddle.project import load_project
from heddle.secrets import secret
from heddle.settings import load_settings

ROOT = Path(__file__).resolve().parent.parent
STATE = ROOT / ".heddle"
LOG = STATE / "demo.log"
HEDDLE = [sys.executable, "-m", "heddle"]
DELIVERIES, RATE = 5_000, 400.0
READY_TIMEOUT_S, DRAIN_TIMEOUT_S = 60.0, 120.0
VICTIM = "ledger"
ALREADY_RUNNING = 3  # exit code of `heddle run`

console = Console(highlight=False)


class DemoError(Exception):
    """The demo could not go on; the log has the reason."""


def main() -> int:
    options = _options()
    os.chdir(ROOT)
    STATE.mkdir(exist_ok=True)
    try:
        with LOG.open("w") as log:
            return _play(options, log)
    except (DemoError, HeddleError) as error:
        console.print(f"demo: {error}", style="red")
        if hint := getattr(error, "hint", ""):
            console.print(f"  {hint}")
        console.print(f"  the workers' log: {LOG.relative_to(ROOT)}")
        return 1


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    parser.add_argument("--keep", action="store_true", help="leave stack and workers running")
    parser.add_argument("--deliveries", type=int, default=DELIVERIES, help="stage changes to post")
    parser.add_argument("--rate", type=float, default=RATE, help="deliveries a second")
    return parser.parse_args()


def _play(options: argparse.Namespace, log: IO[str]) -> int:
    already_up = (STATE / "stack.json").exists() and _heddle(["status"], log, check=False) == 0
    say("the local stack is running" if already_up else "starting Kafka, the schema registry and PostgreSQL")
    if not already_up and subprocess.run([*HEDDLE, "up"], check=False).returncode:
        raise DemoError("the local stack did not start; the lines above say why")
    say("applying contracts: topics, schemas, tables")
    _heddle(["apply"], log)
    try:
        with _workers(log, keep=options.keep) as workers:
            return _run(options, workers)
    finally:
        if not already_up and not options.keep:
            say("stopping the local stack (the first time takes some seconds); its data stays in .heddle/data")
            _heddle(["down"], log, check=False)


def _run(options: argparse.Namespace, workers: subprocess.Popen[bytes]) -> int:
    settings = load_settings()
    broker, registry = KafkaBroker(settings), ConfluentRegistry(settings)
    subscriptions = [subscription_of(component) for component in load_project().components.values()]
    assert settings.dsn is not None
    dsn = settings.dsn.get_secret_value()
    gateway = _gateway_url(workers)
    say(f"the gateway listens on {gateway}")
    _until("every subscription has its worker", lambda: _all_have_workers(broker, subscriptions), workers)
    run = f"r{int(time.time()):x}"
    before = baseline(broker, subscriptions)
    deliveries, expected = crm_deliveries(run, options.deliveries)
    crm = Answers()
    payments = PaymentsPlayer(broker, registry, run, f"{gateway}/hooks/payments", secret("payments/webhook").resolve())
    payments.start()
    payments.listening.wait(READY_TIMEOUT_S)
    say(f"the CRM posts {len(deliveries):,} deliveries, {options.rate:.0f} a second; a card processor pays invoices")
    killed: list[int] = []

    def on_sent(number: int) -> None:
        if number % 1000 == 0 and number < len(deliveries):
            say(f"  {number:,} sent")
        if number == len(deliveries) // 2:
            killed.append(_kill_worker(workers.pid, VICTIM))

    asyncio.run(
        play_crm(f"{gateway}/hooks/crm", secret("crm/webhook").resolve(), deliveries, options.rate, crm, on_sent)
    )
    say("all sent; waiting until every subscription has settled everything")
    _until("everything settled", lambda: _drained(broker, subscriptions), workers)
    payments.stop()
    if payments.error is not None:
        raise DemoError(f"the payments player failed: {payments.error}")
    _until("everything settled", lambda: _drained(broker, subscriptions), workers)
    accepted = crm.accepted_ids | payments.answers.accepted_ids
    census = take_census(broker, subscriptions, before, run, expected, crm.sent_at, accepted, dsn)
    _report(census, subscriptions, crm, payments.answers, killed)
    failed = [name for name, holds in census.checks.items() if not holds]
    _next_steps(options.keep, failed, workers.pid)
    return 1 if failed else 0


def _report(
    census: Census, subscriptions: list[Subscription], crm: Answers, payments: Answers, killed: list[int]
) -> None:
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(justify="right", style="bold")
    table.add_column()
    for name, answers in (("CRM", crm), ("card processor", payments)):
        refused = ", ".join(f"{n} with {status}" for status, n in sorted(answers.by_status.items()) if status >= 300)
        table.add_row(f"{answers.sent:,}", f"deliveries sent by the {name}")
        table.add_row(f"{answers.accepted:,}", f"accepted after Kafka had them; refused: {refused or 'none'}")
    for topic, count in sorted(census.records.items()):
        if not topic.endswith(".dlq"):
            table.add_row(f"{count:,}", f"events on {topic}")
    console.print()
    console.print(table)
    console.print()
    console.print(_outcome_table(census, subscriptions))
    console.print()
    console.print(_dead_letter_table(census))
    console.print()
    console.print(f"ledger: debits {census.debits:,.2f} = credits {census.credits:,.2f} USD")
    console.print(f"worker killed with -9 midway: {VICTIM}, pid {', '.join(map(str, killed))}")
    cuts = statistics.quantiles(census.latencies_s, n=100) if len(census.latencies_s) > 1 else [0.0] * 99
    console.print(
        f"webhook sent to ledger row committed: p50 {cuts[49] * 1000:.0f} ms, p99 {cuts[98] * 1000:.0f} ms "
        f"({len(census.latencies_s):,} invoices, the kill included)"
    )
    console.print()
    for name, holds in census.checks.items():
        console.print(f"  {'ok    ' if holds else 'FAILED'}  {name}", style=None if holds else "red")


def _outcome_table(census: Census, subscriptions: list[Subscription]) -> Table:
    """One row a subscription; outcomes that did not occur have no column."""
    total = sum(census.settled.values(), Counts())
    occurred = [outcome for outcome in Outcome if total.by_outcome[outcome]]
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("subscription", no_wrap=True)
    for name in ("in", *occurred, "recovered"):
        table.add_column(str(name), justify="right", no_wrap=True)
    for subscription in subscriptions:
        counts = census.settled[subscription.name]
        cells = [counts.total, *(counts.by_outcome[outcome] for outcome in occurred), counts.recovered]
        table.add_row(subscription.name, *(f"{cell:,}" if cell else "" for cell in cells))
    return table


def _dead_letter_table(census: Census) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("entries", justify="right")
    for name in ("dead-letter topic of", "cause", "fingerprint"):
        table.add_column(name, no_wrap=True)
    for (subscription, cause, fingerprint), count in sorted(census.dead.items()):
        table.add_row(f"{count:,}", subscription, cause, fingerprint)
    return table


def _next_steps(keep: bool, failed: list[str], supervisor: int) -> None:
    console.print()
    if failed:
        console.print(f"{len(failed)} invariants FAILED; the workers' log: {LOG.relative_to(ROOT)}", style="red")
    elif keep:
        console.print("Stack and workers are running. Next, try:")
        for command, what in (
            ("lag", "how far each subscription is"),
            ("tail ledger.entry.v1 --beginning --limit 3", "events as their contract says"),
            ("tail deal-to-invoice.dlq --beginning --limit 1 --json", "a dead letter with its cause"),
            ("mapping show deal-to-invoice", "the mapping as a document"),
            ("status", "the servers"),
            ("down", "stop the servers; `make demo` starts them again"),
        ):
            console.print(f"  .venv/bin/heddle {command}  [dim]# {what}[/dim]", soft_wrap=True)
        console.print(f"The workers stop with: kill {supervisor}")
    else:
        console.print("Every invariant holds. Next: `make demo KEEP=1` leaves it running to explore.")


@contextmanager
def _workers(log: IO[str], *, keep: bool) -> Iterator[subprocess.Popen[bytes]]:
    say("starting the gateway and one worker for each subscription")
    environment = os.environ | {"HEDDLE_GATEWAY_PORT": os.environ.get("HEDDLE_GATEWAY_PORT", "0")}
    process: subprocess.Popen[bytes] = subprocess.Popen(
        [*HEDDLE, "run"], stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=environment, start_new_session=True
    )
    kept = False
    try:
        yield process
        kept = keep
    finally:
        if not kept:
            process.send_signal(signal.SIGTERM)
            process.wait()


def _heddle(arguments: list[str], log: IO[str], *, check: bool = True) -> int:
    result = subprocess.run([*HEDDLE, *arguments], stdout=log, stderr=subprocess.PIPE, text=True, check=False)
    log.write(result.stderr)
    if check and result.returncode:
        raise DemoError(f"`heddle {' '.join(arguments)}` failed:\n{result.stderr.strip()}")
    return result.returncode


def _gateway_url(workers: subprocess.Popen[bytes]) -> str:
    _until("the gateway listens", lambda: _gateway_of(workers) is not None, workers)
    return str(_gateway_of(workers))


def _gateway_of(workers: subprocess.Popen[bytes]) -> str | None:
    """Where our own gateway listens: the file may be an older one's that was killed."""
    try:
        gateway = json.loads((STATE / "gateway.json").read_text())
        ours = {child.pid for child in psutil.Process(workers.pid).children()}
    except (FileNotFoundError, psutil.NoSuchProcess):
        return None
    return str(gateway["url"]) if gateway["pid"] in ours else None


def _all_have_workers(broker: KafkaBroker, subscriptions: list[Subscription]) -> bool:
    return all(row.members for row in subscription_lag(broker, subscriptions))


def _drained(broker: KafkaBroker, subscriptions: list[Subscription]) -> bool:
    return not any(row.lag for row in subscription_lag(broker, subscriptions))


def _until(what: str, holds: Callable[[], bool], workers: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + DRAIN_TIMEOUT_S
    while not holds():
        if workers.poll() == ALREADY_RUNNING:
            raise DemoError("workers of this project run already; stop them first (their pid is in the log)")
        if workers.poll() is not None:
            raise DemoError(f"`heddle run` ended with exit code {workers.returncode} before this: {what}")
        if time.monotonic() > deadline:
            raise DemoError(f"not within {DRAIN_TIMEOUT_S:.0f} s: {what}")
        time.sleep(0.1)


def _kill_worker(supervisor: int, name: str) -> int:
    for child in psutil.Process(supervisor).children():
        if name in child.cmdline():
            child.kill()
            say(f"  killed the {name} worker (pid {child.pid}) with -9; its supervisor starts another")
            return int(child.pid)
    raise DemoError(f"no worker process for {name}")


def say(text: str) -> None:
    console.print(text, style="dim" if text.startswith(" ") else None)


if __name__ == "__main__":
    sys.exit(main())
