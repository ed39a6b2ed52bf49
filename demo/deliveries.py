"""What the CRM will post: real opportunities, in the order of their dates, with the accidents of real life mixed in."""

from __future__ import annotations

import csv
import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

DATA = Path(__file__).parent / "data" / "crm_sales_pipeline.csv"
SEED = 20170101

# One in so many deliveries; each kind is there whatever the number of deliveries.
DUPLICATE_EVERY = 60
REORDER_EVERY = 80
BAD_SIGNATURES, MALFORMED_BODIES, UNKNOWN_STAGES = 5, 3, 3

# What the price table of topologies/deal_to_invoice.py lacks: the CRM's own misspelling of GTX Pro.
UNPRICED = "GTXPro"


@dataclass(frozen=True, slots=True)
class CrmDelivery:
    """`kind`: change, duplicate, bad-signature, malformed or unknown-stage. Same `deal` means same order."""

    webhook_id: str
    deal: str
    body: bytes
    kind: str = "change"


@dataclass(frozen=True, slots=True)
class Expected:
    """What must come out: the value of each won deal, deals whose product has no price, deals held behind a parked
    event, and the ids of deliveries that no converter can read."""

    won: dict[str, int]
    unpriced: frozenset[str]
    held: frozenset[str]
    unreadable: frozenset[str]

    @property
    def invoiced(self) -> dict[str, int]:
        """What is invoiced before anybody has mended anything."""
        return {deal: value for deal, value in self.won.items() if deal not in self.unpriced | self.held}


def crm_deliveries(run: str, count: int, first: int = 0) -> tuple[list[CrmDelivery], Expected]:
    """`run` stands in front of every id, so that a stack can serve many runs.

    `count` changes from the `first` on, and the accidents on top. Deals are won from change 1,222 on."""
    changes = list(_changes(run))[first : first + count]
    dice = random.Random(SEED)
    deliveries = _reordered(changes, dice)
    held = _with_unknown_stages(deliveries, dice)
    _with_duplicates(deliveries, dice)
    for number in range(BAD_SIGNATURES):
        body = deliveries[dice.randrange(len(deliveries))].body
        _insert(deliveries, dice, CrmDelivery(f"msg_{run}_forged{number}", f"forged{number}", body, "bad-signature"))
    for number in range(MALFORMED_BODIES):
        broken = CrmDelivery(f"msg_{run}_broken{number}", f"broken{number}", b'{"opportunity_id": "', "malformed")
        _insert(deliveries, dice, broken)
    unreadable = frozenset(d.webhook_id for d in deliveries if d.kind in ("malformed", "unknown-stage"))
    return deliveries, _expected(changes, held, unreadable)


def _changes(run: str) -> Iterator[CrmDelivery]:
    """One delivery for each change of stage: engaging on the first date, won or lost on the second."""
    with DATA.open(encoding="utf-8") as lines:
        rows = list(csv.DictReader(lines))
    dated = []
    for row in rows:
        if row["engage_date"]:
            open_row = row | {"deal_stage": "Engaging", "close_date": "", "close_value": ""}
            dated.append((row["engage_date"], 0, row["opportunity_id"], open_row))
        if row["close_date"]:
            dated.append((row["close_date"], 1, row["opportunity_id"], row))
    for number, (day, step, opportunity, row) in enumerate(sorted(dated, key=lambda change: change[:3])):
        deal = f"{run}-{opportunity}"
        body = row | {"opportunity_id": deal, "changed_at": f"{day}T{9 + step:02}:00:00+00:00"}
        yield CrmDelivery(f"msg_{run}_{number}", deal, json.dumps(body).encode())


def _reordered(changes: list[CrmDelivery], dice: random.Random) -> list[CrmDelivery]:
    """Some deliveries swap places with the next: vendors promise no order."""
    deliveries = list(changes)
    for index in range(0, len(deliveries) - 1, REORDER_EVERY):
        at = min(index + dice.randrange(REORDER_EVERY), len(deliveries) - 2)
        deliveries[at], deliveries[at + 1] = deliveries[at + 1], deliveries[at]
    return deliveries


def _with_unknown_stages(deliveries: list[CrmDelivery], dice: random.Random) -> frozenset[str]:
    """A new stage appears in the CRM before anybody told the integration. Later changes of such a deal have to wait."""
    closing = [index for index, delivery in enumerate(deliveries) if b'"Won"' in delivery.body]
    picked = sorted(dice.sample(closing, min(UNKNOWN_STAGES, len(closing))), reverse=True)
    held = set()
    for number, index in enumerate(picked):
        later = deliveries[index]
        body = later.body.replace(b'"Won"', b'"Negotiating"')
        deliveries.insert(index, CrmDelivery(f"{later.webhook_id}_n{number}", later.deal, body, "unknown-stage"))
        held.add(later.deal)
    return frozenset(held)


def _with_duplicates(deliveries: list[CrmDelivery], dice: random.Random) -> None:
    for _ in range(len(deliveries) // DUPLICATE_EVERY):
        index = dice.randrange(len(deliveries))
        first = deliveries[index]
        if first.kind != "change":
            continue
        again = CrmDelivery(first.webhook_id, first.deal, first.body, "duplicate")
        deliveries.insert(min(index + 1 + dice.randrange(50), len(deliveries)), again)


def _insert(deliveries: list[CrmDelivery], dice: random.Random, delivery: CrmDelivery) -> None:
    deliveries.insert(dice.randrange(len(deliveries)), delivery)


def _expected(changes: list[CrmDelivery], held: frozenset[str], unreadable: frozenset[str]) -> Expected:
    won = {c.deal: json.loads(c.body) for c in changes if b'"Won"' in c.body}
    unpriced = frozenset(deal for deal, row in won.items() if row["product"] == UNPRICED and deal not in held)
    values = {deal: int(row["close_value"]) for deal, row in won.items()}
    return Expected(values, unpriced, held, unreadable)
