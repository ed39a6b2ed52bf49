"""What a target answered, as an event of its own: a remote id that others need, say.

It is written in the transaction of the sink's offsets, under an id that is made of the event's identity: a call that is
sent again after a crash, under the same key, tells the same thing, and it stands in the topic once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import orjson

from heddle.contracts import Contract
from heddle.contracts.encode_reference import encode_reference
from heddle.contracts.limits import DEFAULT_LIMITS
from heddle.contracts.shapes import TypeShape
from heddle.errors import Failure, FailureClass, HeddleError, TransientError
from heddle.integration import Applied
from heddle.sinks.http.answer import MAX_BODY_BYTES, Answer, failed

HEADER_BYTES = 4096
"""Key, headers and frame: what is left of a topic's largest record is the body's."""


class HttpAnswer(NamedTuple):
    """An answer that said that the effect is there. `looked_up`: it is that of `look_up=`, because an earlier try's own
    was lost. Names of headers are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    looked_up: bool

    def json(self) -> Any:
        """None for an empty body. Raises ValueError for what is not JSON."""
        return orjson.loads(self.body) if self.body else None


class UnreadableAnswerError(HeddleError):
    """The effect is there, and of its answer no event can be made.

    Of class `unknown`, whatever was raised: an effect that there is must not be forgotten when the entry runs again."""

    failure_class = FailureClass.UNKNOWN
    code = "unreadable-answer"


class Telling:
    """`make`: the integrator's function, from value and answer to a value of `contract`, several, or None."""

    def __init__(self, sink: str, contract: Contract, make: Callable[[Any, HttpAnswer], Any]) -> None:
        self._sink = sink
        self._contract = contract
        self._make = make

    def told(self, index: int, value: Any, applied: Applied, answer: Answer, *, looked_up: bool) -> Applied | Failure:
        """`applied`, with the values to emit. They are made, and held against their contract, before the next event of
        the key is sent: it must not overtake one that failed."""
        if len(answer.body) >= MAX_BODY_BYTES:
            return self._unreadable(index, f"the answer is longer than {MAX_BODY_BYTES:,} bytes")
        if not answer.is_whole:
            told = f"{self._sink}: the answer broke off behind its status; it is asked for again"
            return failed(index, TransientError(told), "answer-cut")
        try:
            seen = HttpAnswer(answer.status, dict(answer.response.headers), answer.body, looked_up)
            values = self._values(self._make(value, seen))
            for each in values:
                self._check(each)
        except (Exception, SystemExit) as error:
            told = str(error) if isinstance(error, HeddleError) else type(error).__name__
            return self._unreadable(index, f"no event can be made of the answer ({told})", error)
        return applied._replace(tells=values)

    def _values(self, made: Any) -> tuple[Any, ...]:
        wanted = self._contract.type
        if made is None or isinstance(made, wanted):
            return () if made is None else (made,)
        values = tuple(made)
        for each in values:
            if not isinstance(each, wanted):
                raise UnreadableAnswerError(f"from_answer= gives a {type(each).__name__}, not {wanted.__name__}")
        return values

    def _check(self, value: Any) -> None:
        contract = self._contract
        contract.key_of(value)
        shape = TypeShape(contract.type, contract.major)
        size = len(encode_reference(contract.root, shape, DEFAULT_LIMITS, value)) + HEADER_BYTES
        most = contract.metadata.topic.max_message_bytes
        if size > most:
            raise UnreadableAnswerError(f"an event of {size} bytes, and its topic takes {most}")

    def _unreadable(self, index: int, told: str, cause: BaseException | None = None) -> Failure:
        hint = "correct from_answer=, then replay the entry: the target knows the key"
        return failed(index, UnreadableAnswerError(f"{self._sink}: {told}", hint=hint), cause=cause)
