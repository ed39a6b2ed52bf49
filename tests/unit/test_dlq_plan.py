"""Plans: closed over heads, sliced, the same for the same entries, and refused once something has changed."""

from __future__ import annotations

import os
import stat
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from heddle.delivery.command import MAX_SLICE_BYTES, MAX_SLICE_ENTRIES, Action, PlanHeader
from heddle.delivery.envelope import State
from heddle.errors import FormatError, UsageError
from heddle.operations.dead_letters.differences import ABSENT, differences
from heddle.operations.dead_letters.entries import EntryView
from heddle.operations.dead_letters.plan import Bodies, ReplayPlan, changes, make_plan, place_of
from heddle.operations.dead_letters.plan_files import KEPT_S, PlanFiles

TOPIC = "t1"


def entry(
    offset: int, key: str | None = "k", state: State = State.DEAD, *, partition: int = 0, topic_id: str = TOPIC,
    version: int = -1, **more: Any,
) -> EntryView:  # fmt: skip
    values: dict[str, Any] = dict.fromkeys(EntryView.__dataclass_fields__, "") | {
        "subscription": "ledger",
        "entry_id": f"{partition}-{offset}" + ("" if topic_id == TOPIC else f"@{topic_id}"),
        "topic_id": topic_id,
        "partition": partition,
        "offset": offset,
        "version": offset + 1000 if version < 0 else version,
        "state": state,
        "key": None if key is None else key.encode(),
        "record": None,
    }
    numbers = ("attempts", "appended_ms", "retry_after_ms", "timestamp_ms", "edit", "size_bytes", "first_failed_ms")
    return EntryView(**(values | dict.fromkeys(numbers, 0) | more))


DEAD, WAITING, RETRYING, UNKNOWN = State.DEAD, State.WAITING, State.RETRYING, State.UNKNOWN


def plan(
    chosen: list[EntryView], every: list[EntryView] | None = None, action: Action = Action.REPLAY, *,
    ordered: bool = True, canary: int = 0, bodies: Bodies | None = None, **header: Any,
) -> ReplayPlan:  # fmt: skip
    asked = PlanHeader("ledger", action, **header)
    return make_plan(
        asked, chosen, every or chosen, topic_id=TOPIC, ordered=ordered, canary=canary, bodies=bodies
    )  # fmt: skip


def ids(made: ReplayPlan) -> list[str]:
    return [target.entry_id for target in made.targets]


def test_a_waiting_entry_brings_its_heads_along_and_what_waits_behind_it_follows() -> None:
    lane = [entry(1), entry(2, state=WAITING), entry(3, state=WAITING), entry(4, state=WAITING)]
    others = [entry(5, "other"), entry(1, partition=1), entry(0, topic_id="old"), entry(9, None)]
    made = plan([lane[2]], [*others, *reversed(lane)])
    assert ids(made) == ["0-1", "0-2", "0-3"]
    assert [target.came_along for target in made.targets] == [True, True, False]
    assert (made.heads, made.followers, made.keys, made.most_runs) == (2, 1, 1, 4)


def test_without_order_nothing_comes_along_or_follows() -> None:
    lane = [entry(1), entry(2, state=WAITING), entry(3, state=WAITING)]
    made = plan([lane[1]], lane, ordered=False)
    assert (ids(made), made.followers) == (["0-2"], 0)


def test_entries_of_another_topic_id_and_without_key_are_in_no_lane() -> None:
    made = plan([entry(5, topic_id="old"), entry(7, None)], [entry(1), entry(2, None), entry(5, topic_id="old")])
    assert ids(made) == ["0-5@old", "0-7"]
    assert (made.followers, made.keys) == (0, 2)


def test_a_discarded_head_releases_what_waits_behind_it() -> None:
    lane = [entry(1), entry(2, state=WAITING), entry(3, state=WAITING)]
    assert plan([lane[0]], lane, Action.DISCARD).followers == 2
    in_the_middle = plan([lane[1]], lane, Action.DISCARD)
    assert (ids(in_the_middle), in_the_middle.followers) == (["0-2"], 0)


