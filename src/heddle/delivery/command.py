"""A command: what an operator asks of a partition's owner, signed (guarantees: "Replay").

A plan freezes what it selected into slices of one partition each; its hash covers all of them. A command carries one
slice, so that the owner checks the whole plan's signature without seeing the other slices. An entry is named with its
version (its offset in the dead-letter topic): a command that is read twice, or that comes too late, finds another
version and does nothing.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from hashlib import blake2b
from typing import Any, NamedTuple

import orjson

from heddle.errors import FormatError

FORMAT_VERSION = 1
MAX_SLICE_ENTRIES = 2_000
MAX_SLICE_BYTES = 512 * 1024
"""Of bodies (edit, import); a single body may be larger."""
MAX_SIGNATURES = 32
MAX_NAME_CHARS = 1_000
MAX_INT = 2**63


class Action(StrEnum):
    REPLAY = "replay"
    """Run these entries now: dead ones, and retrying ones before their time."""
    DISCARD = "discard"
    EDIT = "edit"
    """Give these entries a new body; `run` in the header: and run them at once."""
    SETTLE = "settle"
    """Decide entries whose effect is unknown: `settle_as` in the header, `applied` or `not-applied`."""
    IMPORT = "import"
    """Make entries out of what another system or another cluster parked."""
    REVEAL = "reveal"
    """Nothing is done to these entries: an operator has looked at what their contract classifies."""


class Kind(StrEnum):
    ACT = "act"
    APPROVE = "approve"
    CANCEL = "cancel"


class Target(NamedTuple):
    """An entry as a plan saw it: origin (topic id and offset) and version (offset in the dead-letter topic)."""

    topic_id: str
    offset: int
    version: int


class Foreign(NamedTuple):
    """A record to import. `origin` names where it comes from (topic and cluster, free text without "/"); together
    with `offset` it is the entry's identity, so that importing twice makes one entry. `headers` are the original
    ones; `failure` what is known of why: full `heddle-` header names and their texts."""

    origin: str
    offset: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...]
    timestamp_ms: int
    failure: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class PlanHeader:
    """What holds for every slice. `handler`: the digest that a replay was planned with; another refuses the command.
    `rate_per_s` 0 = as fast as it goes, per partition. `max_failed`: a partition stops its slices once this share of
    at least 20 runs failed again (1 = never). `approvals`: signatures of different operators that it takes."""

    subscription: str
    action: Action
    handler: str = ""
    rate_per_s: float = 0.0
    max_failed: float = 1.0
    approvals: int = 1
    run: bool = False
    settle_as: str = ""
    created_at_ms: int = 0


@dataclass(frozen=True, slots=True)
class Slice:
    """Part of a plan that lies in one partition. `bodies`: for an edit, one new value a target (None = null)."""

    partition: int
    targets: tuple[Target, ...] = ()
    bodies: tuple[bytes | None, ...] = ()
    foreign: tuple[Foreign, ...] = ()
    canary: bool = False

    @property
    def hash(self) -> str:
        return _hash(orjson.dumps(_slice_document(self)))


class Signature(NamedTuple):
    """By whom: the name of an operator's key. `signature`: Ed25519 over `Command.statement`, base64."""

    actor: str
    signature: str


@dataclass(frozen=True, slots=True)
class Command:
    """`kind` act: do `slice`, the `index`th of the plan. approve, cancel: the job as a whole; no slice."""

    kind: Kind
    job: str
    header: PlanHeader
    slice_hashes: tuple[str, ...]
    reason: str
    expires_at_ms: int
    os_user: str
    signatures: tuple[Signature, ...] = ()
    index: int = -1
    slice: Slice | None = None

    @property
    def plan_hash(self) -> str:
        return plan_hash(self.header, self.slice_hashes)

    @property
    def statement(self) -> bytes:
        """What an operator signs: every slice of a plan has the same."""
        kind = Kind.CANCEL if self.kind is Kind.CANCEL else Kind.ACT  # an approval signs the act
        parts = (kind, self.job, self.plan_hash, self.reason, str(self.expires_at_ms))
        return b"heddle-command-1" + b"".join(_prefixed(part.encode()) for part in parts)

    def pack(self) -> bytes:
        document = {
            "v": FORMAT_VERSION,
            "kind": self.kind,
            "job": self.job,
            "header": asdict(self.header),
            "slices": self.slice_hashes,
            "reason": self.reason,
            "expires_at_ms": self.expires_at_ms,
            "os_user": self.os_user,
            "signatures": [list(signature) for signature in self.signatures],
            "index": self.index,
            "slice": None if self.slice is None else _slice_document(self.slice),
        }
        return orjson.dumps(document)

    @staticmethod
    def unpack(data: bytes) -> Command:
        """Raises `FormatError` for another format version, another shape, or a slice that is not the plan's."""
        try:
            command = _command(orjson.loads(data))
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise FormatError("a command cannot be read", hint="a newer Heddle or another program wrote it") from error
        part = command.slice
        if part is not None and command.slice_hashes[command.index : command.index + 1] != (part.hash,):
            raise FormatError("a command's slice is not the one that its plan names")
        return command


