"""The flow of the scenario: orders become bills, and one attempt in twenty fails. Copied into the scenario's folder.

The dice decide about each attempt anew; what a misspelt product does is decided by the event, until it is mended."""

from __future__ import annotations

import random
from datetime import timedelta
from pathlib import Path
from typing import Any

from heddle import ContractError, Flow, OnFailure, RateLimitError, Retry, RetryLater, TransientError

NAME = "billing"
MISSPELT_SHARE = 0.004
TRANSIENT, SURPRISE, LATER, LIMITED = 0.0225, 0.0125, 0.0105, 0.0005
"""Of all attempts; together with the misspelt products one in twenty."""

# No quick tries inside a run: they would mend what the dice break, and nothing would be parked.
POLICY = OnFailure(
    quick_tries=1,
    transient=Retry(tries=8, first_delay_s=0.05, longest_delay_s=0.5),
    unknown=Retry(tries=6, first_delay_s=0.05, longest_delay_s=0.5),
)


class SurpriseError(Exception):
    """Of no class that the engine knows."""


def flow_of(order: type[Any], bill: type[Any], mended: Path, seed: str) -> Flow[Any, Any]:
    """`mended`: a file with the products that are spelt rightly by now."""
    dice = random.Random(seed)

    def billed(value: Any) -> Any:
        if value.product != "tea" and value.product not in mended.read_text().split():
            raise ContractError("no such product", path="product")
        _stumble(dice.random())
        return bill(account=value.account, seq=value.seq, cents=value.cents)

    return Flow(NAME, reads=order, writes=bill, do=billed, owner="testers", on_failure=POLICY)


def _stumble(dice: float) -> None:
    if dice < TRANSIENT:
        raise TransientError("connection reset")
    if dice < TRANSIENT + SURPRISE:
        raise SurpriseError
    if dice < TRANSIENT + SURPRISE + LATER:
        raise RetryLater("not yet", after=timedelta(seconds=0.1))
    if dice < TRANSIENT + SURPRISE + LATER + LIMITED:
        raise RateLimitError("too many requests", after=timedelta(seconds=0.02))
