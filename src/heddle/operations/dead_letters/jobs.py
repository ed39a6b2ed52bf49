"""Jobs: plans that were sent. What an operator writes into a subscription's command topic, and reads back from it.

The command topic says what was asked and by whom; the audit topic says what came of it. Nothing is kept elsewhere, so
that any machine can look, and looking breaks nothing.
"""

from __future__ import annotations

import getpass
import time
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from enum import StrEnum

from heddle.broker.log import BEGINNING, Admin, Broker, Outgoing, Reader
from heddle.delivery.command import Action, Command, Kind, PlanHeader, Signature, Slice
from heddle.errors import FormatError, UsageError
from heddle.operations.dead_letters.entries import Shelf
from heddle.operations.dead_letters.plan import ReplayPlan
from heddle.operations.dead_letters.receipt import Receipt, Result, receipt_of
from heddle.operators import OperatorKey

TIMEOUT_S = 30.0
EXPIRY_S = 86_400.0
MAX_REASON_CHARS = 500


class JobState(StrEnum):
    WAITING_FOR_APPROVAL = "waiting for approval"
    WAITING_FOR_A_WORKER = "waiting for a worker"
    RUNNING = "running"
    DONE = "done"
    CANCELLED = "cancelled"
    EXPIRED = "expired"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Job:
    """`commands` are the slices that were sent, by index; a canary that failed leaves the others unsent. `signed_by`:
    who asked first, then who approved. `sent_at_ms` is when the log took the first slice."""

    id: str
    commands: tuple[Command, ...]
    signed_by: tuple[str, ...]
    cancelled_by: tuple[str, ...]
    sent_at_ms: int

    @property
    def header(self) -> PlanHeader:
        return self.commands[0].header

    @property
    def reason(self) -> str:
        return self.commands[0].reason

    @property
    def plan_hash(self) -> str:
        return self.commands[0].plan_hash

    @property
    def expires_at_ms(self) -> int:
        return self.commands[0].expires_at_ms

    @property
    def os_user(self) -> str:
        return self.commands[0].os_user

    @property
    def partitions(self) -> list[int]:
        return sorted({command.slice.partition for command in self.commands if command.slice is not None})

    @property
    def unsent(self) -> int:
        """Slices of the plan that were never sent."""
        return len(self.commands[0].slice_hashes) - len(self.commands)

    @property
    def is_approved(self) -> bool:
        return len(self.signed_by) >= self.header.approvals


def first_command(plan: ReplayPlan, reason: str, expiry_s: float = EXPIRY_S) -> Command:
    """What all slices of a new job have in common. Raises `UsageError` for a reason that says nothing."""
    job = uuid.uuid4().hex[:12]
    expires_at_ms = int((time.time() + expiry_s) * 1000)
    return Command(
        Kind.ACT, job, plan.header, plan.slice_hashes, checked_reason(reason), expires_at_ms, os_user()
    )  # fmt: skip


def checked_reason(reason: str) -> str:
    reason = reason.strip()
    if not any(map(str.isalnum, reason)):
        raise UsageError("a reason is missing", hint="say why, for whoever reads the audit trail: --reason TEXT")
    if len(reason) > MAX_REASON_CHARS or not reason.isprintable():
        raise UsageError(f"the reason is not one line of at most {MAX_REASON_CHARS} characters")
    return reason


