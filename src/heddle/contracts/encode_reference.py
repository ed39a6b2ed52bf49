"""The encoder that explains: the counterpart of `decode_reference` for values that a contract refuses."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, NoReturn
from uuid import UUID

from heddle.contracts.branches import branch_picker, unwrap
from heddle.contracts.limits import Limits
from heddle.contracts.refusals import (
    DecimalPrecisionError,
    DecimalScaleError,
    InvalidTextError,
    MissingFieldError,
    NaiveDatetimeError,
    OutOfRangeError,
    TooDeepError,
    UnknownFieldError,
    UnknownSymbolError,
    WrongLengthError,
    WrongTypeError,
)
from heddle.contracts.schema import MISSING, Array, Enum, Fixed, Logical, Map, Node, Primitive, Record, Union
from heddle.contracts.shapes import Chosen, Shape, shaped_default
from heddle.contracts.values import EPOCH, EPOCH_ORDINAL, EXACT, INT_MAX, INT_MIN, LOCAL_EPOCH, LONG_MAX, LONG_MIN


def encode_reference(node: Node, shape: Shape, limits: Limits, value: Any) -> bytes:
    """Avro binary. Raises an `EncodeError` of `refusals` with the field path and the value's type."""
    writer = _Writer(shape, limits)
    writer.write(node, value, "", 0)
    return bytes(writer.out)


@dataclass(slots=True)
class _Writer:
    shape: Shape
    limits: Limits
    out: bytearray = field(default_factory=bytearray)

    def write(self, node: Node, value: Any, path: str, depth: int) -> None:
        match node:
            case Primitive():
                self._primitive(node, value, path)
            case Fixed():
                self._fixed(node, value, path)
            case Enum():
                self._enum(node, value, path)
            case Array():
                self._array(node, value, path, depth)
            case Map():
                self._map(node, value, path, depth)
            case Union() if isinstance(value, Chosen):
                self.out += varint(value.index)
                self.write(node.branches[value.index], value.value, path, depth)
            case Union():
                index = branch_picker(node, self.shape)(value)
                if index < 0:
                    self._branchless(node, value, path)
                self.out += varint(index)
                self.write(node.branches[index], unwrap(node.branches[index], value), path, depth)
            case Record():
                self._record(node, value, path, depth)

    def _record(self, node: Record, value: Any, path: str, depth: int) -> None:
        if depth > self.limits.max_written_depth:
            raise TooDeepError(f"records nested deeper than {self.limits.max_written_depth} levels", path=path[:120])
        if not self.shape.accepts(node, value):
            _wrong(node, value, path)
        for item in node.fields:
            inner = f"{path}.{item.name}" if path else item.name
            part = self.shape.field(value, item.name)
            if part is MISSING:
                if item.default is MISSING:
                    raise MissingFieldError(f"field {inner} is missing", path=inner)
                part = shaped_default(self.shape, item.type, item.default)
            self.write(item.type, part, inner, depth + 1)
        if isinstance(value, Mapping) and not value.keys() <= {f.name for f in node.fields}:
            extra = len(value.keys() - {f.name for f in node.fields})
            known = ", ".join(f.name for f in node.fields)
            raise UnknownFieldError(f"{extra} keys are no fields of {node}", path=path, hint=f"its fields: {known}")

    def _array(self, node: Array, value: Any, path: str, depth: int) -> None:
        if not isinstance(value, list | tuple):
            _wrong(node, value, path)
        if value:
            self.out += varint(len(value))
            for index, item in enumerate(value):
                self.write(node.items, item, f"{path}[{index}]", depth)
        self.out.append(0)

    def _map(self, node: Map, value: Any, path: str, depth: int) -> None:
        if not isinstance(value, Mapping):
            _wrong(node, value, path)
        if value:
            self.out += varint(len(value))
            for key, item in value.items():
                self._bytes(_text(Primitive("string"), key, f"{path}{{}}"))
                self.write(node.values, item, f"{path}{{}}", depth)
        self.out.append(0)

    def _enum(self, node: Enum, value: Any, path: str) -> None:
        if not isinstance(value, str):
            _wrong(node, value, path)
        if value not in node.symbols:
            raise UnknownSymbolError(
                f"{_at(path)} is no symbol of {node}", path=path, hint=f"its symbols: {', '.join(node.symbols)}"
            )
        self.out += varint(node.symbols.index(value))

    def _fixed(self, node: Fixed, value: Any, path: str) -> None:
        if node.logical is not None:
            self.out += unscaled(node.logical, value, path).to_bytes(node.size, "big", signed=True)
            return
        if not isinstance(value, bytes):
            _wrong(node, value, path)
        if len(value) != node.size:
            raise WrongLengthError(f"{_at(path)} has {len(value)} bytes, {node} has {node.size}", path=path)
        self.out += value

    def _primitive(self, node: Primitive, value: Any, path: str) -> None:
        match node.kind:
            case "null":
                if value is not None:
                    _wrong(node, value, path)
            case "boolean":
                if not isinstance(value, bool):
                    _wrong(node, value, path)
                self.out.append(value)
            case "int" | "long":
                self.out += varint(_integer(node, value, path))
            case "float" | "double":
                self.out += _float(node, value, path)
            case "string":
                self._bytes(_text(node, value, path))
            case _:
                self._bytes(_data(node, value, path))

    def _bytes(self, data: bytes) -> None:
        self.out += varint(len(data))
        self.out += data

    def _branchless(self, node: Union, value: Any, path: str) -> NoReturn:
        """The error of the only branch beside null says more than the union's own."""
        others = [branch for branch in node.branches if branch != Primitive("null")]
        if len(others) == 1 and value is not None:
            self.write(others[0], value, path, 0)
        _wrong(node, value, path)


