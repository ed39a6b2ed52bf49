"""`heddle run`, and the worker process behind it."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from heddle.cli.main import app
from heddle.errors import UsageError
from heddle.integration import Component, PulledSource
from heddle.local import die_with_parent
from heddle.operations.pulling import pull
from heddle.operations.serving import serve
from heddle.operations.supervise import Child, Supervisor, held, worker_command
from heddle.operations.work import work
from heddle.project import Project, load_project
from heddle.settings import Settings, load_settings, need
from heddle.sources.webhook import WebhookSource
from heddle.telemetry.export import exported_metrics
from heddle.telemetry.logs import configure_logs

GATEWAY = "gateway"
PULL = ".pull"

Instance = Annotated[str | None, typer.Option(help="Stable name of this copy; workers on other hosts need their own.")]


@app.command()
def run(
    names: Annotated[list[str] | None, typer.Argument(help="Components, and `gateway`. Default: all of them.")] = None,
    instance: Instance = None,
) -> None:
    """Run workers and the gateway, one process each. A source that is pulled has two: `NAME.pull` goes to it, `NAME`
    converts what did not convert there.

    What dies is started again with a growing delay, and the log says why it died. SIGTERM drains.

    Example: heddle run gateway crm-deals deal-to-invoice

    Exit codes: 0 stopped by a signal, 2 usage, 3 already running, 4 fenced, 6 stopped until a person decides."""
    project, settings = _loaded(instance)
    need(settings, "bootstrap_servers", "registry_url")
    chosen = _chosen(project, names or [])
    configure_logs(settings)
    with held(project.state_dir / "run", settings.instance, chosen):
        children = [Child(name, worker_command(name, settings.instance)) for name in chosen]
        raise typer.Exit(Supervisor(children, drain_timeout_s=settings.drain_timeout_s).run())


@app.command(hidden=True)
def worker(name: str, instance: Instance = None) -> None:
    """One component in this process; `heddle run` starts it."""
    die_with_parent()
    project, settings = _loaded(instance)
    configure_logs(settings, component=name)
    with exported_metrics(project.name, name, settings.instance):
        _run(name, project, settings)


def _run(name: str, project: Project, settings: Settings) -> None:
    if name == GATEWAY:
        serve(webhook_sources(project), settings)
    elif name.endswith(PULL):
        source = project.component(name.removesuffix(PULL))
        assert isinstance(source, PulledSource)
        pull(source, project, settings)
    else:
        work(project.component(name), project, settings)


def webhook_sources(project: Project) -> list[WebhookSource]:
    return [source for source in project.sources if isinstance(source, WebhookSource)]


def _loaded(instance: str | None) -> tuple[Project, Settings]:
    project = load_project()
    os.chdir(project.root)
    return project, load_settings(**({"instance": instance} if instance else {}))


def _chosen(project: Project, names: list[str]) -> list[str]:
    webhooks = bool(webhook_sources(project))
    everything = ([GATEWAY] if webhooks else []) + list(project.components)
    for name in names:
        if name == GATEWAY and not webhooks:
            raise UsageError("no webhook source is declared", hint="declare a WebhookSource in producers/")
        if name != GATEWAY:
            _: Component = project.component(name)
    chosen = list(dict.fromkeys(names)) or everything
    if not chosen:
        raise UsageError("nothing is declared to run", hint="write a file in producers/, topologies/ or consumers/")
    pulled = {source.name for source in project.sources if isinstance(source, PulledSource)}
    return [process for name in chosen for process in ([name + PULL, name] if name in pulled else [name])]
