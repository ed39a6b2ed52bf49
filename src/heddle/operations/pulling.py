"""The body of the process that pulls a source."""

from __future__ import annotations

import signal
import threading
from functools import partial

from heddle.audit import audit_key
from heddle.broker.kafka import KafkaBroker
from heddle.contracts import ConfluentRegistry
from heddle.delivery.drafts import Drafts
from heddle.delivery.pull import PullWorker
from heddle.delivery.pull_audit import PullAudit
from heddle.integration import PulledSource
from heddle.operations.renewing import with_renewed_credentials
from heddle.operations.settled import Settled
from heddle.project import Project, sources_digest
from heddle.secrets import in_use
from heddle.settings import Settings, need


def pull(source: PulledSource, project: Project, settings: Settings) -> None:
    """Blocks until SIGTERM or SIGINT; raises what `PullWorker.run` raises. Refused credentials are read anew once."""
    need(settings, "bootstrap_servers", "registry_url")
    key, stop, settled = audit_key(), threading.Event(), Settled(f"{source.name}.pull")
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())

    def run() -> None:
        drafts = Drafts(source, ConfluentRegistry(settings), sources_digest(project.root))
        audit = PullAudit(source, settings.instance, key, partial(in_use, key))
        worker = PullWorker(source, drafts, KafkaBroker(settings), settings, audit=audit)
        settled.follow(worker)
        worker.run(stop)

    with_renewed_credentials(run)
