"""What `heddle status` says of the subscriptions, below the servers."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.table import Table

from heddle.broker.kafka import KafkaBroker
from heddle.cli.main import out
from heddle.contracts import load_contracts
from heddle.delivery.subscription import subscription_of
from heddle.errors import HeddleError
from heddle.integration import PulledSource
from heddle.operations.orphans import Orphan, find_orphans
from heddle.operations.state import SubscriptionState, subscription_states
from heddle.project import load_project
from heddle.settings import Settings
from heddle.telemetry.logs import configure_logs

CONNECT_TIMEOUT_S = 1.0


@dataclass(frozen=True, slots=True)
class Observed:
    """`problem`: why nothing is known of the subscriptions, and `hint` what to do about it."""

    states: Sequence[SubscriptionState] = ()
    orphans: Sequence[Orphan] = ()
    problem: str = ""
    hint: str = ""

    @property
    def is_new(self) -> bool:
        """Nothing was applied yet."""
        return all(state.lag.missing for state in self.states)

    @property
    def is_well(self) -> bool:
        return not self.problem and (self.is_new or not any(state.problems for state in self.states))

    def document(self) -> dict[str, Any]:
        return {
            "subscriptions": [state.document() for state in self.states],
            "orphans": [orphan.document() for orphan in self.orphans],
            "problem": self.problem,
        }


def observe(root: Path, settings: Settings) -> Observed:
    """Ask the cluster. A status tells what it finds: an application that cannot be imported, or a cluster that does
    not answer, is part of it."""
    if not _answers(settings.bootstrap_servers):
        return Observed(problem=f"no broker answers at {settings.bootstrap_servers}", hint="check the address")
    try:
        return _observed(root, settings)
    except HeddleError as error:
        return Observed(problem=str(error), hint=error.hint)


def print_observed(observed: Observed) -> None:
    if observed.problem:
        _say(observed.problem, observed.hint)
        return
    if observed.is_new:
        if observed.states:
            out.print("no topics yet: `heddle plan` shows what to create")
    else:
        out.print(_table(observed.states))
        for state in observed.states:
            for problem, hint in state.problems:
                _say(problem, hint)
    for orphan in observed.orphans:
        _say(str(orphan), orphan.hint)


def age(since: datetime | None) -> str:
    """`3 d`, `2 h`, `5 min` or `20 s` ago; "" for never."""
    if since is None:
        return ""
    seconds = max((datetime.now(UTC) - since).total_seconds(), 0)
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= length:
            return f"{seconds // length:.0f} {unit}"
    return f"{seconds:.0f} s"


def _observed(root: Path, settings: Settings) -> Observed:
    project = load_project(root)
    configure_logs(settings)
    subscriptions = [subscription_of(component) for component in project.components.values()]
    own = {contract.topic for contract in load_contracts(project.root)} | {s.topic for s in subscriptions}
    broker = KafkaBroker(settings)
    pulled = [source for source in project.sources if isinstance(source, PulledSource)]
    states = subscription_states(broker, subscriptions, pulled)
    with closing(broker.admin()) as admin, closing(broker.reader()) as reader:
        return Observed(states, find_orphans(admin, reader, subscriptions, own))


def _table(states: Sequence[SubscriptionState]) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("subscription", no_wrap=True)
    for heading in ("lag", "workers"):
        table.add_column(heading, justify="right", no_wrap=True)
    for heading in ("unresolved", "oldest", ""):
        table.add_column(heading, no_wrap=heading == "oldest")
    for state in states:
        entries = str(state.unresolved) if state.unresolved else "-"
        oldest = age(state.unresolved.oldest) if state.unresolved else ""
        oldest += "" if state.unresolved.complete or not oldest else "+"
        table.add_row(state.subscription, str(state.lag.lag), str(state.lag.members), entries, oldest, _word(state))
    return table


def _word(state: SubscriptionState) -> str:
    if state.pauses:
        return "paused"
    return "see below" if state.problems else ""


def _say(problem: str, hint: str) -> None:
    out.print(problem, markup=False, soft_wrap=True)
    if hint:
        out.print(f"  {hint}", markup=False, soft_wrap=True)


def _answers(bootstrap_servers: str) -> bool:
    """Whether a port is open. A client that asks a cluster which is not there gives up after 15 s only."""
    for server in bootstrap_servers.split(","):
        host, _, port = server.strip().rpartition(":")
        try:
            with socket.create_connection((host.strip("[]"), int(port)), CONNECT_TIMEOUT_S):
                return True
        except (OSError, ValueError):
            continue
    return False
