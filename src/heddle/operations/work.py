"""The body of one worker process: open the step, patiently, and run the worker until SIGTERM."""

from __future__ import annotations

import signal
import threading
from functools import partial

import structlog

from heddle.audit import audit_key
from heddle.broker.kafka import KafkaBroker
from heddle.contracts import ConfluentRegistry
from heddle.delivery.approvals import approvals_needed
from heddle.delivery.build import open_step
from heddle.delivery.patience import growing_delays
from heddle.delivery.steps import Step
from heddle.delivery.subscription import subscription_of
from heddle.delivery.worker import Worker
from heddle.errors import DependencyDownError
from heddle.integration import Component
from heddle.operations.renewing import with_renewed_credentials
from heddle.operations.settled import Settled
from heddle.operators import Operators
from heddle.project import Project, sources_digest
from heddle.secrets import in_use
from heddle.settings import Settings, need


def work(component: Component, project: Project, settings: Settings) -> None:
    """Blocks until SIGTERM or SIGINT; raises what `Worker.run` raises.

    Refused credentials are read anew once: they may have been rotated. Refused again soon, they are a person's."""
    need(settings, "bootstrap_servers", "registry_url")
    key, operators = audit_key(), Operators.load(project.root, local=settings.local)
    approvals = approvals_needed(project.config)
    stop, settled = threading.Event(), Settled(component.name)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())

    def run() -> None:
        step = _open_when_possible(component, project, settings, stop)
        if step is not None:
            worker = Worker(
                subscription_of(component), step, KafkaBroker(settings), settings, audit_key=key,
                operators=operators, approvals=approvals, secrets=partial(in_use, key),
            )  # fmt: skip
            settled.follow(worker)
            worker.run(stop)

    with_renewed_credentials(run)


def _open_when_possible(
    component: Component, project: Project, settings: Settings, stop: threading.Event
) -> Step | None:
    """A registry or target that is down at start is waited for; None once asked to stop."""
    log = structlog.get_logger()
    registry = ConfluentRegistry(settings)
    delays = growing_delays()
    while not stop.is_set():
        try:
            return open_step(component, project.name, sources_digest(project.root), registry, settings)
        except DependencyDownError as error:
            delay_s = next(delays)
            log.warning("waiting: a dependency does not answer", error=str(error), retry_in_s=delay_s)
            stop.wait(delay_s)
    return None
