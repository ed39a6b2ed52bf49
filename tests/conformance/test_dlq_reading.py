"""Reading dead letters, on both brokers: newest first, no further than needed, no wrong word about the rest."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from broker_world import TIMEOUT_S, World
from delivery_harness import eventually
from dlq_scene import PARTITIONS, DlqScene

from heddle.broker.log import Outgoing, Reader, Record
from heddle.broker.newest import newest_of_partition
from heddle.contracts import contract_of
from heddle.delivery import envelope
from heddle.delivery.envelope import Envelope, State
from heddle.errors import Failure, FailureClass, FormatError, UsageError
from heddle.operations.dead_letters import listing
from heddle.operations.dead_letters.entries import Shelf, named_shelves, read_entries, shelf_of
from heddle.operations.dead_letters.explain import Explanation, explain
from heddle.operations.dead_letters.fields import Mark
from heddle.operations.dead_letters.finding import FoundEntry, NoSuchEntryError, find_entry
from heddle.operations.dead_letters.history import History, history_of
from heddle.operations.dead_letters.listing import Page, Reading
from heddle.operations.dead_letters.masking import MASK
from heddle.operations.dead_letters.payloads import Payloads
from heddle.operations.dead_letters.reveal import note_reveal
from heddle.operations.dead_letters.select import EntryName, Selection, entry_name, selection


@pytest.fixture
def scene(world: World, tmp_path: Path) -> DlqScene:
    return DlqScene(world, tmp_path)


def shelf(scene: DlqScene) -> Shelf:
    return shelf_of(scene.world.admin, scene.subscription)


def page(scene: DlqScene, chosen: Selection | None = None, limit: int | None = 50) -> Page:
    values = Payloads(scene.registry)
    return Reading(scene.world.broker, chosen or Selection(), values.value_of).page([shelf(scene)], limit)


def names(found: Page) -> list[str]:
    return [view.entry_id for view in found.entries]


def write(scene: DlqScene, *records: Outgoing) -> None:
    producer = scene.world.producer()
    producer.begin()
    producer.produce(records)
    producer.commit(TIMEOUT_S)


def dead(scene: DlqScene, *offsets: int, partition: int = 0, key: str = "k", body: bytes = b"{}") -> None:
    scene.park(*[(offset, f"{key}{offset}", State.DEAD, body) for offset in offsets], partition=partition)


def resolve(scene: DlqScene, *offsets: int) -> None:
    """Tombstones, as their owner writes them."""
    with closing(scene.world.broker.reader()) as reader:
        records = [r for f in newest_of_partition(reader, scene.subscription.dead_letter_topic, 0) for r in f.records]
    wanted = [r for r in records if int(dict(r.headers)[envelope.OFFSET] or b"") in offsets]
    write(scene, *[Outgoing(r.topic, r.key, None, (), 0) for r in wanted])


def find(scene: DlqScene, name: str) -> FoundEntry:
    with closing(scene.world.broker.reader()) as reader:
        return find_entry(reader, [shelf(scene)], entry_name(name))


def test_the_newest_version_of_each_key_comes_once_and_newest_first(world: World) -> None:
    topic = world.topic(2)
    for value, *keys in ((b"1", b"a", b"b", b"c"), (b"2", b"b", b"d"), (None, b"d"), (b"3", b"a")):
        write_to(world, topic, [(key, value) for key in keys])
    write_to(world, topic, [(b"a", b"elsewhere")], partition=1)
    world.read(topic)
    with closing(world.broker.reader()) as reader:
        end = reader.last_stable_offset(topic, 0, TIMEOUT_S)
        seen: set[bytes | None] = set()
        found = reader.newest(topic, 0, 0, end, seen, TIMEOUT_S)
        assert [(r.key, r.value) for r in found.records] == [(b"a", b"3"), (b"d", None), (b"b", b"2"), (b"c", b"1")]
        assert (found.start, found.read, seen) == (0, 7, {b"a", b"b", b"c", b"d"})
        assert not reader.newest(topic, 0, 0, end, seen, TIMEOUT_S).records
        assert not reader.newest(topic, 0, end, end, set(), TIMEOUT_S).read
        stretches = list(newest_of_partition(reader, topic, 0, first_stretch=2))
    assert [r.value for stretch in stretches for r in stretch.records] == [b"3", b"2", b"1"]
    assert len(stretches) > 2
    assert (sum(stretch.read for stretch in stretches), stretches[-1].start) == (7, 0)


def test_what_was_deleted_at_the_beginning_ends_the_reading(world: World) -> None:
    topic = world.topic()
    write_to(world, topic, [(b"%d" % number, b"x") for number in range(9)])
    world.read(topic)
    world.delete_before(topic, 0, 6)
    with closing(world.broker.reader()) as reader:
        stretches = list(newest_of_partition(reader, topic, 0, first_stretch=2))
    assert [r.key for stretch in stretches for r in stretch.records] == [b"8", b"7", b"6"]
    assert stretches[-1].start == 0


def test_only_what_is_committed_is_listed(world: World) -> None:
    topic, producer = world.topic(), world.producer()
    write_to(world, topic, [(b"a", b"1")])
    producer.begin()
    producer.produce([Outgoing(topic, b"a", b"aborted")])
    producer.abort(TIMEOUT_S)
    write_to(world, topic, [(b"b", b"1")])
    world.read(topic)
    with closing(world.broker.reader()) as reader:
        found = [r for stretch in newest_of_partition(reader, topic, 0) for r in stretch.records]
    assert [(r.key, r.value) for r in found] == [(b"b", b"1"), (b"a", b"1")]


def test_an_entry_is_read_whole(scene: DlqScene) -> None:
    scene.park((7, "k", State.DEAD, b"body"))
    with closing(scene.world.broker.reader()) as reader:
        (view,) = read_entries(reader, shelf(scene))
        (kept,) = read_entries(reader, shelf(scene), keep_bodies=True)
    assert (view.name, view.key, view.state, view.size_bytes) == (f"{scene.name}/0-7", b"k", State.DEAD, 4)
    assert (view.failure_class, view.code, view.path, view.attempts) == ("contract", "bad", "product", 1)
    assert (view.exception, view.message) == ("builtins.LookupError", "no such product")
    assert view.first_failed is not None
    assert view.since_ms == view.first_failed_ms
    assert view.record is None
    assert kept.record is not None
    assert kept.record.value == b"body"
    assert json.dumps(view.document())


def test_resolved_entries_are_gone_markers_are_no_unresolved_ones_and_other_topics_are_named(scene: DlqScene) -> None:
    dead(scene, 1, 2)
    scene.park((3, "k", State.DISCARDED, b""), (4, "k", State.WAITING, b""))
    scene.park((5, "k", State.DEAD, b""), topic_id="imported")
    resolve(scene, 1)
    assert names(page(scene)) == ["0-5@imported", "0-4", "0-2"]
    assert names(page(scene, selection(states=["discarded"]))) == ["0-3"]
    assert names(page(scene, selection(["0-5@imported", "0-2"]))) == ["0-5@imported", "0-2"]
    (overview,) = page(scene).overviews
    assert (dict(overview.by_state), overview.complete) == ({State.DEAD: 2, State.WAITING: 1}, True)


def test_a_page_holds_the_newest_over_all_partitions_and_says_what_it_did_not_count(
    scene: DlqScene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "COUNTED_RECORDS", 100)
    dead(scene, *range(1000))
    dead(scene, *range(600), partition=1)
    dead(scene, *range(1000, 1010))
    found = page(scene, limit=20)
    assert names(found)[:10] == [f"0-{offset}" for offset in range(1009, 999, -1)]
    assert len(found.entries) == 20
    times = [view.appended_ms for view in found.entries]
    assert times == sorted(times, reverse=True)
    assert not found.complete
    assert 20 <= found.count < 1610
    everything = page(scene, limit=None)
    assert (everything.complete, everything.count, len(everything.entries)) == (True, 1610, 1610)
    assert sorted(names(page(scene, selection(key="k3")))) == ["0-3", "1-3"]
    assert page(scene, selection(key="k3")).complete


def test_a_page_is_filled_from_behind_what_was_written_often(scene: DlqScene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "COUNTED_RECORDS", 100)
    dead(scene, *range(30))
    scene.park(*[(99, "often", State.DEAD, b"")] * 700)
    assert names(page(scene, limit=20)) == ["0-99", *[f"0-{offset}" for offset in range(29, 10, -1)]]


def test_an_expression_reads_payloads_and_headers(scene: DlqScene) -> None:
    bodies = [scene.body("1", "tee", "7.10"), b'{"product": "raw"}', b"\0\0\0\0\1broken", b"\xff"]
    scene.park(*[(number, f"k{number}", State.DEAD, body) for number, body in enumerate(bodies)])
    assert names(page(scene, selection(where="value.product == 'tee' and value.amount == 7.1"))) == ["0-0"]
    assert names(page(scene, selection(where="value.product in ['tee', 'raw']"))) == ["0-1", "0-0"]
    assert names(page(scene, selection(where="value.product == null"))) == ["0-3", "0-2"]
    assert names(page(scene, selection(where="headers['heddle-offset'] == '2'"))) == ["0-2"]


def test_an_entry_of_a_newer_heddle_is_told_and_hides_nothing(scene: DlqScene) -> None:
    dead(scene, 1)
    newer = [(envelope.FORMAT, b"9"), (envelope.STATE, b"dead")]
    write(scene, Outgoing(scene.subscription.dead_letter_topic, b"new", b"", newer, 0))
    (overview,) = page(scene).overviews
    assert (overview.count, overview.unreadable) == (1, 1)
    assert "format version b'9'" in overview.why_unreadable
    with closing(scene.world.broker.reader()) as reader, pytest.raises(FormatError):
        read_entries(reader, shelf(scene))
    assert find(scene, "0-1").view.offset == 1


def test_subscriptions_are_found_by_name_also_when_they_are_declared_no_more(scene: DlqScene) -> None:
    admin = scene.world.admin
    (declared,) = named_shelves(admin, [scene.subscription], [])
    assert (declared.partitions, declared.topic_id) == (PARTITIONS, shelf(scene).topic_id)
    (orphan,) = named_shelves(admin, [], [scene.name])
    assert (orphan.subscription.dead_letter_topic, orphan.topic_id) == (f"{scene.name}.dlq", "")
    with pytest.raises(UsageError, match="no subscription named nothing-like-it"):
        named_shelves(admin, [scene.subscription], ["nothing-like-it"])


def test_an_entry_is_found_with_what_waits_behind_it(scene: DlqScene) -> None:
    scene.park((2, "a", State.DEAD, b""), (1, "b", State.DEAD, b""), (9, "a", State.WAITING, b""))
    scene.park((5, "a", State.WAITING, b""), (6, "a", State.DISCARDED, b""), (4, None, State.DEAD, b""))
    scene.park((3, "a", State.DEAD, b""), topic_id="imported")
    found = find(scene, f"{scene.name}/0-5")
    assert [view.offset for view in found.before] == [2]
    assert [view.offset for view in found.behind] == [9]
    assert [view.offset for view in find(scene, "0-2").behind] == [5, 9]
    assert find(scene, "0-4") == FoundEntry(found.shelf, find(scene, "0-4").view)
    assert find(scene, "0-3").view.entry_id == "0-3@imported"
    with pytest.raises(NoSuchEntryError):
        find(scene, "0-7")
    scene.park((3, "a", State.DEAD, b""), topic_id="imported-too")
    with pytest.raises(UsageError, match="several entries"):
        find(scene, "0-3")
    assert find(scene, "0-3@imported").view.topic_id == "imported"


def test_two_subscriptions_may_have_an_entry_of_one_name(world: World, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir(), (tmp_path / "b").mkdir()
    first, second = DlqScene(world, tmp_path / "a"), DlqScene(world, tmp_path / "b")
    dead(first, 1)
    dead(second, 1, 2)
    shelves = [shelf(first), shelf(second)]
    with closing(world.broker.reader()) as reader:
        assert find_entry(reader, shelves, EntryName("", "0-2")).view.name == f"{second.name}/0-2"
        with pytest.raises(UsageError, match="several entries are called 0-1"):
            find_entry(reader, shelves, EntryName("", "0-1"))


def shown(scene: DlqScene, name: str, *, reveal: bool = False) -> Explanation:
    return explain(find(scene, name), scene.flow, scene.registry, reveal=reveal)


def test_a_body_is_shown_as_its_contract_says_or_as_the_bytes_that_it_is(scene: DlqScene) -> None:
    bodies = [scene.body("1", "tee", "7.10"), b'{"a": 1}', b"\0\0\0\0\1\xff\xff", b"\0\0\0\x09\x09rest", b"plain \xff"]
    scene.park(*[(number, "k", State.DEAD, body) for number, body in enumerate(bodies)])
    framed = shown(scene, "0-0")
    name = contract_of(scene.types.Order).name
    assert framed.body.claims.startswith(f"{name} version 1 (schema ")
    assert framed.body.expects == f"{name} version 1"
    assert {row.path: row.value for row in framed.body.rows} == {"id": "1", "product": "tee", "amount": "7.10"}
    assert not any(row.mark for row in framed.body.rows)
    assert (framed.behind[0], framed.behind[1][:2]) == (4, ("0-1", "0-2"))
    raw = shown(scene, "0-1")
    assert (raw.body.document, raw.body.undecoded) == ({"a": 1}, "no schema id at its beginning")
    cut = shown(scene, "0-2")
    assert cut.body.claims
    assert cut.body.data == bodies[2]
    assert "at id" in cut.body.undecoded
    assert "schema" in shown(scene, "0-3").body.undecoded
    assert shown(scene, "0-4").body.data == b"plain \xff"
    assert (framed.owner, framed.message, framed.masked) == ("testers", "no such product", False)
    assert "LookupError: no product" in framed.stack


def test_an_old_writers_fields_are_marked_against_what_the_handler_expects(scene: DlqScene) -> None:
    contract = contract_of(scene.types.Order)
    old = dict(contract.source, fields=[*contract.source["fields"][:2], {"name": "colour", "type": "string"}])
    schema_id = 77
    scene.registry._schemas[schema_id] = old
    scene.park((1, "k", State.DEAD, b"\0\0\0\0" + bytes([schema_id]) + b"\x021\x06tee\x06red"))
    body = shown(scene, "0-1").body
    assert {row.path: row.mark for row in body.rows} == {
        "id": None, "product": None, "colour": Mark.EXTRA, "amount": Mark.MISSING,
    }  # fmt: skip
    assert "not registered" in body.claims


def test_an_edited_entry_shows_its_original_beside_it(scene: DlqScene) -> None:
    scene.park((1, "k", State.DEAD, scene.body("1", "tee")))
    record = find(scene, "0-1").view.record
    assert record is not None
    made = Envelope(scene.name, scene.subscription.dead_letter_topic, shelf(scene).topic_id, "0")
    write(scene, made.edited(record, scene.body("1", "tea")))
    explained = shown(scene, "0-1")
    assert [(each.path, each.was, each.now) for each in explained.edits] == [("product", "tee", "tea")]
    assert explained.view.edit == 1


def classified(scene: DlqScene, *paths: str) -> None:
    """As if the contract's metadata said so."""
    metadata = contract_of(scene.types.Order).metadata
    object.__setattr__(metadata, "classified", paths)


