"""Reads back what the run left on the topics and in the database, and holds it against what must be."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from decimal import Decimal

import psycopg

from demo.deliveries import Expected
from demo.parked import Parked, parked_in
from demo.tracing import follows, identity_of
from heddle.audit import AuditRecord, Line, first_break, read
from heddle.broker.kafka import KafkaBroker
from heddle.broker.log import Broker, Record
from heddle.delivery.envelope import State
from heddle.delivery.metadata import Counts
from heddle.delivery.subscription import Subscription
from heddle.event import ID, SOURCE, TRACEPARENT
from heddle.integration import Outcome
from heddle.operations.lag import SubscriptionLag, subscription_lag

READ_TIMEOUT_S = 60.0
READERS = 4
"""Topics that are read side by side: that is mostly waiting."""
ERP, ORDERS = "erp", "order-to-ledger"
"""The source and the flow that do not begin with a delivery."""


@dataclass(frozen=True, slots=True)
class Baseline:
    """Where everything stood before the run: a stack may have seen many. `entry_counts`: of runs of dead letters."""

    ends: dict[str, dict[int, int]]
    counts: dict[str, Counts]
    entry_counts: dict[str, Counts]


@dataclass(slots=True)
class Census:
    """`settled` and `replayed`: outcomes of input records and of dead letters that ran again, by subscription.
    `dead`: how many by subscription, cause, fingerprint and end. `latencies_s`: when a delivery
    was sent first, and how long it took to the ledger. `audited`: audit records. `checks`: invariant → holds."""

    records: dict[str, int] = field(default_factory=dict)
    dead: Counter[tuple[str, str, str, str]] = field(default_factory=Counter)
    settled: dict[str, Counts] = field(default_factory=dict)
    replayed: dict[str, Counts] = field(default_factory=dict)
    debits: Decimal = Decimal(0)
    credits: Decimal = Decimal(0)
    checks: dict[str, bool] = field(default_factory=dict)
    latencies_s: list[tuple[float, float]] = field(default_factory=list)
    audited: int = 0


def baseline(broker: KafkaBroker, subscriptions: Iterable[Subscription]) -> Baseline:
    subscriptions = list(subscriptions)
    names = {t for s in subscriptions for t in (s.topic, s.dead_letter_topic)}
    admin = broker.admin()
    try:
        topics = admin.topics(names)
        ends = admin.end_offsets({name: range(topics[name].partitions) for name in names})
    finally:
        admin.close()
    rows = subscription_lag(broker, subscriptions)
    return Baseline(
        ends, {row.subscription: row.counts for row in rows}, {row.subscription: row.entry_counts for row in rows}
    )


def take_census(
    broker: KafkaBroker, subscriptions: Iterable[Subscription], before: Baseline, run: str, expected: Expected,
    sent_at: dict[str, float], accepted: set[str], dsn: str, *, repaired: bool = False,
) -> Census:  # fmt: skip
    """Reads the run's part of every topic, then the ledger. `repaired`: every dead letter was dealt with meanwhile."""
    subscriptions = list(subscriptions)
    census = Census()
    with ThreadPoolExecutor(READERS) as pool:
        found = pool.map(lambda topic: since(broker, topic, before.ends[topic]), before.ends)
        kept = dict(zip(before.ends, found, strict=True))
    census.records = {topic: len(records) for topic, records in kept.items()}
    rows = subscription_lag(broker, subscriptions)
    for row in rows:
        census.settled[row.subscription] = _difference(row.counts, before.counts[row.subscription])
        census.replayed[row.subscription] = _difference(row.entry_counts, before.entry_counts[row.subscription])
    parked = {s.name: parked_in(kept[s.dead_letter_topic]) for s in subscriptions}
    for name, entries in parked.items():
        census.dead.update((name, entry.cause, entry.fingerprint, entry.end) for entry in entries)
    _check_conservation(census, rows, subscriptions, kept, accepted)
    _check_outputs(census, subscriptions, kept, parked)
    _check_dead_letters(census, expected, parked)
    if repaired:
        _check_repair(census, parked)
    _check_traces(census, kept)
    _check_effects(census, kept, dsn)
    _check_ledger(census, run, expected.won if repaired else expected.invoiced, dsn)
    _check_audit(census, broker, subscriptions, before, parked)
    late = expected.unpriced | expected.held if repaired else frozenset()
    _measure_latency(census, kept["ledger.entry.v1"], sent_at, kept["crm-deals.raw"], late, dsn)
    return census


