"""Failures, classed by what the engine does next (guarantees: "Failure decides by class").

Every error that a person can meet is a `HeddleError`: what happened, and in `hint` what to do next.

    HeddleError
    ├─ UsageError             a command or declaration that cannot be right; exit code 2
    ├─ ContractError          the data does not fit the contract: dead at once
    │  ├─ EncodeError            a value that the contract refuses
    │  ├─ DecodeError            bytes that the contract refuses
    │  │  ├─ TruncatedError         the record ends early
    │  │  ├─ ForeignBytesError      no Confluent frame, or bytes left over
    │  │  └─ UnknownSchemaIdError   the registry does not know the writer's schema id
    │  └─ MappingError           a mapping rule that the data does not satisfy
    ├─ DependencyDownError    registry, database, target unreachable: pause, never dead letters
    ├─ TransientError         a retry may help
    │  ├─ RetryLater             a handler asks for one, not before a given time
    │  └─ UnknownEffectError     a target may or may not have acted: a person decides
    ├─ RateLimitError         the target asks us to slow down: wait as told, no attempt is burned
    ├─ AuthError              refused credentials: stop and page
    ├─ Park                   a handler gives a record up: dead at once
    ├─ Stop                   a handler ends the subscription until a person decides
    └─ BrokerError            the log itself
       ├─ FencedError            another owner has our transactional id: exit, do not restart
       ├─ StaleGenerationError   the group moved on: abort, re-run what is still ours
       ├─ CommitUnknownError     a commit whose answer is lost: retry it, else let a successor decide
       ├─ TransactionExpiredError a transaction outlived its time-out: start anew
       ├─ OffsetLostError        committed offset is out of the log's range: stop and page
       ├─ FormatError            written by a newer Heddle or by something else: stop and page
       └─ BrokerDownError        no broker answers
"""

from __future__ import annotations

from datetime import timedelta
from enum import StrEnum
from typing import ClassVar, NamedTuple, Self


class FailureClass(StrEnum):
    """What the engine does with a failed record; one row of the class table each."""

    TRANSIENT = "transient"
    RATE_LIMIT = "rate-limit"
    AUTH = "auth"
    DEPENDENCY_DOWN = "dependency-down"
    CONTRACT = "contract"
    POISON = "poison"
    UNKNOWN = "unknown"
    OURS = "ours"


class Failure(NamedTuple):
    """Why one record of a batch did not succeed. `index` counts in the batch that was handed over.

    `code` is a short stable word; `path` a field path or ""; `message` holds no payload content."""

    index: int  # type: ignore[assignment]  # nobody looks for values in a failure by tuple.index
    failure_class: FailureClass
    code: str
    path: str
    message: str
    error: BaseException | None = None


class HeddleError(Exception):
    """What happened, in one sentence without payload content; `hint` says what to do next.

    `exit_code` is a process's when the error ends it (`heddle.cli.main` lists them)."""

    failure_class: ClassVar[FailureClass] = FailureClass.UNKNOWN
    code: ClassVar[str] = "error"
    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class UsageError(HeddleError):
    """A command line, setting or declaration that cannot be right."""

    failure_class = FailureClass.OURS
    code = "usage"
    exit_code = 2


class ContractError(HeddleError):
    """Data that does not fit its contract. `path` is the field path (`lines[2].amount`), never its content."""

    failure_class = FailureClass.CONTRACT
    code = "contract"

    def __init__(self, message: str, *, path: str = "", hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.path = path


class EncodeError(ContractError):
    code = "encode"


class DecodeError(ContractError):
    """Bytes that are no value of what their writer's schema says. `offset`: the byte of the record, its frame
    included, at which reading stopped; `writer`: the schema's id. Both -1 where they are not known."""

    code = "decode"
    offset = -1
    writer = -1

    def located(self, offset: int, writer: int) -> Self:
        """The same error, which says where."""
        self.offset, self.writer = offset, writer
        self.args = (f"{self} (byte {offset}, schema {writer})",)
        return self


class TruncatedError(DecodeError):
    code = "truncated"


class ForeignBytesError(DecodeError):
    code = "foreign-bytes"


class UnknownSchemaIdError(DecodeError):
    code = "unknown-schema-id"


class MappingError(ContractError):
    code = "mapping"


class DependencyDownError(HeddleError):
    """A system that a subscription needs does not answer. Nothing becomes dead from it."""

    failure_class = FailureClass.DEPENDENCY_DOWN
    code = "dependency-down"
    exit_code = 5


class TransientError(HeddleError):
    failure_class = FailureClass.TRANSIENT
    code = "transient"


class RetryLater(TransientError):
    """Raised by a handler: try this record again, `after` at the earliest. Counts as an attempt."""

    code = "retry-later"

    def __init__(self, reason: str = "the handler asks for a later try", *, after: timedelta) -> None:
        super().__init__(reason)
        self.after = after


class UnknownEffectError(TransientError):
    """A call whose answer is lost: the target may have acted. Never tried again by itself unless the target tells."""

    code = "unknown-effect"


class RateLimitError(HeddleError):
    """`after`: how long the target asks us to wait, None when it does not say."""

    failure_class = FailureClass.RATE_LIMIT
    code = "rate-limit"

    def __init__(self, message: str, *, after: timedelta | None = None, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.after = after


class Park(HeddleError):
    """Raised by a handler: no retry will help this record. Dead at once; never feeds the breaker."""

    failure_class = FailureClass.POISON
    code = "parked"


class Stop(HeddleError):
    """Raised by a handler: go no further with this subscription until a person has decided."""

    failure_class = FailureClass.OURS
    code = "stop"
    exit_code = 6


class AuthError(HeddleError):
    failure_class = FailureClass.AUTH
    code = "auth"
    exit_code = 6


class BrokerError(HeddleError):
    failure_class = FailureClass.OURS
    code = "broker"


class FencedError(BrokerError):
    code = "fenced"
    exit_code = 4


class StaleGenerationError(BrokerError):
    code = "stale-generation"


class CommitUnknownError(BrokerError):
    code = "commit-unknown"


class TransactionExpiredError(BrokerError):
    code = "transaction-expired"


class FormatError(BrokerError):
    code = "format"
    exit_code = 6


class OffsetLostError(BrokerError):
    code = "offset-lost"
    exit_code = 6


class PositionLostError(HeddleError):
    """A source cannot go on where it was: what comes next is gone upstream, or upstream is another one. To go on all
    the same would be a silent gap."""

    failure_class = FailureClass.OURS
    code = "position-lost"
    exit_code = 6


class BrokerDownError(BrokerError):
    code = "broker-down"
    exit_code = 5
