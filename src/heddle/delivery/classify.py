"""An exception to a `Failure`: class, code, path, and a fingerprint that groups the same mistake."""

from __future__ import annotations

import re
import traceback
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import CodeType, MappingProxyType

from heddle.delivery.known_errors import known
from heddle.errors import (
    AuthError,
    ContractError,
    DependencyDownError,
    Failure,
    FailureClass,
    HeddleError,
    RateLimitError,
    RetryLater,
    UnknownEffectError,
)
from heddle.event import stable_id
from heddle.secrets import redact

MAX_MESSAGE_CHARS = 1_000
_INDEX = re.compile(r"\[\d+\]")
_PACKAGE = str(Path(__file__).resolve().parent.parent)
_ENGINE = (_PACKAGE, "<heddle ")  # and what it has generated
_NONE: Mapping[type[BaseException], FailureClass] = MappingProxyType({})

# Of several exceptions at once, the first of these decides.
_GRAVITY = (
    FailureClass.OURS,
    FailureClass.AUTH,
    FailureClass.DEPENDENCY_DOWN,
    FailureClass.RATE_LIMIT,
    FailureClass.CONTRACT,
    FailureClass.POISON,
    FailureClass.UNKNOWN,
    FailureClass.TRANSIENT,
)


class Classifier:
    """One subscription's. An exception's class is said by the integrator's `classes` (the first that fits, subclasses
    included), else by itself (a `HeddleError`), else by what is known of its library; all else is `unknown`."""

    def __init__(self, classes: Mapping[type[BaseException], FailureClass] = _NONE) -> None:
        self._classes = tuple(classes.items())

    def failure_of(self, index: int, error: BaseException) -> Failure:
        """Of a group (what an `asyncio.TaskGroup` raises), the gravest of its exceptions."""
        given = self._given(error)
        if given is None and isinstance(error, BaseExceptionGroup):
            return min((self.failure_of(index, each) for each in error.exceptions), key=_gravity)
        failure = failure_of(index, error)
        return failure if given is None else failure._replace(failure_class=given)

    def reviewed(self, failure: Failure) -> Failure:
        """A failure that a mapping or a sink reported: what it left `unknown`, or the integrator calls otherwise, is
        classed by its exception."""
        if failure.error is None:
            return failure
        given = self._given(failure.error)
        if given is None and failure.failure_class is FailureClass.UNKNOWN:
            given = self.failure_of(failure.index, failure.error).failure_class
        return failure if given is None else failure._replace(failure_class=given)

    def _given(self, error: BaseException) -> FailureClass | None:
        return next((given for kind, given in self._classes if isinstance(error, kind)), None)


def failure_of(index: int, error: BaseException) -> Failure:
    """As a `Classifier` without classes of an integrator's own, of one exception."""
    message = message_of(error)
    if isinstance(error, HeddleError):
        path = error.path if isinstance(error, ContractError) else ""
        return Failure(index, error.failure_class, error.code, path, message, error)
    told = known(error)
    if told is not None:
        return Failure(index, told.failure_class, told.code, told.path, message, error)
    kind = type(error).__name__
    return Failure(index, FailureClass.UNKNOWN, kind, "", f"{kind}: {message}", error)


def _gravity(failure: Failure) -> tuple[bool, int]:
    """An effect that nobody knows of outweighs all: no next try may forget it."""
    return not is_unknown_effect(failure), _GRAVITY.index(failure.failure_class)


def is_unknown_effect(failure: Failure) -> bool:
    """Whether a person has to find out what the target did: a handler or a sink says so."""
    if failure.failure_class is not FailureClass.TRANSIENT:
        return False
    return failure.code == UnknownEffectError.code or isinstance(failure.error, UnknownEffectError)


def effect_unknown(failure: Failure) -> bool:
    """Whether the target may have acted: for a sink that has no way to look it up, `UnknownEffectError` is due."""
    told = known(failure.error) if failure.error is not None else None
    return is_unknown_effect(failure) or (told is not None and told.effect_unknown)


def retry_after_s(failure: Failure) -> float | None:
    """How long the target, or the handler, asks us to wait; None when neither says."""
    for error in _causes(failure.error):
        if isinstance(error, RetryLater | RateLimitError):
            if error.after is not None:
                return max(0.0, error.after.total_seconds())
        elif (told := known(error)) is not None and told.retry_after_s is not None:
            return told.retry_after_s
    return None


def target_of(failure: Failure) -> str:
    """The host that the failure was about; "" when it does not say."""
    told = (known(error) for error in _causes(failure.error))
    return next((each.target for each in told if each is not None and each.target), "")


def interruption(failure: Failure) -> HeddleError | None:
    """What to cut the batch with, where a failure says nothing about its record: a dependency down, refused
    credentials."""
    wanted: type[HeddleError]
    if failure.failure_class is FailureClass.DEPENDENCY_DOWN:
        wanted, hint = DependencyDownError, "it is tried again by itself"
    elif failure.failure_class is FailureClass.AUTH:
        wanted, hint = AuthError, "renew the credentials, then start the worker again"
    else:
        return None
    if isinstance(failure.error, wanted):
        return failure.error
    raised = wanted(failure.message, hint=hint)
    raised.__cause__ = failure.error
    return raised


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """The exception and what it was raised `from`."""
    for _ in range(10):
        if error is None:
            return
        yield error
        error = error.__cause__


def message_of(error: BaseException) -> str:
    """What the exception says, without secrets, cut; of known libraries without what their texts repeat of the data.
    An exception that cannot even say it is told by its type."""
    told = known(error)
    if told is not None and told.text:
        return redact(told.text)[:MAX_MESSAGE_CHARS]
    try:
        text = str(error)
    except Exception:
        text = f"a {type(error).__name__} that cannot be shown"
    return redact(text)[:MAX_MESSAGE_CHARS]


def fingerprint(failure: Failure) -> str:
    """Twelve characters, equal for failures with one cause: class, code, field path without list indexes, exception
    type, and the innermost line of the application's own code."""
    return stable_id(
        failure.failure_class,
        failure.code,
        _INDEX.sub("[]", failure.path),
        type(failure.error).__name__ if failure.error else "",
        _application_frame(failure.error),
    )[:12]


def _application_frame(error: BaseException | None) -> str:
    """`file:function` of the innermost frame outside the engine, without line number: an edit elsewhere in the file
    must not split a group."""
    ours = [code for code in _codes(error) if not code.co_filename.startswith(_PACKAGE)]
    return f"{Path(ours[-1].co_filename).name}:{ours[-1].co_name}" if ours else ""


def is_of_data(failure: Failure) -> bool:
    """Whether the engine itself found the data at fault. Path and message say where; its own stack would say nothing,
    and costs more than everything else that is told of a failure."""
    return isinstance(failure.error, ContractError) and all(
        code.co_filename.startswith(_ENGINE) for code in _codes(failure.error)
    )


def _codes(error: BaseException | None) -> list[CodeType]:
    """Of the frames that it came through, the innermost last."""
    return [] if error is None else [frame.f_code for frame, _ in traceback.walk_tb(error.__traceback__)]
