"""How every subscription is, at a glance: lag, workers, unresolved entries, and what is paused and why."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

from heddle.audit import AuditRecord, heads
from heddle.broker.log import Admin, Broker, Reader
from heddle.delivery.metadata import Counts
from heddle.delivery.pull_audit import audit_topic
from heddle.delivery.subscription import Subscription
from heddle.errors import BrokerDownError
from heddle.integration import PulledSource
from heddle.operations.lag import UNREADABLE_HINT, SubscriptionLag, lag_of
from heddle.operations.unresolved import Unresolved, count_unresolved

TAIL_TIMEOUT_S = 1.0


@dataclass(frozen=True, slots=True)
class Pause:
    """Partitions that read nothing new, all for one reason, as their owner noted it: `<kind>: <what>`. None of them:
    the process that pulls the source of this name."""

    subscription: str
    partitions: tuple[int, ...]
    reason: str
    has_workers: bool

    @property
    def who(self) -> str:
        if not self.partitions:
            return f"{self.subscription}.pull"
        numbers = ", ".join(map(str, self.partitions))
        return f"{'partitions' if len(self.partitions) > 1 else 'partition'} {numbers} of {self.subscription}"

    def __str__(self) -> str:
        many, who = len(self.partitions) > 1, self.who
        kind, _, what = self.reason.partition(": ")
        if not self.has_workers:
            return f"{who} {'were' if many else 'was'} paused when the worker stopped ({self.reason})"
        does = "read nothing new" if many else "reads nothing new"
        match kind:
            case "cap":
                return f"{who} {does}: {_grouped(what)} are unresolved, which is the cap"
            case "rate-limit":
                return f"{who} {does}: a target asks to slow down ({what})"
            case _:
                return f"{who} {does}, and nothing is parked: {what or kind}"

    @property
    def hint(self) -> str:
        """What to do next."""
        if not self.has_workers:
            return f"start it: heddle run {self.subscription}"
        match self.reason.partition(":")[0]:
            case "cap":
                return f"resolve some: heddle dlq list {self.subscription} --group-by fingerprint"
            case "rate-limit":
                return "it goes on by itself"
            case _:
                return "mend what it waits for: it tries by itself, and goes on once that answers"

    def document(self) -> dict[str, Any]:
        """What `--json` prints."""
        process = {} if self.partitions else {"process": self.who}
        return {"partitions": list(self.partitions), "reason": self.reason, **process}


@dataclass(frozen=True, slots=True)
class SubscriptionState:
    """`missing`: topics that `heddle apply` has yet to make. `pauses` None: not known while a transaction is open."""

    lag: SubscriptionLag
    unresolved: Unresolved
    pauses: tuple[Pause, ...] | None = ()
    missing: tuple[str, ...] = ()

    @property
    def subscription(self) -> str:
        return self.lag.subscription

    @property
    def problems(self) -> list[tuple[str, str]]:
        """What a person has to know, each with what to do next."""
        name, found = self.subscription, []
        if self.missing:
            found.append((f"{name} has no topic {', '.join(self.missing)}", "run `heddle plan`, then `heddle apply`"))
        if self.lag.unreadable:
            found.append((f"{name}: {self.lag.unreadable}", UNREADABLE_HINT))
        if self.unresolved.unreadable:
            hint = "a newer Heddle or another program wrote it: run that version, or move the record"
            found.append((f"{name}.dlq: {self.unresolved.unreadable}", hint))
        if self.pauses is None:
            hint = "look again in some seconds: its worker, or the next one, ends it"
            found.append((f"{name}: a transaction is open, so whether it is paused is not known", hint))
        return found + [(str(pause), pause.hint) for pause in self.pauses or ()]

    def document(self) -> dict[str, Any]:
        """What `--json` prints."""
        return {
            "subscription": self.subscription,
            "topic": self.lag.topic,
            "missing_topics": list(self.missing),
            "lag": self.lag.lag,
            "workers": self.lag.members,
            "unresolved": self.unresolved.document(),
            "paused": [pause.document() for pause in self.pauses or ()],
            "problems": [{"message": message, "hint": hint} for message, hint in self.problems],
        }


def subscription_states(
    broker: Broker, subscriptions: Iterable[Subscription], pulled: Iterable[PulledSource] = ()
) -> list[SubscriptionState]:
    """Asks the broker, all subscriptions side by side. `pulled`: the sources among them that a process goes to; a pause
    of it is one of the subscription that has the source's name."""
    subscriptions, by_name = list(subscriptions), {source.name: source for source in pulled}
    with ThreadPoolExecutor(max_workers=len(subscriptions) or 1) as pool:
        return list(pool.map(lambda each: _one(broker, each, by_name.get(each.name)), subscriptions))