def test_nothing_follows_what_is_not_resolved_by_the_plan() -> None:
    lane = [entry(1), entry(2, state=WAITING)]
    unsure = [entry(1, state=UNKNOWN), entry(2, state=WAITING)]
    assert plan(lane[:1], lane, Action.EDIT).followers == 0
    assert plan(lane[:1], lane, Action.EDIT, run=True).followers == 1
    assert plan(unsure[:1], unsure, Action.SETTLE, settle_as="not-applied").followers == 0
    assert plan(unsure[:1], unsure, Action.SETTLE, settle_as="applied").followers == 1


def test_what_the_action_cannot_be_done_with_is_left_out_and_said() -> None:
    lane = [entry(1, state=UNKNOWN), entry(2, state=WAITING)]
    made = plan([*lane, entry(5, "x", State.DISCARDED), entry(6, "y", RETRYING)], lane)
    assert ids(made) == ["0-6"]
    assert [(left.entry_id, left.state) for left in made.left_out] == [
        ("0-1", "unknown"),
        ("0-2", "waiting"),
        ("0-5", "discarded"),
    ]
    assert "waits behind 0-1" in made.left_out[1].reason
    assert "settle" in made.left_out[1].reason
    assert ids(plan(lane, lane, Action.SETTLE, settle_as="applied")) == ["0-1"]
    assert ids(plan(lane, lane, Action.DISCARD)) == ["0-1", "0-2"]


def test_the_same_entries_give_the_same_hash_whoever_selects_them() -> None:
    entries = [entry(n, f"k{n % 3}", partition=n % 2) for n in range(10)]
    made = plan(entries)
    assert plan(list(reversed(entries)), [*entries, entry(50, "z")]).hash == made.hash
    assert plan([*entries, entries[0]]).hash == made.hash
    for other in (
        plan(entries[1:]),
        plan([replace(entries[0], version=1), *entries[1:]]),
        plan(entries, canary=1),
        plan(entries, rate_per_s=5.0),
        plan(entries, handler="h"),
        plan(entries, action=Action.DISCARD),
    ):
        assert other.hash != made.hash


def test_slices_are_of_one_partition_bounded_and_the_canary_comes_first() -> None:
    many = MAX_SLICE_ENTRIES + 1
    entries = [entry(n, f"k{n}") for n in range(many)] + [entry(n, f"k{n}", partition=1) for n in range(3)]
    made = plan(entries, canary=2)
    assert [(part.partition, len(part.targets), part.canary) for part in made.slices] == [
        (0, 2, True),
        (0, many - 2, False),
        (1, 3, False),
    ]
    assert [len(part.targets) for part in plan(entries[:many]).slices] == [MAX_SLICE_ENTRIES, 1]
    assert [t.offset for part in made.slices for t in part.targets] == [*range(many), *range(3)]


