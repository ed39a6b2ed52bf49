"""One subscription, opened for acting on its dead letters: its clients, its entries, and plans made of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from heddle.broker.log import Admin, Broker, Reader, Record
from heddle.contracts import Registry
from heddle.delivery.approvals import approvals_needed
from heddle.delivery.command import Action, PlanHeader
from heddle.delivery.envelope import original_of
from heddle.delivery.subscription import subscription_of
from heddle.errors import ContractError, FailureClass, HeddleError, UsageError
from heddle.integration import Component
from heddle.operations.dead_letters.edit import Body, open_body
from heddle.operations.dead_letters.entries import EntryView, Shelf, each_entry, shelf_of
from heddle.operations.dead_letters.patching import Change
from heddle.operations.dead_letters.payloads import Payloads
from heddle.operations.dead_letters.plan import (
    Changed,
    LeftOut,
    Place,
    Planned,
    ReplayPlan,
    changes,
    handler_digest,
    make_plan,
    runs,
)
from heddle.operations.dead_letters.plan_files import PlanFiles
from heddle.operations.dead_letters.read_only import ReadOnlyRegistry
from heddle.operations.dead_letters.select import Selection
from heddle.project import Project
from heddle.settings import Settings

TIMEOUT_S = 30.0
_BODIES_AT_ONCE = 500


ChangeOf = Callable[[Body], Change]


class DeadLettersChangedError(HeddleError):
    """A plan's entries are not what they were. `changed` says which, and what they are now."""

    failure_class = FailureClass.OURS
    code = "plan-changed"

    def __init__(self, message: str, changed: Sequence[Changed] = (), *, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.changed = tuple(changed)


@dataclass(frozen=True, slots=True)
class Edited:
    """One body before and after, for people."""

    entry_id: str
    was: Any
    now: Any


@dataclass(slots=True)
class Edits:
    """New bodies by place. `left_out`: entries that the change leaves as they are, or that do not pass with it."""

    bodies: dict[Place, bytes | None] = field(default_factory=dict)
    documents: list[Edited] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)
    refused: int = 0


