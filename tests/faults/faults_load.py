"""The systems outside, and the count at the end."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from faults_app import READY_TIMEOUT_S, Application
from faults_watch import Watch

from demo.census import Census, baseline, take_census
from demo.deliveries import CrmDelivery, crm_deliveries
from demo.players import Answers, PaymentsPlayer, play_crm
from heddle.contracts import ConfluentRegistry
from heddle.integration import Outcome

AS_FAST_AS_IT_GOES = 1e6
RECOVERY_TIMEOUT_S = 120.0
"""I7: after the last fault nothing is left to read within this time."""


class Load:
    """One run of the CRM and the card processor against an application whose workers are up."""

    def __init__(self, app: Application, watch: Watch, count: int, first: int = 0) -> None:
        self.run = f"r{time.time_ns():x}"
        self.crm = Answers()
        deliveries, self._expected = crm_deliveries(self.run, count, first)
        self.deliveries = held_last(deliveries, self._expected.held)
        self._app = app
        self._watch = watch
        self._left = self.deliveries
        self._before = baseline(watch.broker, app.subscriptions)
        self._payments = PaymentsPlayer(
            watch.broker,
            ConfluentRegistry(app.settings),
            self.run,
            f"{app.gateway_url}/hooks/payments",
            app.payments_secret,
        )
        self._payments.start()
        assert self._payments.listening.wait(READY_TIMEOUT_S)

    def __enter__(self) -> Load:
        return self

    def __exit__(self, *_: object) -> None:
        """The card processor ends before the servers do, also after a failure."""
        self._payments.stop()

    @contextmanager
    def playing(self, count: int | None = None, rate: float = AS_FAST_AS_IT_GOES) -> Iterator[None]:
        """The next `count` deliveries (default: all that are left) while the block runs; ends when all are answered."""
        part, self._left = self._left[:count], self._left[len(self._left) if count is None else count :]
        player = threading.Thread(target=self._play, args=(part, rate), name="crm-player", daemon=True)
        player.start()
        try:
            yield
        finally:
            player.join()

    @property
    def left(self) -> int:
        """Deliveries not played yet."""
        return len(self._left)

    @property
    def accepted(self) -> int:
        return self.crm.accepted

    def finish(self) -> tuple[Census, float]:
        """Wait until everything has settled, which must come soon (I7), then count. Returns how long it took, too."""
        assert not self._left
        waited = self._app.until("everything settled", self._watch.drained, RECOVERY_TIMEOUT_S)
        self._payments.stop()
        assert self._payments.error is None, self._payments.error
        waited += self._app.until("everything settled", self._watch.drained, RECOVERY_TIMEOUT_S - waited)
        return self._count(), waited

    def _play(self, part: Sequence[CrmDelivery], rate: float) -> None:
        url = f"{self._app.gateway_url}/hooks/crm"
        asyncio.run(play_crm(url, self._app.crm_secret, part, rate, self.crm))

    def _count(self) -> Census:
        accepted = self.crm.accepted_ids | self._payments.answers.accepted_ids
        census = take_census(
            self._watch.broker, self._app.subscriptions, self._before, self.run, self._expected,
            self.crm.sent_at, accepted, self._app.stack.dsn,
        )  # fmt: skip
        wanted = {delivery.webhook_id for delivery in self.deliveries if delivery.kind != "bad-signature"}
        census.checks["every delivery with a good signature was accepted, and no other"] = (
            self.crm.accepted_ids == wanted
        )
        return census


def held_last(deliveries: list[CrmDelivery], held: frozenset[str]) -> list[CrmDelivery]:
    """What has to wait behind a parked event comes last: whoever owns its key by then must know of the park (I4)."""
    last = [delivery for delivery in deliveries if delivery.deal in held and b'"Won"' in delivery.body]
    return [delivery for delivery in deliveries if delivery not in last] + last


def assert_holds(census: Census, context: str) -> None:
    """Every invariant of the census. `context` is shown with those that do not hold."""
    broken = [name for name, holds in census.checks.items() if not holds]
    assert not broken, f"{broken}\n{context}\nrecords {census.records}\nsettled {census.settled}\ndead {census.dead}"


def events(census: Census) -> int:
    """Records on contract topics and raw topics."""
    return sum(count for topic, count in census.records.items() if not topic.endswith(".dlq"))


def outcome_figures(census: Census, load: Load) -> str:
    recovered = sum(counts.recovered for counts in census.settled.values())
    dropped = sum(counts.by_outcome[Outcome.DUPLICATE] for counts in census.settled.values())
    answers = ", ".join(f"{count} x {status}" for status, count in sorted(load.crm.by_status.items()))
    return (
        f"{answers}; {load.crm.retried} deliveries retried, {recovered} effects recovered, {dropped} duplicates dropped"
    )