def os_user() -> str:
    """The operating-system user, recorded beside the key that signs."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container without an entry for its user id
        return "unknown"


def signed(command: Command, key: OperatorKey) -> Command:
    return replace(command, signatures=(*command.signatures, Signature(key.name, key.sign(command.statement))))


def send_slices(broker: Broker, shelf: Shelf, command: Command, slices: Iterable[tuple[int, Slice]]) -> list[Command]:
    """One record a slice, in its own partition; all become visible together, or none."""
    commands = [replace(command, index=index, slice=part) for index, part in slices]
    records = [(c.slice.partition, c) for c in commands if c.slice is not None]
    _write(broker, shelf, records)
    return commands


def send_to_all(broker: Broker, shelf: Shelf, command: Command) -> None:
    """An approval or a cancellation: every owner has to hear it."""
    _write(broker, shelf, [(partition, command) for partition in range(shelf.partitions)])


def approval(job: Job, key: OperatorKey) -> Command:
    """Raises `UsageError` when there is nothing to approve, or not by this key."""
    if job.is_approved:
        raise UsageError(f"job {job.id} needs no approval", hint=f"`heddle dlq jobs {job.id}` shows how it is")
    if key.name in job.signed_by:
        raise UsageError(
            f"{key.name} has signed job {job.id} already", hint="somebody else has to approve, with their own key"
        )
    return signed(replace(job.commands[0], kind=Kind.APPROVE, index=-1, slice=None, signatures=()), key)


def cancellation(command: Command, key: OperatorKey) -> Command:
    return signed(replace(command, kind=Kind.CANCEL, index=-1, slice=None, signatures=()), key)


def read_jobs(reader: Reader, shelf: Shelf, *, since_ms: int = 0) -> list[Job]:
    """Newest first. What cannot be read is no job: its owner has refused it."""
    found: dict[str, _Collected] = {}
    for partition in range(shelf.partitions):
        for timestamp_ms, command in _commands(reader, shelf, partition, since_ms):
            found.setdefault(command.job, _Collected()).take(command, timestamp_ms)
    jobs = [collected.job() for collected in found.values() if collected.acts]
    return sorted(jobs, key=lambda job: (-job.sent_at_ms, job.id))


def find_job(reader: Reader, shelves: Iterable[Shelf], job_id: str) -> tuple[Shelf, Job]:
    """By the beginning of its id, too. Raises `UsageError` when there is none, or more than one."""
    if not job_id:
        raise UsageError("no job is named", hint="`heddle dlq jobs` lists them")
    found = [(shelf, job) for shelf in shelves for job in read_jobs(reader, shelf) if job.id.startswith(job_id)]
    if len(found) != 1:
        which = "no job" if not found else f"{len(found)} jobs"
        raise UsageError(f"{which} {job_id}", hint="`heddle dlq jobs` lists them; they are kept for 14 days")
    return found[0]


def state_of(job: Job, receipt: Receipt, workers: int, now_ms: int) -> JobState:
    """`workers`: members of the subscription's consumer group."""
    results = set(receipt.counts)
    if receipt.is_complete:
        for only, state in (
            (Result.REFUSED, JobState.REFUSED),
            (Result.EXPIRED, JobState.EXPIRED),
            (Result.CANCELLED, JobState.CANCELLED),
        ):
            if only in results:
                return state
        return JobState.DONE
    if now_ms > job.expires_at_ms:
        return JobState.EXPIRED
    if not workers:
        return JobState.WAITING_FOR_A_WORKER
    return JobState.RUNNING if job.is_approved else JobState.WAITING_FOR_APPROVAL


def workers_of(admin: Admin, shelf: Shelf) -> int:
    group = shelf.subscription.group
    return admin.group_members([group])[group]


def empty_receipt(job: Job, shelf: Shelf) -> Receipt:
    return receipt_of(job.commands, shelf.topic_id)


class _Collected:
    """The commands of one job, as they are found."""

    def __init__(self) -> None:
        self.acts: dict[int, Command] = {}
        self._approved_by: list[str] = []
        self._cancelled_by: list[str] = []
        self._sent_at_ms = 0

    def take(self, command: Command, timestamp_ms: int) -> None:
        actors = [signature.actor for signature in command.signatures]
        match command.kind:
            case Kind.ACT:
                self.acts.setdefault(command.index, command)
                self._sent_at_ms = min(self._sent_at_ms or timestamp_ms, timestamp_ms)
            case Kind.APPROVE:
                self._approved_by += actors
            case Kind.CANCEL:
                self._cancelled_by += actors

    def job(self) -> Job:
        commands = tuple(self.acts[index] for index in sorted(self.acts))
        asked = [signature.actor for signature in commands[0].signatures]
        return Job(
            commands[0].job, commands, tuple(dict.fromkeys([*asked, *self._approved_by])),
            tuple(dict.fromkeys(self._cancelled_by)), self._sent_at_ms,
        )  # fmt: skip


def _commands(reader: Reader, shelf: Shelf, partition: int, since_ms: int) -> Iterator[tuple[int, Command]]:
    topic = shelf.subscription.command_topic
    start = reader.offset_at(topic, partition, since_ms, TIMEOUT_S) if since_ms else BEGINNING
    for record in reader.scan(topic, partition, TIMEOUT_S, start):
        try:
            command = Command.unpack(record.value or b"")
        except FormatError:
            continue
        if command.header.subscription == shelf.subscription.name and command.header.action is not Action.REVEAL:
            yield record.timestamp_ms, command


def _write(broker: Broker, shelf: Shelf, records: Sequence[tuple[int, Command]]) -> None:
    topic = shelf.subscription.command_topic
    with closing(broker.producer(f"heddle-operator.{uuid.uuid4().hex}")) as producer:
        producer.init(TIMEOUT_S)
        producer.begin()
        producer.produce(
            Outgoing(topic, command.job.encode(), command.pack(), partition=partition) for partition, command in records
        )
        producer.commit(TIMEOUT_S)