def pauses_of(
    reader: Reader, subscription: Subscription, partitions: Iterable[int], has_workers: bool
) -> tuple[Pause, ...] | None:
    """What the newest audit records say; None when a transaction that is open keeps them back."""
    reasons: dict[str, list[int]] = {}
    try:
        tails = heads(reader, subscription.audit_topic, partitions, TAIL_TIMEOUT_S)
    except BrokerDownError:
        return None
    for partition, record in sorted(tails.items()):
        if reason := _paused(record):
            reasons.setdefault(reason, []).append(partition)
    return tuple(Pause(subscription.name, tuple(found), reason, has_workers) for reason, found in reasons.items())


def pull_pause_of(admin: Admin, reader: Reader, source: PulledSource) -> tuple[Pause, ...] | None:
    """As `pauses_of`, of the process that goes to the source; () also before its audit topic is made."""
    topic, group = audit_topic(source), f"{source.name}.pull"
    if topic not in admin.topics([topic]):
        return ()
    try:
        reason = _paused(heads(reader, topic, [0], TAIL_TIMEOUT_S)[0])
    except BrokerDownError:
        return None
    return (Pause(source.name, (), reason, admin.group_members([group])[group] > 0),) if reason else ()


def _one(broker: Broker, subscription: Subscription, pulled: PulledSource | None) -> SubscriptionState:
    admin, reader = broker.admin(), broker.reader()
    try:
        state = _state(admin, reader, subscription)
        if pulled is None:
            return state
        more = pull_pause_of(admin, reader, pulled)
        pauses = None if more is None or state.pauses is None else (*more, *state.pauses)
        return replace(state, pauses=pauses)
    finally:
        reader.close()
        admin.close()


def _state(admin: Admin, reader: Reader, subscription: Subscription) -> SubscriptionState:
    wanted = _topics(subscription)
    topics = admin.topics(wanted)
    missing = tuple(name for name in wanted if name not in topics)
    if subscription.topic in missing:
        lag = SubscriptionLag(subscription.name, subscription.topic, 0, 0, 0, Counts(), missing=True)
        return SubscriptionState(lag, Unresolved(), (), missing)
    partitions = topics[subscription.topic].partitions
    lag = lag_of(admin, reader, subscription, partitions)
    dead_letters = topics.get(subscription.dead_letter_topic)
    unresolved = Unresolved()
    if dead_letters is not None:
        (unresolved,) = count_unresolved(admin, reader, {dead_letters.name: dead_letters.partitions}).values()
    audit = topics.get(subscription.audit_topic)
    pauses: tuple[Pause, ...] | None = ()
    if audit is not None:
        pauses = pauses_of(reader, subscription, range(audit.partitions), has_workers=lag.members > 0)
    return SubscriptionState(lag, unresolved, pauses, missing)


def _topics(subscription: Subscription) -> Sequence[str]:
    return (
        subscription.topic,
        subscription.dead_letter_topic,
        subscription.command_topic,
        subscription.audit_topic,
    )


def _grouped(what: str) -> str:
    """`250000 entries` as `250,000 entries`."""
    count, _, noun = what.partition(" ")
    return f"{int(count):,} {noun}" if count.isdigit() else what


def _paused(record: AuditRecord | None) -> str:
    """The pause that an audit record tells of, "" for none: one that began, or one that goes on beside a batch."""
    if record is None:
        return ""
    began = record.body.get("why") if record.kind == "paused" else None
    return str(began or record.body.get("paused") or "")