def test_classified_fields_are_masked_in_body_texts_and_key_until_they_are_revealed(scene: DlqScene) -> None:
    classified(scene, "product", "id")
    failure = Failure(0, FailureClass.UNKNOWN, "x", "", "cannot sell secret-tea", ValueError("secret-tea!"))
    made = Envelope(scene.name, scene.subscription.dead_letter_topic, shelf(scene).topic_id, "0")
    body = scene.body("D-1", "secret-tea")
    record = Record(scene.subscription.topic, 0, 1, b"D-1", body, [("x-note", b"of secret-tea")], 0)
    write(scene, made.failed(record, failure, State.DEAD))
    scene.park((2, "D-1", State.DEAD, b"\xff secret-tea"), (3, "D-1", State.DEAD, b'{"product": "secret-tea"}'))
    for name in ("0-1", "0-2", "0-3"):
        hidden = shown(scene, name)
        assert hidden.masked
        assert hidden.key == MASK
        told = f"{hidden.body} {hidden.message} {hidden.stack} {hidden.headers}"
        assert "secret" not in told
    assert "secret-tea" in str(shown(scene, "0-1", reveal=True).body.rows)
    assert shown(scene, "0-2", reveal=True).body.data == b"\xff secret-tea"
    assert shown(scene, "0-1", reveal=True).key == "D-1"