def varint(number: int) -> bytes:
    """Zig-zag variable-length encoding of a 64-bit number."""
    rest = number << 1 if number >= 0 else ~(number << 1)
    out = bytearray()
    while rest > 127:
        out.append(rest & 127 | 128)
        rest >>= 7
    out.append(rest)
    return bytes(out)


def unscaled(logical: Logical, value: Any, path: str) -> int:
    """A decimal's digits as one whole number."""
    if not isinstance(value, Decimal):
        _wrong(logical, value, path)
    if not value.is_finite() or (value and value.adjusted() >= logical.precision - logical.scale):
        raise DecimalPrecisionError(f"{_at(path)} has more digits than {logical}, or is not finite", path=path)
    shifted = value.scaleb(logical.scale, EXACT)
    if shifted != shifted.to_integral_value():
        raise DecimalScaleError(
            f"{_at(path)} has more than {logical.scale} digits after the point",
            path=path,
            hint="round it where you know the rule, for example with quantize()",
        )
    return int(shifted)


def _integer(node: Primitive, value: Any, path: str) -> int:
    if node.logical is not None:
        number = _logical_number(node.logical, value, path)
    elif isinstance(value, int) and not isinstance(value, bool):
        number = value
    else:
        _wrong(node, value, path)
    low, high = (INT_MIN, INT_MAX) if node.kind == "int" else (LONG_MIN, LONG_MAX)
    if not low <= number <= high:
        raise OutOfRangeError(f"{_at(path)} does not fit {32 if node.kind == 'int' else 64} bits", path=path)
    return number


def _logical_number(logical: Logical, value: Any, path: str) -> int:
    match logical.name:
        case "date":
            if not isinstance(value, date) or isinstance(value, datetime):
                _wrong(logical, value, path)
            return value.toordinal() - EPOCH_ORDINAL
        case "time-millis" | "time-micros":
            if not isinstance(value, time) or value.tzinfo is not None:
                _wrong(logical, value, path)
            seconds = (value.hour * 60 + value.minute) * 60 + value.second
            return _per_second(logical, seconds, value.microsecond)
        case _:
            return _moment(logical, value, path)


def _moment(logical: Logical, value: Any, path: str) -> int:
    if not isinstance(value, datetime):
        _wrong(logical, value, path)
    local = logical.name.startswith("local-")
    if local != (value.utcoffset() is None) or local != (value.tzinfo is None):
        wanted = "a datetime without zone" if local else "an aware datetime"
        raise NaiveDatetimeError(
            f"{_at(path)} is not {wanted}", path=path, hint="" if local else "add its zone, for example tzinfo=UTC"
        )
    since: timedelta = value - (LOCAL_EPOCH if local else EPOCH)
    return _per_second(logical, since.days * 86400 + since.seconds, since.microseconds)


def _per_second(logical: Logical, seconds: int, microseconds: int) -> int:
    """Whole units since the epoch or midnight; what is finer than the logical type is cut off."""
    if logical.name.endswith("-millis"):
        return seconds * 1000 + microseconds // 1000
    return seconds * 1_000_000 + microseconds


def _float(node: Primitive, value: Any, path: str) -> bytes:
    if not isinstance(value, int | float) or isinstance(value, bool):
        _wrong(node, value, path)
    try:
        return struct.pack("<f" if node.kind == "float" else "<d", value)
    except (OverflowError, struct.error):
        raise OutOfRangeError(f"{_at(path)} does not fit a {node}", path=path) from None


def _text(node: Primitive, value: Any, path: str) -> bytes:
    if node.logical is not None:
        if not isinstance(value, UUID):
            _wrong(node, value, path)
        return str(value).encode()
    if not isinstance(value, str):
        _wrong(node, value, path)
    try:
        return value.encode()
    except UnicodeEncodeError:
        raise InvalidTextError(f"{_at(path)} has characters that UTF-8 cannot say", path=path) from None


def _data(node: Primitive, value: Any, path: str) -> bytes:
    if node.logical is not None:
        number = unscaled(node.logical, value, path)
        return number.to_bytes((number.bit_length() >> 3) + 1, "big", signed=True)
    if not isinstance(value, bytes):
        _wrong(node, value, path)
    return value


def _wrong(wanted: Node | Logical, value: Any, path: str) -> NoReturn:
    raise WrongTypeError(f"{_at(path)} is {type(value).__name__}, the contract wants {wanted}", path=path)


def _at(path: str) -> str:
    return path or "the value"