@dataclass(frozen=True, slots=True)
class Session:
    """`admin` and `reader` are open; the registry is only read."""

    project: Project
    settings: Settings
    component: Component
    shelf: Shelf
    broker: Broker
    registry: Registry
    admin: Admin
    reader: Reader
    files: PlanFiles

    def header(self, action: Action, **more: Any) -> PlanHeader:
        """With the handler's digest where entries are run, and the approvals that the project asks for."""
        header = PlanHeader(
            self.shelf.subscription.name, action, approvals=approvals_needed(self.project.config).get(action, 1), **more
        )
        return replace(header, handler=handler_digest(self.component, self.project)) if runs(header) else header

    def select(self, selection: Selection) -> tuple[list[EntryView], list[EntryView]]:
        """Those that are meant, and every entry of the subscription. Neither keeps bodies."""
        value_of = Payloads(self.registry).value_of
        chosen, every = [], []
        numbers = range(self.shelf.partitions)
        for view in each_entry(self.reader, self.shelf, numbers, keep_bodies=selection.needs_records):
            bare = replace(view, record=None)
            every.append(bare)
            if selection.matches(view, value_of):
                chosen.append(bare)
        return chosen, every

    def plan(
        self, header: PlanHeader, selection: Selection, canary: int = 0, change_of: ChangeOf | None = None,
        newest: bool = False,
    ) -> tuple[ReplayPlan, Edits | None]:  # fmt: skip
        """With `change_of` each target gets a new body, or is left out. Raises `UsageError` where nothing is meant."""
        chosen, every = self.select(selection)
        if not chosen:
            raise UsageError(
                f"no entry of {self.shelf.subscription.name} is selected{_other_states(selection, every)}",
                hint=f"`heddle dlq list {self.shelf.subscription.name}` shows them",
            )
        ordered = self.shelf.subscription.order == "park"
        plan = make_plan(header, chosen, every, topic_id=self.shelf.topic_id, ordered=ordered, canary=canary)
        if change_of is None:
            return plan, None
        edits = self.edit(plan.targets, change_of, newest)
        kept = [view for view in chosen if Place(view.topic_id, view.partition, view.offset) in edits.bodies]
        edited = make_plan(
            header, kept, every, topic_id=self.shelf.topic_id, ordered=ordered, canary=canary, bodies=edits.bodies
        )
        return replace(edited, left_out=(*plan.left_out, *edits.left_out)), edits

    def edit(self, targets: Sequence[Planned], change_of: ChangeOf, newest: bool = False) -> Edits:
        """Raises `ContractError` when the only target does not pass; of several, the others go on."""
        edits = Edits()
        for target, record in self.originals(targets):
            try:
                self._edit_one(edits, target, record, change_of, newest)
            except ContractError as error:
                if len(targets) == 1:
                    raise
                where = f"{error.path}: " if error.path else ""
                edits.left_out.append(LeftOut(target.entry_id, target.state, f"refused, {where}{error}"))
                edits.refused += 1
        return edits

    def originals(self, targets: Sequence[Planned]) -> Iterator[tuple[Planned, Record]]:
        """The targets' records as their subscription read them; those that are resolved by now are passed over."""
        by_partition: dict[int, list[Planned]] = {}
        for target in targets:
            by_partition.setdefault(target.place.partition, []).append(target)
        topic = self.shelf.subscription.dead_letter_topic
        for partition, listed in by_partition.items():
            for start in range(0, len(listed), _BODIES_AT_ONCE):
                part = listed[start : start + _BODIES_AT_ONCE]
                found = self.reader.fetch(topic, partition, sorted(t.version for t in part), TIMEOUT_S)
                for target in part:
                    record = found.get(target.version)
                    if record is not None and record.value is not None:
                        yield target, original_of(record)

    def check_unchanged(self, plan: ReplayPlan) -> None:
        """Raises `DeadLettersChangedError` with what is different now."""
        digest = handler_digest(self.component, self.project)
        if plan.header.handler not in ("", digest):
            raise DeadLettersChangedError(
                f"the handler of {plan.header.subscription} has changed since the plan was made",
                hint="look at the plan again with the present code: leave --apply out",
            )
        partitions = sorted({target.place.partition for target in plan.targets})
        changed = changes(plan, each_entry(self.reader, self.shelf, partitions))
        if changed:
            raise DeadLettersChangedError(
                f"{len(changed)} of {len(plan.targets)} entries have changed since the plan was made",
                changed,
                hint="plan again: leave --apply out",
            )

    def _edit_one(self, edits: Edits, target: Planned, record: Record, change_of: ChangeOf, newest: bool) -> None:
        body = open_body(record, self.component, self.registry, newest=newest)
        document = change_of(body)(body.document)
        if document == body.document and not newest:
            edits.left_out.append(LeftOut(target.entry_id, target.state, "the change leaves it as it is"))
            return
        data = body.encode(document)
        if data == record.value:
            edits.left_out.append(LeftOut(target.entry_id, target.state, "the change leaves it as it is"))
            return
        edits.bodies[target.place] = data
        edits.documents.append(Edited(target.entry_id, body.document, document))


@contextmanager
def open_session(
    project: Project, settings: Settings, subscription: str, broker: Broker, registry: Registry
) -> Iterator[Session]:
    """Raises `UsageError` for a component or a dead-letter topic that is not there."""
    component = project.component(subscription)
    with ExitStack() as stack:
        admin, reader = broker.admin(), broker.reader()
        stack.callback(admin.close)
        stack.callback(reader.close)
        shelf = shelf_of(admin, subscription_of(component))
        files = PlanFiles(project.state_dir / "plans")
        yield Session(project, settings, component, shelf, broker, ReadOnlyRegistry(registry), admin, reader, files)


def _other_states(selection: Selection, every: Iterable[EntryView]) -> str:
    """Which of the entries that were named are there, in a state that the command is not for."""
    named = {entry.entry_id for entry in selection.entries}
    found = [view for view in every if view.entry_id in named and view.state not in (selection.states or {view.state})]
    told = ", ".join(f"{view.entry_id} is {view.state}" for view in found[:3])
    return f": {told}, not {' or '.join(sorted(selection.states))}" if told else ""


def only_subscription(selection: Selection, declared: Iterable[str]) -> str:
    """The one that a selection is about: a plan has one owner a partition. Raises `UsageError`."""
    named = {*selection.subscriptions, *(entry.subscription for entry in selection.entries)} - {""}
    candidates = named or set(declared)
    if len(candidates) != 1:
        which = ", ".join(sorted(candidates)) or "none is declared"
        raise UsageError(
            "name one subscription, or entries of one", hint=f"for example: heddle dlq replay ledger; here: {which}"
        )
    return candidates.pop()
