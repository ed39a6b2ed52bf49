"""From a project and what was typed to an open session on one subscription."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing, contextmanager

from heddle.broker.kafka import KafkaBroker
from heddle.broker.log import Broker
from heddle.contracts import ConfluentRegistry
from heddle.delivery.subscription import Subscription, subscription_of
from heddle.operations.dead_letters.plan import ReplayPlan
from heddle.operations.dead_letters.plan_files import PlanFiles
from heddle.operations.dead_letters.select import Selection
from heddle.operations.dead_letters.session import Session, only_subscription, open_session
from heddle.project import Project, load_project
from heddle.settings import Settings, load_settings, need
from heddle.telemetry.logs import configure_logs


def loaded() -> tuple[Project, Settings]:
    """The project around here, and its settings. The process is in the project's root from now on."""
    project = load_project()
    os.chdir(project.root)
    settings = need(load_settings(), "bootstrap_servers", "registry_url")
    configure_logs(settings)
    return project, settings


@contextmanager
def opened(selection: Selection, plan_hash: str = "") -> Iterator[tuple[Session, ReplayPlan | None]]:
    """`plan_hash`: of a plan to apply; the second value is that plan, if it was made here."""
    project, settings = loaded()
    plan = PlanFiles(project.state_dir / "plans").load(plan_hash) if plan_hash else None
    name = plan.header.subscription if plan is not None else only_subscription(selection, project.components)
    with (
        closing(ConfluentRegistry(settings)) as registry,
        open_session(project, settings, name, KafkaBroker(settings), registry) as session,
    ):
        yield session, plan


def subscriptions_of(project: Project) -> list[Subscription]:
    return [subscription_of(component) for component in project.components.values()]


def broker_of(settings: Settings) -> Broker:
    return KafkaBroker(settings)
