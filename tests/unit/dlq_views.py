"""Entries for tests that need no broker."""

from __future__ import annotations

from typing import Any

from heddle.delivery.envelope import State
from heddle.operations.dead_letters.entries import EntryView

_NUMBERS = ("attempts", "appended_ms", "retry_after_ms", "timestamp_ms", "edit", "size_bytes", "first_failed_ms")


def entry(offset: int = 0, key: str | None = "k", state: State = State.DEAD, **more: Any) -> EntryView:
    partition, name = more.pop("partition", 0), more.pop("subscription", "ledger")
    values: dict[str, Any] = dict.fromkeys(EntryView.__dataclass_fields__, "") | dict.fromkeys(_NUMBERS, 0)
    values |= {"subscription": name, "entry_id": f"{partition}-{offset}", "topic_id": "t1", "partition": partition}
    values |= {"offset": offset, "version": offset + 1000, "state": state, "record": None}
    values |= {"key": None if key is None else key.encode()}
    return EntryView(**(values | more))
