"""A dead-letter topic that another system has filled, read whole: what it holds, and what its headers tell."""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final, NamedTuple

from heddle.broker.log import Admin, Reader, Record, TopicState
from heddle.delivery import envelope
from heddle.delivery.classify import MAX_MESSAGE_CHARS
from heddle.delivery.command import Foreign, PlanHeader
from heddle.delivery.envelope import MAX_STACK_CHARS, is_ours
from heddle.delivery.subscription import Subscription
from heddle.errors import FailureClass, UsageError
from heddle.event import event_time, stable_id
from heddle.operations.dead_letters.entries import OnProgress, Shelf
from heddle.operations.dead_letters.foreign import (
    Format,
    Known,
    Unreadable,
    format_of,
    has_unreadable_names,
    read_headers,
)
from heddle.operations.dead_letters.importing import Gathered, Incoming, limits_of, origin_of, present_in
from heddle.operations.dead_letters.plan import ReplayPlan
from heddle.secrets import redact

TIMEOUT_S: Final = 30.0
CODE: Final = "adopted"
"""Of records whose headers name no exception."""

ALL_HEADERS: Final = Unreadable("all of them", "a header's name is no UTF-8")
_PROGRESS_RECORDS: Final = 1_000
_AT: Final = re.compile(r"^\s*at ([^\s(]+)\(", re.MULTILINE)
_CAUSED_BY: Final = "Caused by:"


class Found(NamedTuple):
    """One foreign record. `written_by` None: none of its headers is one that a known system writes."""

    record: Record
    written_by: Format | None
    known: Known
    unreadable: tuple[Unreadable, ...]

    @property
    def name(self) -> str:
        return f"{self.record.topic}/{self.record.partition}-{self.record.offset}"


class Spoilt(NamedTuple):
    """A record with headers that cannot be read."""

    name: str
    headers: tuple[Unreadable, ...]


@dataclass(slots=True)
class Adoption:
    """`formats` counts the records that are taken, `unreadable` their headers by format, `without_body` those whose
    value is null. Not `complete`: the plan is full, and the topic holds more."""

    plan: ReplayPlan
    formats: Counter[Format | None] = field(default_factory=Counter)
    unreadable: Counter[tuple[Format | None, Unreadable]] = field(default_factory=Counter)
    spoilt: list[Spoilt] = field(default_factory=list)
    without_body: int = 0
    complete: bool = True


def adoption(
    admin: Admin, reader: Reader, shelf: Shelf, header: PlanHeader, topic: str, written_by: Format | None = None,
    on_progress: OnProgress = lambda _: None,
) -> Adoption:  # fmt: skip
    """What adopting `topic` would make. `written_by`: for all its records, else each is recognised by its headers.

    Raises `UsageError` for a topic that is not there, or that Heddle has written itself."""
    state = foreign_topic(admin, shelf.subscription, topic)
    gathered = Gathered(shelf, present_in(reader, shelf, on_progress), limits_of(admin, shelf))
    adopted = Adoption(ReplayPlan(header, (), ()))
    with closing(_records(reader, state, on_progress)) as records:
        for record in records:
            if gathered.is_full:
                adopted.complete = False
                break
            found = read_record(record, written_by)
            if gathered.take(incoming_of(found, state.topic_id)):
                _count(adopted, found)
    adopted.plan = gathered.plan(header)
    return adopted


def foreign_topic(admin: Admin, subscription: Subscription, topic: str) -> TopicState:
    own = (subscription.topic, *subscription.writes, subscription.command_topic, subscription.audit_topic)
    if topic in own:
        raise UsageError(f"{topic} is a topic of {subscription.name} itself, not a dead-letter topic of another system")
    if topic == subscription.dead_letter_topic:
        raise _ours(topic)
    state = admin.topics([topic]).get(topic)
    if state is None:
        raise UsageError(f"no topic {topic}", hint="give the topic that the other system writes its dead letters to")
    return state


def read_record(record: Record, written_by: Format | None = None) -> Found:
    """Raises `UsageError` for a dead-letter entry of Heddle's own."""
    if has_unreadable_names(record.headers):
        return Found(record._replace(headers=[]), written_by, Known(), (ALL_HEADERS,))
    if any(is_ours(name) for name, _ in record.headers):
        raise _ours(f"{record.topic} (partition {record.partition}, offset {record.offset})")
    by = written_by or format_of(record.headers)
    known, unreadable = (Known(), ()) if by is None else read_headers(record.headers, by)
    return Found(record, by, known, unreadable)


