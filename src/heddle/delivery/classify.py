"""An exception to a `Failure`: class, code, path, and a fingerprint that groups the same mistake."""

from __future__ import annotations

import re
import traceback
from pathlib import Path

from heddle.errors import ContractError, Failure, FailureClass, HeddleError
from heddle.event import stable_id
from heddle.secrets import redact

MAX_MESSAGE_CHARS = 1_000
_INDEX = re.compile(r"\[\d+\]")
_PACKAGE = str(Path(__file__).resolve().parent.parent)


def failure_of(index: int, error: BaseException) -> Failure:
    """Handlers raise anything: a `HeddleError` says its class, all else is `unknown` until it is mapped."""
    if isinstance(error, HeddleError):
        path = error.path if isinstance(error, ContractError) else ""
        return Failure(index, error.failure_class, error.code, path, message_of(error), error)
    kind = type(error).__name__
    return Failure(index, FailureClass.UNKNOWN, kind, "", f"{kind}: {message_of(error)}", error)


def message_of(error: BaseException) -> str:
    """What the exception says, without secrets, cut; an exception that cannot even say it is told by its type."""
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
    if error is None or error.__traceback__ is None:
        return ""
    codes = [frame.f_code for frame, _ in traceback.walk_tb(error.__traceback__)]
    ours = [code for code in codes if not code.co_filename.startswith(_PACKAGE)]
    return f"{Path(ours[-1].co_filename).name}:{ours[-1].co_name}" if ours else ""
