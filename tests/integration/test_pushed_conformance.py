"""The conformance checks of pushed sources can fail: each broken toy is caught by the check that is named for it."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from pushed_process import TEXT, shop, shop_delivery, shop_payments, shop_signed, stripe, stripe_delivery

from heddle import Delivery, Draft, WebhookSource, secret
from heddle.broker.log import Outgoing
from heddle.sources.signatures import Hmac, SignedRequest, Verified
from heddle.testing.conformance import Gateways, MemoryGateways, PushedSourceConformance, Sent
from heddle.testing.conformance.gateways import MemoryGateway, MemoryLog
from schemas.payments import Payment

numbers = itertools.count()


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEDDLE_SECRET_PUSHED_KEY", TEXT)


class TestGeneric(PushedSourceConformance):
    declared: Callable[[], WebhookSource] = staticmethod(shop)
    served: Callable[[], Gateways] = MemoryGateways

    def source(self) -> WebhookSource:
        return self.declared()

    def delivery(self, number: int) -> Sent:
        return shop_delivery(number)

    def poison(self) -> Sent:
        return shop_signed(b'{"id": "P-9"}', "E-9")

    def gateways(self) -> Gateways:
        return self.served()


class TestStripe(PushedSourceConformance):
    def source(self) -> WebhookSource:
        return stripe()

    def delivery(self, number: int) -> Sent:
        return stripe_delivery(number)

    def poison(self) -> Sent:
        return stripe_delivery(9, currency="shells")


class HastyLog(MemoryLog):
    """Says that it has a record, and writes it when it has leisure: never, while it is stalled, or killed."""

    def __init__(self) -> None:
        super().__init__()
        self.later: list[Outgoing] = []

    async def send(self, record: Outgoing) -> tuple[int, int]:
        self.later.append(record)
        return 0, 0

    async def stop(self) -> None:
        for record in self.later:
            self.land(record)


class ForgetfulLog(HastyLog):
    """Writes the first delivery at once, and loses on a stop what it has not written."""

    async def send(self, record: Outgoing) -> tuple[int, int]:
        return await MemoryLog.send(self, record) if record.value and b"P-0" in record.value else (0, 0)

    async def stop(self) -> None:
        """Nothing lands."""


class CrashingLog(MemoryLog):
    async def send(self, record: Outgoing) -> tuple[int, int]:
        if self.is_stalled:
            raise ZeroDivisionError
        return await super().send(record)


class Believing(Hmac):
    def verify(self, request: SignedRequest, now: float) -> Verified:
        return Verified(now, None)

    def verifier(self, secret_texts: Any) -> Any:
        return _Believer(super().verifier(secret_texts))


class _Believer:
    def __init__(self, verifier: Any) -> None:
        self._verifier = verifier

    def verify(self, request: SignedRequest, now: float) -> Verified:
        return Verified(now, None)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._verifier, name)


def counted(_: Delivery) -> str:
    return str(next(numbers))


def salted() -> WebhookSource:
    """Each process has ids of its own."""
    salt = next(numbers)
    return shop(delivery_id=lambda delivery: f"{salt}-{delivery.json()['id']}")


def new_each_time(delivery: Delivery) -> Iterator[Draft[Payment]]:
    for draft in shop_payments(delivery):
        yield replace(draft, id=str(next(numbers)))


def lenient(delivery: Delivery) -> Iterator[Draft[Payment]]:
    return shop_payments(delivery) if b"amount" in delivery.body else iter(())


def with_log(log: type[MemoryLog]) -> Callable[[], Gateways]:
    return staticmethod(lambda: MemoryGateways(log()))  # type: ignore[return-value]


def declared(**changed: Any) -> Callable[[], WebhookSource]:
    return staticmethod(lambda: shop(**changed))  # type: ignore[return-value]


REDELIVERY = "test_a_redelivery_carries_the_same_id"
POISON = "test_poison_is_kept_raw_or_refused_and_others_flow"
PRESSURE = "test_while_the_log_takes_nothing_the_sender_is_told_to_come_again"
ORDER = "test_deliveries_of_an_entity_stay_in_order"
BROKEN: list[tuple[str, dict[str, Any], str]] = [
    ("test_what_was_acknowledged_survives_a_crash", {"served": with_log(HastyLog)}, "and it is not in the raw topic"),
    (
        "test_what_a_crash_left_unanswered_is_sent_again_and_taken",
        {"served": with_log(HastyLog)},
        "nothing may be acknowledged before",
    ),
    (REDELIVERY, {"declared": declared(delivery_id=counted)}, "has other ids"),
    (REDELIVERY, {"declared": declared(delivery_id=lambda _: "always")}, "different deliveries have one id"),
    (
        "test_a_second_copy_loses_nothing_and_doubles_under_one_id_only",
        {"declared": staticmethod(salted)},
        "has other ids",
    ),
    (ORDER, {"declared": declared(entity=None)}, "records have no key"),
    (ORDER, {"declared": declared(entity="id")}, "name the id of the business entity"),
    (POISON, {"declared": declared(entity=lambda delivery: delivery.json()["order"])}, "is answered with 500"),
    (POISON, {"declared": declared(convert=lenient)}, "is converted all the same"),
    (
        "test_a_raw_record_makes_the_same_events_each_time",
        {"declared": declared(convert=new_each_time)},
        "makes other events",
    ),
    (PRESSURE, {"served": with_log(HastyLog)}, "only a 503"),
    (PRESSURE, {"served": with_log(CrashingLog)}, "status=500"),
    (
        "test_a_stop_keeps_what_it_acknowledged_and_refuses_the_rest",
        {"served": with_log(ForgetfulLog)},
        "what is in flight has to land",
    ),
    (
        "test_what_nobody_signed_is_refused",
        {"declared": declared(signature=Believing(secret("pushed/key"), header="x-signature"))},
        "has to cover",
    ),
]


@pytest.mark.parametrize(("check", "broken", "why"), BROKEN, ids=[check for check, *_ in BROKEN])
def test_a_broken_pushed_source_is_caught(check: str, broken: dict[str, Any], why: str) -> None:
    toy = type("Broken", (TestGeneric,), broken)()
    with pytest.raises(AssertionError, match=why):
        getattr(toy, check)()


def test_every_check_has_a_pushed_source_that_it_catches() -> None:
    assert {check for check, *_ in BROKEN} == {
        name for name in dir(PushedSourceConformance) if name.startswith("test_")
    }


def test_a_gateway_that_has_ended_ends_once() -> None:
    gateway = MemoryGateway(shop(), MemoryLog())
    gateway.stop()
    gateway.kill()
    assert gateway.post("/hooks/shop", shop_delivery(0)) is None
