"""Random values of any schema, and their bytes as a conforming writer writes them; without Hypothesis, so that a fuzzer
can make many."""

from __future__ import annotations

import struct
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from random import Random
from typing import Any
from uuid import UUID

from mapping_generating import MAP_KEYS, WORDS

from heddle.contracts.encode_reference import encode_reference
from heddle.contracts.limits import DEFAULT_LIMITS
from heddle.contracts.schema import Array, Enum, Fixed, Logical, Map, Node, Primitive, Record, Union
from heddle.contracts.shapes import Chosen, ChosenShape
from heddle.contracts.values import EXACT, INT_MAX, INT_MIN, LONG_MAX, LONG_MIN

_CHARACTERS = "aZ0 -~'\"\\\0\n\x7fé߀\u0800\uffff😀𐀀"
_DEEPEST = 4


def value_of(node: Node, dice: Random, depth: int = 0) -> Any:
    """A value as the codecs hold it, but that unions say their branch. Bounds come often. A type that contains itself
    ends where its union has a branch that does not."""
    match node:
        case Primitive():
            return _scalar(node, dice)
        case Fixed():
            return _decimal(node.logical, dice) if node.logical else dice.randbytes(node.size)
        case Enum():
            return dice.choice(node.symbols)
        case Array():
            return [value_of(node.items, dice, depth + 1) for _ in range(_length(dice, depth))]
        case Map():
            keys = dict.fromkeys(dice.choice([*MAP_KEYS, *MAP_KEYS, text(dice)]) for _ in range(_length(dice, depth)))
            return {key: value_of(node.values, dice, depth + 1) for key in keys}
        case Union():
            index = dice.randrange(len(node.branches)) if depth < _DEEPEST else _shallowest(node)
            return Chosen(index, value_of(node.branches[index], dice, depth + 1))
        case Record():
            return {field.name: value_of(field.type, dice, depth + 1) for field in node.fields}


def encoded(node: Node, value: Any) -> bytes:
    """Canonical Avro bytes of what `value_of` gave."""
    return encode_reference(node, ChosenShape(), DEFAULT_LIMITS, value)


def text(dice: Random) -> str:
    if dice.random() < 0.6:
        return dice.choice(WORDS)
    return "".join(dice.choices(_CHARACTERS, k=dice.choice([1, 2, 5, 40])))


def _bytes(dice: Random) -> bytes:
    """Text mostly, for a reader that wants a string."""
    return text(dice).encode() if dice.random() < 0.8 else dice.randbytes(dice.choice([1, 3, 70]))


def integer(dice: Random, low: int, high: int) -> int:
    """Bounds, small numbers, powers of two and ten, and any number of digits alike."""
    match dice.randrange(6):
        case 0:
            return min(max((low, high, low + 1, high - 1, 0)[dice.randrange(5)], low), high)
        case 1:
            return min(max(dice.randint(-70, 70), low), high)
        case 2:
            return min(max(dice.randint(-3, 3) * int(10 ** dice.randrange(18)), low), high)
        case 3:
            power = 1 << dice.randrange(high.bit_length() + 1)
            return min(max(dice.choice([power, power - 1, -power, -power - 1]), low), high)
        case _:
            return dice.randint(low, high)


def _length(dice: Random, depth: int) -> int:
    return dice.choice([0, 1, 2, 3, 70 if depth < 2 else 1]) if depth < _DEEPEST else 0


def _shallowest(node: Union) -> int:
    return next((i for i, branch in enumerate(node.branches) if isinstance(branch, Primitive)), 0)


def _scalar(node: Primitive, dice: Random) -> Any:
    match node.kind:
        case "null":
            return None
        case "boolean":
            return dice.random() < 0.5
        case "int" | "long" if node.logical is not None:
            return _moment(node.logical.name, dice)
        case "int":
            return integer(dice, INT_MIN, INT_MAX)
        case "long":
            return integer(dice, LONG_MIN, LONG_MAX)
        case "float" | "double":
            return _real(dice)
        case "string":
            return UUID(bytes=dice.randbytes(16)) if node.logical else text(dice)
        case _:
            return _decimal(node.logical, dice) if node.logical else _bytes(dice)


def _real(dice: Random) -> float:
    """Any 32 bits, so that it is a float as well as a double; infinities and NaN among them."""
    if dice.random() < 0.5:
        return dice.choice([0.0, -0.0, 0.1, 2.675, -1.5, 1e38, float("inf"), float("nan")])
    number: float = struct.unpack("<f", dice.randbytes(4))[0]
    return number


def _decimal(logical: Logical, dice: Random) -> Decimal:
    highest = 10**logical.precision - 1
    return Decimal(integer(dice, -highest, highest)).scaleb(-logical.scale, EXACT)


def _moment(name: str, dice: Random) -> Any:
    microseconds = timedelta(microseconds=integer(dice, 0, 86_399_999_999))
    day = date.fromordinal(integer(dice, 1, date.max.toordinal()))
    # Most moments of honest records are of our time: zones and truncation then stay within years 1 to 9999.
    day = day if dice.random() < 0.3 else date(1970, 1, 1) + timedelta(days=dice.randint(-30_000, 30_000))
    if name == "date":
        return day
    if name.endswith("-millis"):
        microseconds -= timedelta(microseconds=microseconds.microseconds % 1000)
    moment = datetime.combine(day, time.min) + microseconds
    if name.startswith("time-"):
        return moment.time()
    return moment if name.startswith("local-") else moment.replace(tzinfo=UTC)
