"""Orders at a rate that nobody slows down: each carries the time at which it was due to be sent, as its `ce_time`.

    python -m benchmarks.offer OFFER

`OFFER` is an `Offer` as JSON. What is late is sent at once and keeps its due time, so that waiting counts as latency
(no coordinated omission). The answer is one line of JSON: how late this process itself was."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from itertools import cycle

import confluent_kafka as kafka

from benchmarks.orders import fault, headers, key, time_text, values

TICK_S = 0.001
KINDS = 2_000
HEAD_START_S = 0.2
TIMEOUT_S = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """`records_per_s` for `seconds`, evenly. `frame`: hex, of the values."""

    servers: str
    topic: str
    frame: str
    records_per_s: float
    seconds: float

    @property
    def ticks(self) -> int:
        return round(self.seconds / TICK_S)

    def due(self, ticks: int) -> int:
        """How many records in all after so many ticks."""
        return int(self.records_per_s * ticks * TICK_S)

    def text(self) -> str:
        return json.dumps(asdict(self))


def offer(what: Offer) -> dict[str, float]:
    prepared = enumerate(values(range(KINDS), bytes.fromhex(what.frame)))
    orders = cycle([(key(number), value) for number, value in prepared if not fault(number)])
    producer = kafka.Producer(
        {"bootstrap.servers": what.servers, "linger.ms": 1, "queue.buffering.max.messages": 2_000_000}
    )
    producer.list_topics(what.topic, TIMEOUT_S)
    began, sent, late_s = time.time() + HEAD_START_S, 0, []
    for tick in range(what.ticks):
        due_s = began + tick * TICK_S
        if (left_s := due_s - time.time()) > 0:
            time.sleep(left_s)
        late_s.append(time.time() - due_s)
        due_text, due = time_text(datetime.fromtimestamp(due_s, UTC)), what.due(tick + 1)
        for number in range(sent, due):
            order_key, value = next(orders)
            producer.produce(what.topic, value, order_key, headers=headers(number, due_text))
        sent = due
        producer.poll(0)
    if producer.flush(TIMEOUT_S):
        sys.exit("records were not taken in time")
    return {"offered": sent, "late_p99_ms": sorted(late_s)[int(0.99 * (len(late_s) - 1))] * 1000}


if __name__ == "__main__":
    print(json.dumps(offer(Offer(**json.loads(sys.argv[1])))))
