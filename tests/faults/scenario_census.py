"""What has to hold when the scenario has ended, read back from topics, offsets and ledger: I1 to I6, and the evidence.

`Of` is what one subscription left behind; every check is a name and whether it holds."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from faults_project import PARTITIONS, totals
from scenario import FLOW, Scenario
from scenario_grounds import LEDGER, Booked, Ground

from heddle.audit import AuditRecord, Line, first_break, read
from heddle.broker.log import Reader, Record
from heddle.contracts import AvroCodec, contract_of
from heddle.delivery.envelope import entry_of
from heddle.delivery.metadata import Counts, PartitionMetadata
from heddle.delivery.subscription import Subscription
from heddle.integration import Outcome

TIMEOUT_S = 60.0
RESOLVING = (Outcome.EMITTED, Outcome.APPLIED, Outcome.DUPLICATE, Outcome.SUPERSEDED)


@dataclass
class Of:
    """One subscription's topics, positions and trail. `lines`: of its partitions, in order."""

    subscription: Subscription
    inputs: dict[int, list[Record]]
    dead_letters: dict[int, list[Record]]
    audit: dict[int, list[AuditRecord]]
    metadata: dict[int, PartitionMetadata]
    ends: dict[int, int]
    offsets: dict[int, int]

    @property
    def lines(self) -> list[tuple[int, Line]]:
        return [(p, line) for p, records in self.audit.items() for record in records for line in record.lines]

    @property
    def live(self) -> Counts:
        return sum((each.counts for each in self.metadata.values()), Counts())

    @property
    def entries(self) -> Counts:
        return sum((each.entry_counts for each in self.metadata.values()), Counts())

    def resolved(self) -> int:
        return sum(self.entries.by_outcome[outcome] for outcome in RESOLVING)


@dataclass
class Census:
    checks: dict[str, bool] = field(default_factory=dict)
    figures: dict[str, str] = field(default_factory=dict)

    @property
    def broken(self) -> list[str]:
        return [name for name, holds in self.checks.items() if not holds]


def take_census(scenario: Scenario) -> Census:
    ground, census = scenario.ground, Census()
    reader = ground.broker.reader()
    try:
        found = {each.name: _read(ground, reader, each) for each in ground.subscriptions}
        bills = _bills(ground, reader)
    finally:
        reader.close()
    for of in found.values():
        _check_conservation(census, of)
        _check_offsets(census, of, scenario)
        _check_evidence(census, of)
    _check_effects(census, "bills", bills, scenario.fed)
    _check_effects(census, "ledger", ground.ledger(), scenario.fed)
    entered = sum(len(records) for records in found[FLOW].inputs.values())
    census.checks["every order is in the log once"] = entered == len(scenario.fed)
    _check_receipts(census, scenario)
    _tell(census, scenario, found)
    return census


def _read(ground: Ground, reader: Reader, subscription: Subscription) -> Of:
    partitions = range(PARTITIONS)

    def all_of(topic: str) -> dict[int, list[Record]]:
        return {p: reader.read_range(topic, p, TIMEOUT_S, settled=True) for p in partitions}

    admin = ground.broker.admin()
    try:
        positions = admin.group_positions(subscription.group, subscription.topic, partitions)
        ends = admin.end_offsets({subscription.topic: partitions})[subscription.topic]
    finally:
        admin.close()
    return Of(
        subscription, all_of(subscription.topic), all_of(subscription.dead_letter_topic),
        {p: list(read(reader, subscription.audit_topic, p, TIMEOUT_S)) for p in partitions},
        {p: PartitionMetadata.unpack(position.metadata) for p, position in positions.items()},
        ends, {p: position.offset for p, position in positions.items()},
    )  # fmt: skip


def _bills(ground: Ground, reader: Reader) -> list[Booked]:
    """What the flow emitted, as a read-committed reader sees it. Transactions have no number there."""
    bill = ground.project.types.Bill
    codec = AvroCodec(contract_of(bill), ground.registry)
    topic, found = contract_of(bill).topic, []
    for partition in range(PARTITIONS):
        records = reader.read_range(topic, partition, TIMEOUT_S, settled=True)
        values, failures = codec.decode_batch([record.value for record in records])
        assert not failures
        found += [Booked(n, value.account, value.seq, value.cents) for n, value in enumerate(values, len(found))]
    return found


def _check_conservation(census: Census, of: Of) -> None:
    """I1: every record and every entry came to its outcome, and the trail tells the same numbers."""
    name, live, checks = of.subscription.name, of.live, census.checks
    entered = sum(len(records) for records in of.inputs.values())
    held_back = live.by_outcome[Outcome.PARKED] + live.by_outcome[Outcome.DIVERTED]
    told = totals(record.body.get("counts", {}) for records in of.audit.values() for record in records)
    told_entries = totals(record.body.get("entry_counts", {}) for records in of.audit.values() for record in records)
    checks[f"{name}: records in = sum of outcomes"] = entered == live.total
    checks[f"{name}: entries in = entries resolved"] = held_back == of.resolved()
    checks[f"{name}: no entry is unresolved"] = not _unresolved(of)
    checks[f"{name}: nothing was superseded"] = not live.by_outcome[Outcome.SUPERSEDED] + of.entries.by_outcome[
        Outcome.SUPERSEDED
    ]  # fmt: skip
    checks[f"{name}: the trail counts the same"] = _named(live) == told and _named(of.entries) == told_entries


