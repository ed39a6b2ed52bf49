"""The ERP's part of the demo: from rows of a database to the ledger and to an HTTP API that fails."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing, contextmanager

from rich.table import Table

from demo.billing_api import FAULT_EVERY, TOLD, BillingApi
from demo.erp import TRANSACTIONS_PER_S, ErpPlayer, load_erp, mark
from demo.erp_census import Ends, ErpCensus, has_come, take_erp_census, topic_of
from demo.oncall import Cut, DemoError, OnCall, console, heading, say
from demo.workers import Workers
from heddle.broker.kafka import KafkaBroker
from heddle.contracts import Registry
from heddle.secrets import secret
from producers.erp import source

SINKS = ("billing-accounts", "billing-charges")


class ErpLeg:
    """Made before any worker runs: what is on the topics by then, the API of this run is not told."""

    def __init__(self, on_call: OnCall, broker: KafkaBroker, registry: Registry, dsn: str) -> None:
        say(f"the ERP is a database, the Chinook sample: {load_erp(dsn)}")
        on_call.types("check", "--sources")
        console.print()
        self.api = BillingApi(secret("billing/token").resolve())
        self._broker, self._registry, self._dsn = broker, registry, dsn
        self._before = _ends(broker)
        self._player = ErpPlayer(dsn)
        self._mark = ""

    @contextmanager
    def api_serving(self) -> Iterator[None]:
        """Where the workers that start now look for it."""
        os.environ["BILLING_API_URL"] = self.api.url
        with self.api.serving():
            yield

    def begin(self) -> None:
        say(f"people change orders and customers in the ERP, {TRANSACTIONS_PER_S:.0f} transactions a second")
        say(f"the billing API fails one call in {FAULT_EVERY}: refused, cut off, too late, too slow")
        self._player.start()

    def read_again(self, on_call: OnCall) -> None:
        heading("One of the ERP's tables is read again, while it changes")
        on_call.types("snapshot", "erp", "--table", "erp.customer", cut=Cut())

    def end(self, run: str) -> None:
        """Nobody changes anything any more."""
        self._player.stop()
        if self._player.error is not None:
            raise DemoError(f"the ERP's player failed: {self._player.error}")
        mark(self._dsn, run)
        self._mark = run

    def is_captured(self) -> bool:
        """Whether all that people had changed by the end is on the topics."""
        return has_come(self._broker, self._registry, self._before, self._mark)

    def settled(self, workers: Workers) -> bool:
        """Whether every call has had its answer, those that failed at first included."""
        return not any(workers.state(name).unresolved for name in SINKS)

    def census(self) -> ErpCensus:
        return take_erp_census(self._broker, self._registry, self._before, self.api, self._dsn)

    def report(self, census: ErpCensus) -> None:
        changes, api = self._player.changes, self.api
        table = Table(box=None, show_header=False, pad_edge=False)
        table.add_column(justify="right", style="bold")
        table.add_column()
        for what, count in sorted(changes.items()):
            table.add_row(f"{count:,}", f"rows {what} in the ERP")
        table.add_row(f"{api.calls:,}", "calls to the billing API")
        table.add_row(f"{len(api.effects):,}", f"took effect; {api.repeated:,} more came again and did not")
        for kind, told in TOLD.items():
            table.add_row(f"{api.injected[kind]:,}", told)
        console.print()
        console.print(table)
        console.print(f"ledger: {census.booked:,.2f} USD of orders from the ERP")


def _ends(broker: KafkaBroker) -> Ends:
    topics = [topic_of(cls) for cls in source.emits]
    with closing(broker.admin()) as admin:
        partitions = {name: range(topic.partitions) for name, topic in admin.topics(topics).items()}
        return admin.end_offsets(partitions)
