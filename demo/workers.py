"""`heddle run`, and how the demo reaches into it: looks at it, kills one of its processes, restarts another."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import psutil

from demo.oncall import HEDDLE, DemoError
from heddle.broker.kafka import KafkaBroker
from heddle.delivery.subscription import Subscription
from heddle.operations.lag import SubscriptionLag, subscription_lag
from heddle.operations.state import SubscriptionState, subscription_states

TIMEOUT_S = 120.0
POLL_S = 0.2
ALREADY_RUNNING = 3  # exit code of `heddle run`


class Workers:
    """One `heddle run` and what the broker says of its subscriptions."""

    def __init__(
        self, process: subprocess.Popen[bytes], state_dir: Path, broker: KafkaBroker, subscriptions: list[Subscription]
    ) -> None:
        self.pid = process.pid
        self.broker = broker
        self.subscriptions = subscriptions
        self._process = process
        self._state_dir = state_dir

    def until(self, what: str, holds: Callable[[], bool]) -> float:
        """Waits while the supervisor lives; returns how long it took (s)."""
        began = time.monotonic()
        while not holds():
            code = self._process.poll()
            if code == ALREADY_RUNNING:
                raise DemoError("workers of this project run already; stop them first (their pid is in the log)")
            if code is not None:
                raise DemoError(f"`heddle run` ended with exit code {code} before this: {what}")
            if time.monotonic() - began > TIMEOUT_S:
                raise DemoError(f"not within {TIMEOUT_S:.0f} s: {what}")
            time.sleep(POLL_S)
        return time.monotonic() - began

    def gateway_url(self) -> str:
        self.until("the gateway listens", lambda: self._gateway() is not None)
        return str(self._gateway())

    def lag(self) -> list[SubscriptionLag]:
        return subscription_lag(self.broker, self.subscriptions)

    def state(self, name: str) -> SubscriptionState:
        return subscription_states(self.broker, [self._named(name)])[0]

    def all_work(self) -> bool:
        return all(row.members for row in self.lag())

    def drained(self, without: Collection[str] = ()) -> bool:
        return not any(row.lag for row in self.lag() if row.subscription not in without)

    def signal(self, name: str, number: signal.Signals) -> int:
        """Send a signal to the component's process, which its supervisor starts again; returns the pid."""
        process = self._child(name)
        process.send_signal(number)
        return int(process.pid)

    def restarted(self, name: str, was: int) -> Callable[[], bool]:
        """The condition that a process other than `was` is the component's, and owns its partitions again."""

        def holds() -> bool:
            try:
                fresh = self._child(name).pid != was
            except DemoError:  # between the old one's end and the new one's start
                return False
            return fresh and self.owns(name)

        return holds

    def owns(self, name: str) -> bool:
        """The group has exactly its one worker. A killed one stays its member for some seconds."""
        return subscription_lag(self.broker, [self._named(name)])[0].members == 1

    def _named(self, name: str) -> Subscription:
        return next(subscription for subscription in self.subscriptions if subscription.name == name)

    def _child(self, name: str) -> psutil.Process:
        for child in psutil.Process(self.pid).children():
            try:
                if name in child.cmdline():
                    return child
            except psutil.NoSuchProcess:
                continue
        raise DemoError(f"no worker process for {name}")

    def _gateway(self) -> str | None:
        """Where our own gateway listens: the file may be an older one's that was killed."""
        try:
            gateway = json.loads((self._state_dir / "gateway.json").read_text())
            ours = {child.pid for child in psutil.Process(self.pid).children()}
        except (FileNotFoundError, psutil.NoSuchProcess):
            return None
        return str(gateway["url"]) if gateway["pid"] in ours else None


@contextmanager
def supervisor(folder: Path, log: IO[str], *, keep: bool) -> Iterator[subprocess.Popen[bytes]]:
    """`heddle run` in `folder`, ended with SIGTERM unless it is to be kept and all went well."""
    environment = os.environ | {"HEDDLE_GATEWAY_PORT": os.environ.get("HEDDLE_GATEWAY_PORT", "0")}
    process: subprocess.Popen[bytes] = subprocess.Popen(
        [HEDDLE, "run"],
        cwd=folder, stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=environment, start_new_session=True,
    )  # fmt: skip
    kept = False
    try:
        yield process
        kept = keep
    finally:
        if not kept:
            process.send_signal(signal.SIGTERM)
            process.wait()
