"""Which entries are meant: named ones, or all that have in common what was asked for."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from urllib.parse import quote

from heddle.delivery.envelope import State
from heddle.errors import UsageError
from heddle.operations.dead_letters.entries import EntryView
from heddle.operations.dead_letters.where import ValueOf, Where

UNRESOLVED = frozenset(state for state in State if not state.is_marker)

_ENTRY = re.compile(r"(?:(?P<subscription>[a-z0-9-]+)/)?(?P<entry>\d+-\d+(?:@[^/\s]+)?)")
_DURATION = re.compile(r"(\d+)([smhdw])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


@dataclass(frozen=True, slots=True)
class EntryName:
    """An entry as somebody typed it; `subscription` is "" when left out."""

    subscription: str
    entry_id: str


@dataclass(frozen=True, slots=True)
class Selection:
    """All of what is given has to hold; what is empty does not count. `states` empty: every unresolved one.

    `subscriptions` and `entries` are what was named; `since_ms` compares with the append time of the newest version;
    `key` is a record key as text, or the entity alone for tenant `default`; `fingerprint` may be cut short."""

    subscriptions: tuple[str, ...] = ()
    entries: tuple[EntryName, ...] = ()
    states: frozenset[State] = frozenset()
    since_ms: int = 0
    key: str = ""
    fingerprint: str = ""
    failure_class: str = ""
    code: str = ""
    contract: str = ""
    where: Where | None = None

    @property
    def is_empty(self) -> bool:
        """Whether nothing but subscriptions was asked for, which means all of theirs."""
        return replace(self, subscriptions=()) == Selection()

    @property
    def needs_records(self) -> bool:
        """Whether views have to keep their records for `matches`."""
        return self.where is not None and self.where.needs_record

    @property
    def names(self) -> list[str]:
        """The subscriptions that entries may be of; empty: any."""
        named = [*self.subscriptions, *(entry.subscription for entry in self.entries)]
        return [] if "" in named else list(dict.fromkeys(named))

    def matches(self, view: EntryView, value_of: ValueOf | None = None) -> bool:
        """`value_of` is asked only when the expression reads the payload."""
        return (
            view.state in (self.states or UNRESOLVED)
            and view.appended_ms >= self.since_ms
            and self._is_named(view)
            and (not self.key or _is_key(self.key, view))
            and view.fingerprint.startswith(self.fingerprint)
            and self.failure_class in ("", view.failure_class)
            and self.code in ("", view.code)
            and self.contract in ("", view.contract)
            and (self.where is None or self.where.holds(view, value_of))
        )

    def _is_named(self, view: EntryView) -> bool:
        if any(e.entry_id == view.entry_id and e.subscription in ("", view.subscription) for e in self.entries):
            return True
        return view.subscription in self.subscriptions if self.subscriptions else not self.entries


def selection(
    names: Sequence[str] = (),
    *,
    states: Collection[str] = (),
    since: str = "",
    key: str = "",
    fingerprint: str = "",
    failure_class: str = "",
    code: str = "",
    contract: str = "",
    where: str = "",
) -> Selection:
    """From what was typed. `names` are subscriptions (`ledger`) and entries (`ledger/3-1042`, `3-1042`).

    Raises `UsageError` saying what cannot be read."""
    entries = tuple(entry_name(name) for name in names if _ENTRY.fullmatch(name))
    others = tuple(name for name in names if not _ENTRY.fullmatch(name))
    for name in others:
        if "/" in name:
            entry_name(name)
    return Selection(
        others,
        entries,
        frozenset(_state(state) for state in states),
        since_ms(since) if since else 0,
        key,
        fingerprint,
        failure_class,
        code,
        contract,
        Where(where) if where else None,
    )


def entry_name(text: str) -> EntryName:
    """Raises `UsageError` for what is no entry."""
    match = _ENTRY.fullmatch(text)
    if match is None:
        raise UsageError(
            f"{text} is no entry", hint="write subscription/partition-offset, for example deal-to-invoice/3-1042"
        )
    return EntryName(match["subscription"] or "", match["entry"])


def since_ms(text: str, now: datetime | None = None) -> int:
    """`2h` (s, m, h, d, w) before now, or an RFC 3339 time, which without a zone is UTC, as milliseconds."""
    if match := _DURATION.fullmatch(text):
        try:
            moment = (now or datetime.now(UTC)) - timedelta(**{_UNITS[match[2]]: int(match[1])})
        except (OverflowError, ValueError):
            raise UsageError(f"{text!r} ago is before any time") from None
    else:
        try:
            moment = datetime.fromisoformat(text)
        except ValueError:
            raise UsageError(
                f"{text!r} is no time", hint="write how long ago (30m, 2h, 7d) or a time (2026-03-01T09:30:00Z)"
            ) from None
        moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return int(moment.timestamp() * 1000)


def _state(text: str) -> State:
    try:
        return State(text)
    except ValueError:
        raise UsageError(f"no state {text!r}", hint=f"states: {', '.join(State)}") from None


def _is_key(asked: str, view: EntryView) -> bool:
    return view.key_text in (asked, f"default/{quote(asked, safe='')}")