def since(broker: Broker, topic: str, ends: dict[int, int]) -> list[Record]:
    """What has come behind these offsets."""
    reader = broker.reader()
    try:
        return [
            r
            for partition, start in ends.items()
            for r in reader.read_range(topic, partition, READ_TIMEOUT_S, start, settled=True)
        ]
    finally:
        reader.close()


def _difference(after: Counts, before: Counts) -> Counts:
    outcomes = {outcome: count - before.by_outcome[outcome] for outcome, count in after.by_outcome.items()}
    return Counts(outcomes, after.recovered - before.recovered)


def _check_conservation(
    census: Census, rows: list[SubscriptionLag], subscriptions: list[Subscription],
    kept: dict[str, list[Record]], accepted: set[str],
) -> None:  # fmt: skip
    checks = census.checks
    raw = {_header(record, ID) for topic, records in kept.items() if topic.endswith(".raw") for record in records}
    checks["every accepted delivery is in a raw topic"] = accepted <= raw
    checks["nothing is left to read"] = all(row.lag == 0 for row in rows)
    for subscription in subscriptions:
        settled = census.settled[subscription.name].total
        checks[f"{subscription.name}: records in = sum of outcomes"] = settled == census.records[subscription.topic]


def _check_outputs(
    census: Census, subscriptions: list[Subscription], kept: dict[str, list[Record]], parked: dict[str, list[Parked]]
) -> None:
    """A database is no topic: what was captured of it is held against its tables (`demo.erp_census`)."""
    for subscription in subscriptions:
        if subscription.writes and subscription.name != ERP:
            outputs = [r for t in subscription.writes for r in kept[t] if _writer(r) == subscription.name]
            without = {entry.place for entry in parked[subscription.name] if not entry.has_run}
            name = f"{subscription.name}: outputs once each, in their key's order"
            census.checks[name] = follows(outputs, kept[subscription.topic], without)


def _check_dead_letters(census: Census, expected: Expected, parked: dict[str, list[Parked]]) -> None:
    """Each has a cause in what was sent. A delivery that a vendor repeats can be parked twice."""
    dead = {name: [entry for entry in entries if entry.first is State.DEAD] for name, entries in parked.items()}
    unread = {entry.event_id for entry in dead.pop("crm-deals")}
    unpriced = dead.pop("deal-to-invoice")
    census.checks |= {
        "each unreadable delivery was a dead letter, and no other": unread == expected.unreadable,
        "each deal without a price was one dead letter, and no other": len({entry.event_id for entry in unpriced})
        == len(unpriced)
        == len(expected.unpriced),
        "no other subscription had a dead letter": not any(dead.values()),
    }


def _check_repair(census: Census, parked: dict[str, list[Parked]]) -> None:
    census.checks |= {
        "the outage has parked nothing": not parked["ledger"],
        "no dead letter is left": not any(entry.is_unresolved for entries in parked.values() for entry in entries),
    }


def _check_audit(
    census: Census, broker: KafkaBroker, subscriptions: list[Subscription], before: Baseline,
    parked: dict[str, list[Parked]],
) -> None:  # fmt: skip
    """Every chain from its beginning, of all runs; and each dead letter of this run is told of, end included."""
    whole, told = True, True
    with ThreadPoolExecutor(READERS) as pool:
        found = pool.map(lambda s: _trails(broker, s, len(before.ends[s.topic])), subscriptions)
    for subscription, trails in zip(subscriptions, found, strict=True):
        census.audited += sum(map(len, trails))
        whole &= all(first_break(trail) is None for trail in trails)
        ends = {line.entry for trail in trails for record in trail for line in record.lines if _is_end(line)}
        told &= {entry.id for entry in parked[subscription.name] if not entry.is_unresolved} <= ends
    census.checks[f"every audit trail is one whole chain ({census.audited:,} records of all runs)"] = whole
    census.checks["the audit trail tells how each dead letter ended"] = told


def _trails(broker: KafkaBroker, subscription: Subscription, partitions: int) -> list[list[AuditRecord]]:
    """One for each partition, from its beginning."""
    with closing(broker.reader()) as reader:
        return [list(read(reader, subscription.audit_topic, p, READ_TIMEOUT_S)) for p in range(partitions)]