def plan_hash(header: PlanHeader, slice_hashes: Sequence[str]) -> str:
    """32 hex characters over everything that the plan would do."""
    return _hash(orjson.dumps([FORMAT_VERSION, asdict(header), *slice_hashes], option=orjson.OPT_SORT_KEYS))


def _hash(data: bytes) -> str:
    return blake2b(data, digest_size=16).hexdigest()


def _prefixed(data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + data


def _slice_document(part: Slice) -> dict[str, Any]:
    return {
        "partition": part.partition,
        "targets": [list(target) for target in part.targets],
        "bodies": [_text(body) for body in part.bodies],
        "foreign": [
            {
                "origin": f.origin,
                "offset": f.offset,
                "key": _text(f.key),
                "value": _text(f.value),
                "headers": [(name, _text(value)) for name, value in f.headers],
                "timestamp_ms": f.timestamp_ms,
                "failure": f.failure,
            }
            for f in part.foreign
        ],
        "canary": part.canary,
    }


def _command(data: dict[str, Any]) -> Command:
    """Anybody may have written it: every field is held to its kind, and to a size that the audit trail takes."""
    if data["v"] != FORMAT_VERSION:
        raise ValueError(data["v"])
    if len(data["signatures"]) > MAX_SIGNATURES:
        raise ValueError(len(data["signatures"]))
    return Command(
        Kind(data["kind"]),
        _name(data["job"]),
        _header(data["header"]),
        tuple(_name(slice_hash) for slice_hash in data["slices"]),
        _string(data["reason"]),
        _int(data["expires_at_ms"]),
        _name(data["os_user"]),
        tuple(Signature(_name(actor), _name(signature)) for actor, signature in data["signatures"]),
        _int(data["index"]),
        None if data["slice"] is None else _slice(data["slice"]),
    )


def _header(data: dict[str, Any]) -> PlanHeader:
    header = PlanHeader(**data | {"action": Action(data["action"])})
    names = (header.subscription, header.handler, header.settle_as)
    amounts = (header.rate_per_s, header.max_failed)
    if not (
        all(_name(name) == name for name in names)
        and all(type(amount) in (int, float) and 0 <= amount < MAX_INT for amount in amounts)
        and type(header.run) is bool
        and _int(header.approvals) >= 1
        and _int(header.created_at_ms) >= 0
    ):
        raise ValueError("header")
    return header


def _slice(data: dict[str, Any]) -> Slice:
    return Slice(
        _int(data["partition"]),
        tuple(Target(_name(topic_id), _int(offset), _int(version)) for topic_id, offset, version in data["targets"]),
        tuple(_data(body) for body in data["bodies"]),
        tuple(_foreign(foreign) for foreign in data["foreign"]),
        bool(data["canary"]),
    )


def _foreign(data: dict[str, Any]) -> Foreign:
    return Foreign(
        _name(data["origin"]),
        _int(data["offset"]),
        _data(data["key"]),
        _data(data["value"]),
        tuple((_string(name), _data(value)) for name, value in data["headers"]),
        _int(data["timestamp_ms"]),
        tuple((_string(name), _string(value)) for name, value in data["failure"]),
    )


def _int(value: Any) -> int:
    if type(value) is not int or not -MAX_INT <= value < MAX_INT:
        raise ValueError("no integer of 64 bits")
    return value


def _string(value: Any) -> str:
    if type(value) is not str:
        raise TypeError("no text")
    return value


def _name(value: Any) -> str:
    if len(_string(value)) > MAX_NAME_CHARS:
        raise ValueError("a name is too long")
    return str(value)


def _text(data: bytes | None) -> str | None:
    return None if data is None else base64.b64encode(data).decode()


def _data(text: str | None) -> bytes | None:
    return None if text is None else base64.b64decode(text, validate=True)
