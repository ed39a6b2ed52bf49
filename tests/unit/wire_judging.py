"""Every way in which two readers of the same bytes may not agree, named; whatever has no name here is a fault."""

from __future__ import annotations

import io
from typing import Any, Final

import fastavro
from wire_oracle import Answer, Crossing
from wire_spelling import BLOCKS, DECIMAL, LETTERS, NAN, TWICE, VARINT, canonical, spellings_in

from heddle.contracts.codec import FRAME_BYTES
from heddle.contracts.encode_reference import varint
from heddle.contracts.values import LONG_MIN
from heddle.errors import HeddleError
from heddle.wire.engine import Output

SAME: Final = "same output"
LEFT_OUT: Final = "left out by both"
REFUSED: Final = "refused by both"
DONE_AGAIN: Final = "left to the object path, for "
COPIED: Final = "copied with "

LEFT: Final = frozenset({VARINT, LETTERS, TWICE})
"""What an engine may refuse though it can be read: nobody writes it but by mistake."""

COPIES: Final = frozenset({BLOCKS, DECIMAL, NAN})
"""What an engine may copy as it was spelt. It costs more to look for these than they do harm: any reader reads the
same, and nothing compares bodies but after reading."""


FASTAVRO_LAXER: Final = {
    "trailing-bytes": "it does not look whether anything comes after the value",
    "bad-value": "it takes any byte but 0 for true, a decimal of no bytes for 0, a block of negative size",
    "out-of-range": "it gives ints of more than 32 bits, decimals of more digits than their precision",
    "bad-varint": "it reads numbers of any length",
    "bad-index": "it counts negative indexes of unions and enums from the end",
}
"""What Heddle refuses and fastavro reads, by Heddle's code."""


class Disagreement(AssertionError):
    """What none of the names covers."""


def judged(crossing: Crossing, value: bytes, expected: Answer, output: Output | None, refused: bool) -> str:
    """The name of what an engine did with a record, next to the reference's answer. Raises `Disagreement`."""
    if refused:
        return REFUSED if expected.refusal else DONE_AGAIN + _oddities(crossing, value)
    if expected.refusal is not None:
        raise Disagreement(f"took what the reference refuses: {expected.refusal}")
    if output is None or expected.output is None:
        if output == expected.output:
            return LEFT_OUT
        raise Disagreement("does not agree on what `when` leaves out")
    if output[0] != expected.output[0]:
        raise Disagreement(f"key {output[0]!r}, not {expected.output[0]!r}")
    if output == expected.output:
        return SAME
    return COPIED + _copied(crossing, value, expected.output[1], output[1])


def _oddities(crossing: Crossing, value: bytes) -> str:
    """Why a good record is refused: nothing but how it is spelt, or that its frame has become that of another schema in
    the registry, for which this engine has no plan."""
    if value[:FRAME_BYTES] not in crossing.nodes:
        return "a writer without a plan here"
    found = LEFT & spellings_in(crossing.nodes[value[:FRAME_BYTES]], value[FRAME_BYTES:])
    if not found:
        raise Disagreement("refused what the reference takes, and what is spelt as it should be")
    return ", ".join(sorted(found))


def _copied(crossing: Crossing, value: bytes, expected: bytes, output: bytes) -> str:
    """Why other bytes are the same value: they are of the record, and odd there already."""
    frame, root = output[:FRAME_BYTES], crossing.target.root
    if frame + canonical(root, output[FRAME_BYTES:]) != expected:
        raise Disagreement("another value")
    found = spellings_in(root, output[FRAME_BYTES:])
    read = spellings_in(crossing.nodes[value[:FRAME_BYTES]], value[FRAME_BYTES:])
    if not found or not found <= COPIES & read:
        raise Disagreement(f"writes {', '.join(sorted(found))}, reads {', '.join(sorted(read))}")
    return ", ".join(sorted(found))


def judged_by_fastavro(crossing: Crossing, value: bytes) -> str:
    """The name of what fastavro and our reference decoder make of one record. Raises `Disagreement`."""
    ours: Any = None
    code = ""
    try:
        ours = crossing.decoded(value)
    except HeddleError as error:
        code = error.code
    schema = crossing.registry.schema(int.from_bytes(value[1:FRAME_BYTES], "big"))
    try:
        theirs = fastavro.schemaless_reader(
            io.BytesIO(value[FRAME_BYTES:]), fastavro.parse_schema(schema), crossing.source.schema
        )
    except Exception as error:
        if code:
            return "refused by both"
        raise Disagreement(f"fastavro refuses: {error!r}") from error
    if code in FASTAVRO_LAXER:
        return f"fastavro reads {code}"
    if code == "truncated" and varint(LONG_MIN) in value:
        return "fastavro takes a block of -2^63 items for one of none"
    if code:
        raise Disagreement(f"fastavro reads what is refused with {code}")
    if _plain(ours) != _plain(theirs):
        raise Disagreement(f"fastavro reads {theirs!r}, not {ours!r}")
    return "read alike"


def _plain(value: Any) -> str:
    """One text for equal values: fields in any order, NaN equal to itself."""
    match value:
        case dict():
            return repr(sorted((key, _plain(item)) for key, item in value.items()))
        case list():
            return repr([_plain(item) for item in value])
        case _:
            return repr(value)