def _is_end(line: Line) -> bool:
    return line.state == "resolved" or line.outcome == "discarded"


def _check_effects(census: Census, kept: dict[str, list[Record]], dsn: str) -> None:
    """The inbox holds each event of the topic; the outcomes say the same: applied once, every repetition dropped. Of
    changes of one order that come in one batch the last alone is written, the others are superseded."""
    entries = kept["ledger.entry.v1"]
    identities = {identity_of(record) for record in entries}
    last = len({record.key for record in entries})
    with psycopg.connect(dsn) as connection:
        inbox = connection.execute("select ce_source, ce_id from ledger.heddle_inbox where sink = 'ledger'").fetchall()
    counts = (census.settled["ledger"] + census.replayed["ledger"]).by_outcome
    census.checks["ledger: each event took effect once"] = (
        identities <= {(source, event_id) for source, event_id in inbox}
        and counts[Outcome.APPLIED] + counts[Outcome.SUPERSEDED] == len(identities)
        and counts[Outcome.APPLIED] >= last
        and counts[Outcome.DUPLICATE] == len(entries) - len(identities)
    )


def _check_ledger(census: Census, run: str, invoiced: dict[str, int], dsn: str) -> None:
    with psycopg.connect(dsn) as connection:
        rows = connection.execute(
            "select source_id, kind, account, debit, credit from ledger.entry_line where source_id like %s",
            [f"%{run}-%"],
        ).fetchall()
    census.debits = sum((row[3] for row in rows), Decimal(0))
    census.credits = sum((row[4] for row in rows), Decimal(0))
    lines: Counter[tuple[str, str]] = Counter((row[0], row[1]) for row in rows)
    billed = {row[0]: row[3] for row in rows if row[1] == "INVOICE" and row[3]}
    want = {f"INV-{deal}": Decimal(value) for deal, value in invoiced.items()}
    paid = {source_id.removeprefix("pi_") for source_id, kind in lines if kind == "PAYMENT"}
    census.checks |= {
        "debits = credits": census.debits == census.credits,
        "each source id exactly once in the ledger": all(count == 2 for count in lines.values()),
        "each won deal with a price is billed at its value, and no other": _same_money(billed, want),
        "every invoice is paid, and no other": paid == set(want),
    }


def _same_money(billed: dict[str, Decimal], want: dict[str, Decimal]) -> bool:
    """Deals won for nothing have no debit other than zero, which is no line to compare."""
    return billed == {key: value for key, value in want.items() if value}


def _check_traces(census: Census, kept: dict[str, list[Record]]) -> None:
    """The gateway began a trace for each delivery; nothing on the way may lose it or begin another."""
    raw = [record for topic, records in kept.items() if topic.endswith(".raw") for record in records]
    begun = {_header(record, TRACEPARENT) for record in raw}
    entries = [entry for entry in kept["ledger.entry.v1"] if _writer(entry) != ORDERS]
    census.checks["each ledger entry of a delivery carries its trace"] = "" not in begun and all(
        _header(entry, TRACEPARENT) in begun for entry in entries
    )


def _measure_latency(
    census: Census, entries: list[Record], sent_at: dict[str, float], raw: list[Record], late: frozenset[str], dsn: str
) -> None:
    """From the first time the CRM sent a won deal to the commit of its ledger rows, those that a person had to mend
    (`late`) left out. One clock: one machine."""
    deals = {record.key: sent_at[_header(record, ID)] for record in raw if _header(record, ID) in sent_at}
    with psycopg.connect(dsn) as connection:
        applied = {
            (source, event_id): moment.timestamp()
            for source, event_id, moment in connection.execute(
                "select ce_source, ce_id, applied_at from ledger.heddle_inbox"
            )
        }
    for record in entries:
        moment = applied.get((_header(record, SOURCE), _header(record, ID)))
        began = deals.get(f"default/{_deal(record)}".encode())
        if moment is not None and began is not None and _deal(record) not in late:
            census.latencies_s.append((began, moment - began))


def _deal(record: Record) -> str:
    """The deal that a ledger entry for an invoice comes from."""
    return (record.key or b"").decode().removeprefix("default/invoice%3AINV-")


def _writer(record: Record) -> str:
    """The component that made an event: the last part of its source."""
    return _header(record, SOURCE).rpartition("/")[2]


def _header(record: Record, name: str) -> str:
    return next(((value or b"").decode() for header, value in record.headers if header == name), "")