def test_bodies_bound_a_slice_too_and_a_single_one_may_be_larger() -> None:
    entries = [entry(n, f"k{n}") for n in range(4)]
    sizes = [MAX_SLICE_BYTES + 1, MAX_SLICE_BYTES // 2, MAX_SLICE_BYTES // 2, 1]
    bodies = {place_of(view): b"x" * size for view, size in zip(entries, sizes, strict=True)}
    made = plan(entries, action=Action.EDIT, bodies=bodies)
    assert [[len(body or b"") for body in part.bodies] for part in made.slices] == [
        [sizes[0]],
        [sizes[1], sizes[2]],
        [1],
    ]


def test_the_estimate_counts_the_fullest_partition_with_its_followers() -> None:
    entries = [entry(1), entry(2, state=WAITING), entry(3, "x"), entry(1, partition=1)]
    assert plan([entries[0], entries[2], entries[3]], entries, rate_per_s=2.0).estimated_s == 1.5
    assert plan(entries).estimated_s is None
    assert plan(entries, action=Action.DISCARD, rate_per_s=2.0).estimated_s is None


def test_groups_tell_what_failed_alike() -> None:
    alike = {"failure_class": "contract", "code": "mapping", "fingerprint": "f1"}
    entries = [entry(1, "a", **alike), entry(2, "b", **alike), entry(3, "c", failure_class="poison", code="parked")]
    assert [(group.failure_class, group.entries) for group in plan(entries).groups] == [("contract", 2), ("poison", 1)]


def test_a_changed_entry_is_told_with_what_it_was_and_is() -> None:
    made = plan([entry(1, "a"), entry(2, "b", RETRYING), entry(3, "c")])
    present = [entry(1, "a"), entry(2, "b", DEAD, version=77, attempts=12), entry(9, "z")]
    assert [tuple(change) for change in changes(made, present)] == [
        ("0-2", "retrying", "dead, 12 attempts"),
        ("0-3", "dead", ""),
    ]
    assert changes(made, [entry(1, "a"), entry(2, "b", RETRYING), entry(3, "c")]) == []


# Files.


def test_a_plan_is_kept_for_its_owner_alone_and_read_back_whole(tmp_path: Path) -> None:
    files = PlanFiles(tmp_path / "plans")
    views = [entry(1, "a"), entry(2, "b", WAITING)]
    made = plan(views, action=Action.EDIT, bodies={place_of(view): b"\x00body" for view in views})
    files.save(made)
    (file,) = (tmp_path / "plans").iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    assert files.load(made.hash) == made
    assert files.load("0" * 32) is None


def test_a_plan_file_that_was_changed_is_refused(tmp_path: Path) -> None:
    files = PlanFiles(tmp_path)
    made = plan([entry(1, "a"), entry(2, "b")])
    files.save(made)
    (file,) = tmp_path.iterdir()
    for old, new in ((b'"0-1"', b'"0-x"'), (b'"rate_per_s":0.0', b'"rate_per_s":1.0'), (b",1001]", b",1000]")):
        text = file.read_bytes()
        assert old in text
        file.write_bytes(text.replace(old, new))
        if new != b'"0-x"':  # the name is what people saw, no more
            with pytest.raises(FormatError):
                files.load(made.hash)
        file.write_bytes(text)
    file.write_bytes(b"")
    with pytest.raises(FormatError):
        files.load(made.hash)
    for name in ("../stack", "abc", "A" * 32):
        with pytest.raises(UsageError):
            files.load(name)


def test_old_plans_are_swept(tmp_path: Path) -> None:
    files = PlanFiles(tmp_path)
    old, new = plan([entry(1)]), plan([entry(2)])
    files.save(old)
    (file,) = tmp_path.iterdir()
    os.utime(file, (file.stat().st_atime, file.stat().st_mtime - KEPT_S - 60))
    files.save(new)
    assert (files.load(old.hash), files.load(new.hash)) == (None, new)


def test_differences_name_fields() -> None:
    was = {"a": 1, "b": {"c": [1, 2], "d": None}, "e": []}
    now = {"a": 1, "b": {"c": [1, 3, 4]}, "e": {}, "f": True}
    assert [tuple(d) for d in differences(was, now)] == [
        ("b.c[1]", 2, 3),
        ("b.c[2]", ABSENT, 4),
        ("b.d", None, ABSENT),
        ("e", [], {}),
        ("f", ABSENT, True),
    ]
    assert differences(was, was) == []
    assert [d.path for d in differences(ABSENT, {"a": {"b": 1}})] == ["a.b"]
    assert [tuple(d) for d in differences(1, True)] == [("", 1, True)]
    assert [tuple(d) for d in differences({"a": {"b": 1}}, {"a": 5})] == [("a", {"b": 1}, 5)]
