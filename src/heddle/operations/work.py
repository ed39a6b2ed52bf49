"""The body of one worker process: open the step, patiently, and run the worker until SIGTERM."""

from __future__ import annotations

import signal
import threading

import structlog

from heddle.broker.kafka import KafkaBroker
from heddle.contracts import ConfluentRegistry
from heddle.delivery.build import open_step
from heddle.delivery.steps import Step
from heddle.delivery.subscription import subscription_of
from heddle.delivery.worker import Worker, growing_delays
from heddle.errors import DependencyDownError
from heddle.integration import Component
from heddle.project import Project, sources_digest
from heddle.settings import Settings, need


def work(component: Component, project: Project, settings: Settings) -> None:
    """Blocks until SIGTERM or SIGINT; raises what `Worker.run` raises."""
    need(settings, "bootstrap_servers", "registry_url")
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    step = _open_when_possible(component, project, settings, stop)
    if step is not None:
        Worker(subscription_of(component), step, KafkaBroker(settings), settings).run(stop)


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
