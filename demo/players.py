"""The systems outside: a CRM that posts deal changes, a card processor that answers invoices with payments."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2

from demo.deliveries import CrmDelivery
from heddle.broker.kafka import KafkaBroker
from heddle.contracts import AvroCodec, Registry, contract_of
from schemas.billing import Invoice

LANES = 16
RETRY_STATUS = {429, 500, 502, 503, 504}
RETRY_DELAY_S = 0.2
STRIPE_EVENT = Path(__file__).parent / "data" / "stripe_event.json"


class Answers:
    """What the gateway answered, by status; the ids of what it accepted; and when each was first sent, by its id."""

    def __init__(self) -> None:
        self.by_status: Counter[int] = Counter()
        self.accepted_ids: set[str] = set()
        self.retried = 0
        self.sent_at: dict[str, float] = {}

    @property
    def sent(self) -> int:
        return sum(self.by_status.values())

    @property
    def accepted(self) -> int:
        return sum(count for status, count in self.by_status.items() if 200 <= status < 300)


async def post(
    client: httpx2.AsyncClient, url: str, event_id: str, body: bytes, headers: dict[str, str], answers: Answers
) -> None:
    """As a vendor does it: until there is a final answer, the same delivery again."""
    while True:
        try:
            response = await client.post(url, content=body, headers={"content-type": "application/json", **headers})
        except httpx2.TransportError:
            status = 503
        else:
            status = response.status_code
        if status not in RETRY_STATUS:
            answers.by_status[status] += 1
            if 200 <= status < 300:
                answers.accepted_ids.add(event_id)
            return
        answers.retried += 1
        await asyncio.sleep(RETRY_DELAY_S)


async def play_crm(
    url: str,
    secret: str,
    deliveries: Sequence[CrmDelivery],
    rate: float,
    answers: Answers,
) -> None:
    """Post all, `rate` a second, deliveries of one deal in order."""
    lanes: list[asyncio.Queue[CrmDelivery | None]] = [asyncio.Queue() for _ in range(LANES)]
    async with httpx2.AsyncClient(timeout=10, trust_env=False) as client, asyncio.TaskGroup() as group:
        for lane in lanes:
            group.create_task(_crm_lane(client, url, secret, lane, answers))
        began = time.monotonic()
        for number, delivery in enumerate(deliveries):
            due = began + number / rate
            if (wait := due - time.monotonic()) > 0:
                await asyncio.sleep(wait)
            lanes[hash(delivery.deal) % LANES].put_nowait(delivery)
        for lane in lanes:
            lane.put_nowait(None)


async def _crm_lane(
    client: httpx2.AsyncClient, url: str, secret: str, lane: asyncio.Queue[CrmDelivery | None], answers: Answers
) -> None:
    while (delivery := await lane.get()) is not None:
        key = "whsec_" + base64.b64encode(b"somebody else's").decode() if delivery.kind == "bad-signature" else secret
        answers.sent_at.setdefault(delivery.webhook_id, time.time())
        await post(client, url, delivery.webhook_id, delivery.body, _standard_webhooks(delivery, key), answers)


def _standard_webhooks(delivery: CrmDelivery, secret: str) -> dict[str, str]:
    """The vendor's half of the scheme, written here on its own: it must not share the verifier's mistakes."""
    stamp = str(int(time.time()))
    key = base64.b64decode(secret.removeprefix("whsec_"))
    signed = f"{delivery.webhook_id}.{stamp}.".encode() + delivery.body
    signature = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    return {"webhook-id": delivery.webhook_id, "webhook-timestamp": stamp, "webhook-signature": f"v1,{signature}"}


class CrmPlayer:
    """Plays a list of deliveries part by part, so that something can happen between and under them."""

    def __init__(self, url: str, secret: str, deliveries: Sequence[CrmDelivery], rate: float) -> None:
        self.answers = Answers()
        self._url = url
        self._secret = secret
        self._left = deliveries
        self._rate = rate

    @contextmanager
    def playing(self, count: int | None = None) -> Iterator[None]:
        """The next `count` deliveries (default: all that are left) while the block runs; ends when all are answered."""
        part, self._left = self._left[:count], self._left[len(self._left) if count is None else count :]
        with ThreadPoolExecutor(1) as pool:
            done = pool.submit(lambda: asyncio.run(self._play(part)))
            yield
            done.result()

    async def _play(self, part: Sequence[CrmDelivery]) -> None:
        await play_crm(self._url, self._secret, part, self._rate, self.answers)


class PaymentsPlayer(threading.Thread):
    """Sees each invoice once and pays it. `stop()` ends it once nothing is left to pay."""

    def __init__(self, broker: KafkaBroker, registry: Registry, run: str, url: str, secret: str) -> None:
        super().__init__(name="payments-player", daemon=True)
        self.answers = Answers()
        self.error: BaseException | None = None
        self._broker = broker
        self._codec: AvroCodec[Invoice] = AvroCodec(contract_of(Invoice), registry)
        self._run_name = run
        self._url = url
        self._secret = secret
        self._paid: set[str] = set()
        self._stopping = threading.Event()
        self.listening = threading.Event()

    def stop(self) -> None:
        self._stopping.set()
        self.join()

    def run(self) -> None:
        try:
            asyncio.run(self._play())
        except BaseException as error:
            self.error = error
            self.listening.set()

    async def _play(self) -> None:
        topic = contract_of(Invoice).topic
        admin, reader = self._broker.admin(), self._broker.reader()
        ends = admin.end_offsets({topic: range(admin.topics([topic])[topic].partitions)})[topic]
        reader.assign(topic, ends)
        self.listening.set()
        try:
            async with httpx2.AsyncClient(timeout=10, trust_env=False) as client:
                while True:
                    records = await asyncio.to_thread(reader.consume, 200, 0.05)
                    invoices = [self._codec.decode(record.value) for record in records]
                    fresh = {i.invoice_id: i for i in invoices if self._run_name in i.invoice_id} if invoices else {}
                    due = [invoice for key, invoice in fresh.items() if key not in self._paid]
                    self._paid.update(fresh)
                    await asyncio.gather(*(self._pay(client, invoice) for invoice in due))
                    if self._stopping.is_set() and not records:
                        return
        finally:
            reader.close()
            admin.close()

    async def _pay(self, client: httpx2.AsyncClient, invoice: Invoice) -> None:
        event = stripe_event(invoice)
        body = json.dumps(event).encode()
        stamp = str(int(time.time()))
        signature = hmac.new(self._secret.encode(), stamp.encode() + b"." + body, hashlib.sha256).hexdigest()
        headers = {"stripe-signature": f"t={stamp},v1={signature}"}
        # The processor's own ids follow from the invoice, so a second look at one cannot become a second payment.
        await post(client, self._url, event["id"], body, headers, self.answers)


def stripe_event(invoice: Invoice) -> dict[str, Any]:
    """The vendor's published event envelope around a payment intent for the invoice."""
    event: dict[str, Any] = json.loads(STRIPE_EVENT.read_text())
    created = int(invoice.changed_at.timestamp())
    intent = {
        "id": f"pi_{invoice.invoice_id}",
        "object": "payment_intent",
        "amount": int(invoice.total.scaleb(2)),
        "currency": invoice.currency.lower(),
        "created": created,
        "livemode": False,
        "metadata": {"invoice_id": invoice.invoice_id},
        "payment_method_types": ["card"],
        "status": "succeeded",
    }
    return event | {
        "id": f"evt_{invoice.invoice_id}",
        "type": "payment_intent.succeeded",
        "created": created,
        "data": {"object": intent},
    }