def incoming_of(found: Found, topic_id: str) -> Incoming:
    record = found.record
    foreign = Foreign(
        origin_of(record.topic, record.partition, topic_id),
        record.offset,
        record.key,
        record.value,
        tuple((sys.intern(name), value) for name, value in record.headers),
        _timestamp_ms(found),
        tuple(failure_of(found).items()),
    )
    return Incoming(foreign, record.partition, found.name)


def failure_of(found: Found) -> dict[str, str]:
    """Why it is here, as our own entries tell it. The class is left open: what the other system retries is its own."""
    known = found.known
    exception = known.cause or known.exception or ""
    code = _simple_name(exception) or CODE
    told = {
        envelope.CLASS: FailureClass.UNKNOWN,
        envelope.CODE: code,
        envelope.FINGERPRINT: stable_id(CODE, found.written_by or "", code, _frame(known.stack or ""))[:12],
        envelope.EXCEPTION: _exceptions(known),
        envelope.MESSAGE: redact(_message(known))[:MAX_MESSAGE_CHARS],
        envelope.STACK: _stack(known.stack or ""),
        envelope.FIRST_FAILED: _failed_at(found),
        envelope.LAST_FAILED: _failed_at(found),
    }
    return {name: text for name, text in told.items() if text}


def _records(reader: Reader, topic: TopicState, on_progress: OnProgress) -> Generator[Record]:
    for partition in range(topic.partitions):
        unsaid = 0
        for record in reader.scan(topic.name, partition, TIMEOUT_S):
            yield record
            unsaid += 1
            if unsaid == _PROGRESS_RECORDS:
                on_progress(unsaid)
                unsaid = 0
        on_progress(unsaid)


def _count(adopted: Adoption, found: Found) -> None:
    adopted.formats[found.written_by] += 1
    adopted.without_body += found.record.value is None
    if found.unreadable:
        adopted.unreadable.update((found.written_by, header) for header in found.unreadable)
        adopted.spoilt.append(Spoilt(found.name, found.unreadable))


def _timestamp_ms(found: Found) -> int:
    """Of the record that failed first, where that is known (-1 is Kafka's word for none)."""
    known = found.known.timestamp_ms
    return found.record.timestamp_ms if known is None or known < 0 else known


def _failed_at(found: Found) -> str:
    """Only a share group stamps its dead letters when it writes them; "" for all others."""
    if found.written_by is not Format.SHARE_GROUP or found.record.timestamp_ms <= 0:
        return ""
    try:
        return event_time(datetime.fromtimestamp(found.record.timestamp_ms / 1000, UTC))
    except (ValueError, OverflowError, OSError):
        return ""


def _exceptions(known: Known) -> str:
    both = [name for name in (known.exception, known.cause) if name]
    return redact(", caused by ".join(dict.fromkeys(both)))[:MAX_MESSAGE_CHARS]


def _message(known: Known) -> str:
    """What it says, then what else the headers know, in words."""
    facts = [fact for fact in _facts(known) if fact]
    return " ".join(part for part in (known.message, f"({', '.join(facts)})" if facts else "") if part)


def _facts(known: Known) -> Sequence[str]:
    where = [known.topic or "?", *(str(n) for n in (known.partition, known.offset) if n is not None)]
    connector = known.connector and (
        f"{known.connector} task {known.task}" if known.task is not None else known.connector
    )
    return (
        f"from {':'.join(where)}" if known.topic or len(where) > 1 else "",
        f"group {known.group}" if known.group else "",
        f"connector {connector}" if connector else "",
        f"stage {known.stage}" if known.stage else "",
        f"in {known.failed_in}" if known.failed_in else "",
        f"tried {known.tries} times" if known.tries is not None else "",
    )


def _simple_name(exception: str) -> str:
    """`java.lang.IllegalStateException` as `IllegalStateException`."""
    name = re.split(r"[.$]", exception)[-1]
    return name if name.isidentifier() else ""


def _stack(text: str) -> str:
    """The root cause comes last, and its own frames first."""
    text = redact(text)
    if len(text) <= MAX_STACK_CHARS:
        return text
    return text[max(text.rfind(_CAUSED_BY), 0) :][:MAX_STACK_CHARS]


def _frame(stack: str) -> str:
    """The method that raised the root cause, without its line number."""
    at = _AT.search(stack, max(stack.rfind(_CAUSED_BY), 0))
    return at[1] if at else ""


def _ours(what: str) -> UsageError:
    return UsageError(
        f"{what} was written by Heddle",
        hint="`heddle dlq export NAME > FILE` there, then `heddle dlq import NAME FILE` here, keep what it knows",
    )