def _named(counts: Counts) -> dict[str, int]:
    named = {str(outcome): number for outcome, number in counts.by_outcome.items() if number}
    return named | ({"recovered": counts.recovered} if counts.recovered else {})


def _unresolved(of: Of) -> list[bytes | None]:
    newest = {record.key: record for records in of.dead_letters.values() for record in records}
    return [key for key, record in newest.items() if record.value is not None]


def _check_offsets(census: Census, of: Of, scenario: Scenario) -> None:
    """I5: at every look exactly the records below the committed offset had settled, and none went back."""
    name = of.subscription.name
    offsets = {p: sorted(record.offset for record in records) for p, records in of.inputs.items()}
    reached: dict[int, int] = {}
    wrong = []
    for look in scenario.witness.looks:
        if look.subscription != name:
            continue
        settled = bisect_left(offsets[look.partition], look.offset)
        if look.offset < reached.get(look.partition, look.offset) or look.settled != settled:
            wrong.append(f"{look}, {settled} records lie below, {reached.get(look.partition)} was reached")
        reached[look.partition] = look.offset
    census.checks[f"{name}: no offset went back, none passed an unsettled record {wrong[:3] or ''}".strip()] = not wrong
    left = [r for p, records in of.inputs.items() for r in records if r.offset >= of.offsets.get(p, 0)]
    census.checks[f"{name}: nothing is left to read"] = not left


def _check_evidence(census: Census, of: Of) -> None:
    """I9: chains without a break, and of each entry a line for its parking and one for its resolution."""
    name, checks = of.subscription.name, census.checks
    records = [record for trail in of.audit.values() for record in trail]
    heads = {p: trail[-1].hash if trail else "" for p, trail in of.audit.items()}
    checks[f"{name}: the trail's chain holds"] = all(first_break(trail) is None for trail in of.audit.values())
    checks[f"{name}: the offsets witness its head"] = heads == {p: m.audit_head for p, m in of.metadata.items()}
    checks[f"{name}: nothing was changed from outside"] = all(r.kind != "external-reset" for r in records)
    held_back = Counter((p, line.offset) for p, line in of.lines if line.outcome in ("parked", "diverted"))
    resolved = Counter(line.entry for _, line in of.lines if line.state == "resolved")
    stored = {(p, entry_of(r).offset) for p, rs in of.dead_letters.items() for r in rs if r.value is not None}
    checks[f"{name}: every entry has one line for being held back"] = held_back.keys() == stored and set(
        held_back.values()
    ) <= {1}
    checks[f"{name}: every entry has one line for its resolution"] = resolved == Counter(
        f"{p}-{offset}" for p, offset in stored
    )


def _check_effects(census: Census, name: str, rows: Sequence[Booked], fed: Sequence[Booked]) -> None:
    """I1 to I4: each order took effect once, at its amount, and those of an account in their order."""
    want = Counter((row.account, row.seq, row.cents) for row in fed)
    got = Counter((row.account, row.seq, row.cents) for row in rows)
    census.checks[f"{name}: nothing is lost"] = not want - got
    census.checks[f"{name}: nothing took effect twice"] = not got - want
    census.checks[f"{name}: amounts are conserved"] = sum(r.cents for r in rows) == sum(r.cents for r in fed)
    census.checks[f"{name}: no account's order is broken"] = not list(out_of_order(rows))


def out_of_order(rows: Iterable[Booked]) -> Iterable[Booked]:
    """Rows that took effect after a later one of their account. What took effect at once has no order."""
    done: dict[str, int] = defaultdict(int)
    batch, present = None, dict[str, int]()
    for row in rows:
        if row.batch != batch:
            done |= {account: max(seq, done[account]) for account, seq in present.items()}
            batch, present = row.batch, {}
        if row.seq <= done[row.account]:
            yield row
        present[row.account] = max(row.seq, present.get(row.account, 0))


def _check_receipts(census: Census, scenario: Scenario) -> None:
    receipts = scenario.operators.receipts()
    census.checks["every job's receipt is complete"] = all(receipt.is_complete for receipt in receipts)
    census.checks["jobs ran"] = len(receipts) == len(scenario.operators.sent) > 0
    accounted = totals({str(result): n for result, n in receipt.counts.items()} for receipt in receipts)
    census.figures["replays"] = f"{len(receipts)} replays of {sum(len(r.targets) for r in receipts):,} entries: " + (
        ", ".join(f"{number} {result}" for result, number in accounted.items())
    )


def _tell(census: Census, scenario: Scenario, found: dict[str, Of]) -> None:
    kills = ", ".join(f"{name} {number}" for name, number in sorted(scenario.kills.items()))
    rebalances = ", ".join(f"{name} {number}" for name, number in sorted(scenario.rebalances.items()))
    census.figures["faults"] = f"{scenario.kills.total()} kill -9 ({kills}), {scenario.rebalances.total()} rebalances"
    census.figures["rebalances"] = rebalances
    for name in (FLOW, LEDGER):
        of = found[name]
        failed = sum(line.outcome in ("parked", "failed-again") for _, line in of.lines)
        tried = of.live.total - of.live.by_outcome[Outcome.DIVERTED] + of.entries.total
        suspects = sum(line.code == "kills-the-process" for _, line in of.lines)
        held_back = of.live.by_outcome[Outcome.PARKED] + of.live.by_outcome[Outcome.DIVERTED]
        census.figures[name] = (
            f"{name}: {failed:,} of {tried:,} attempts failed, {held_back:,} entries, "
            f"{of.live.recovered + of.entries.recovered} recovered, {suspects} innocent under suspicion of killing"
        )
