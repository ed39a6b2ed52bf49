"""Deals from the CRM: one Standard-Webhooks-signed delivery for each change of stage."""

from collections.abc import Iterator
from datetime import date, datetime
from decimal import Decimal, InvalidOperation
from typing import Any

from heddle import ContractError, Delivery, Draft, StandardWebhooks, WebhookSource, secret
from schemas.crm import Deal, DealStage

STAGES: dict[str, DealStage] = {
    "Prospecting": "PROSPECTING",
    "Engaging": "ENGAGING",
    "Won": "WON",
    "Lost": "LOST",
}


def deals_of(delivery: Delivery) -> Iterator[Draft[Deal]]:
    body = delivery.json()
    changed_at = datetime.fromisoformat(required(body, "changed_at"))
    deal = Deal(
        deal_id=required(body, "opportunity_id"),
        stage=stage_of(required(body, "deal_stage")),
        sales_agent=required(body, "sales_agent"),
        product=required(body, "product"),
        account=body.get("account") or None,
        engaged_on=date_of(body.get("engage_date")),
        closed_on=date_of(body.get("close_date")),
        close_value=amount_of(body.get("close_value")),
        currency="USD",
        changed_at=changed_at,
    )
    yield Draft(deal, id=delivery.id, time=changed_at)


def stage_of(text: str) -> DealStage:
    try:
        return STAGES[text]
    except KeyError:
        raise ContractError("the CRM sent a stage that the contract does not know", path="deal_stage") from None


def date_of(text: str | None) -> date | None:
    return date.fromisoformat(text) if text else None


def amount_of(text: str | None) -> Decimal | None:
    """The CRM exports whole dollars as text, and nothing while a deal is open."""
    if not text:
        return None
    try:
        return Decimal(text).quantize(Decimal("0.01"))
    except InvalidOperation:
        raise ContractError("the CRM sent an amount that is no number", path="close_value") from None


def required(body: Any, field: str) -> str:
    value = body.get(field) if isinstance(body, dict) else None
    if not isinstance(value, str) or not value:
        raise ContractError("the CRM left out a field that every deal has", path=field)
    return value


source = WebhookSource(
    "crm-deals",
    path="/hooks/crm",
    signature=StandardWebhooks(secret("crm/webhook")),
    emits=Deal,
    convert=deals_of,
    entity="opportunity_id",
    owner="sales-systems",
)