@contextmanager
def reading(scene: DlqScene) -> Iterator[Reader]:
    with closing(scene.world.broker.reader()) as reader:
        yield reader


def history(scene: DlqScene, found: FoundEntry) -> History:
    with reading(scene) as reader:
        return history_of(scene.world.admin, reader, found.shelf, found.view)


def test_a_reveal_is_written_by_the_owner_into_the_history_of_the_entry(scene: DlqScene) -> None:
    with scene.failed(("k", "coffee")):
        found = find(scene, "0-0")
        job = note_reveal(scene.world.broker, found.shelf, [found.view], "a customer asks", scene.ada)
        scene.world.read(scene.subscription.command_topic)
        told: list[Any] = []

        def is_told() -> bool:
            told[:] = [line for line in history(scene, found).lines if line.job == job]
            return bool(told)

        eventually(is_told, "the reveal in the audit trail")
    (line,) = told
    assert (line.outcome, line.actor, line.reason) == ("revealed", "ada", "a customer asks")
    first = history(scene, found).lines[0]
    assert (first.outcome, first.state) == ("parked", "dead")
    with pytest.raises(UsageError, match="reason"):
        note_reveal(scene.world.broker, found.shelf, [found.view], " ", scene.ada)


def test_without_an_audit_topic_the_history_says_so(scene: DlqScene) -> None:
    dead(scene, 1)
    found = find(scene, "0-1")
    assert history(scene, found) == History()
    scene.world.admin.delete_topics([scene.subscription.audit_topic])
    told = history(scene, found)
    assert not told.lines
    assert "heddle apply" in told.missing


def write_to(world: World, topic: str, records: list[tuple[bytes, bytes | None]], partition: int = 0) -> None:
    producer = world.producer()
    producer.begin()
    producer.produce([Outgoing(topic, key, value, partition=partition) for key, value in records])
    producer.commit(TIMEOUT_S)
