"""The decoder that explains: it walks the actions with the path in hand, and raises the exact error.

The generated decoder does the work; when it refuses bytes, this one reads them again to say why. Where the two
should ever disagree, this one is right."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from heddle.contracts.limits import Limits
from heddle.contracts.refusals import (
    BadIndexError,
    BadValueError,
    BadVarintError,
    DecodedRangeError,
    InvalidUtf8Error,
    LimitError,
    TrailingBytesError,
)
from heddle.contracts.resolution import (
    Action,
    ReadArray,
    ReadEnum,
    ReadFixed,
    ReadMap,
    ReadRecord,
    ReadScalar,
    ReadUnion,
)
from heddle.contracts.schema import Logical
from heddle.contracts.shapes import Shape, shaped_default
from heddle.contracts.values import from_number, from_unscaled
from heddle.errors import DecodeError, TruncatedError


def decode_reference(action: Action, shape: Shape, limits: Limits, data: bytes, start: int) -> Any:
    """The value in `data[start:]`. Raises a `DecodeError` of `refusals` with the field path, and says at which byte."""
    if len(data) > limits.max_bytes:
        raise LimitError(f"record of {len(data)} bytes; the limit is {limits.max_bytes}")
    reader = _Reader(shape, limits, data, start, limits.max_empty_items)
    try:
        value = reader.read(action, "", 0)
        if reader.position != len(data):
            raise TrailingBytesError(f"{len(data) - reader.position} bytes after the end of the record")
    except DecodeError as error:
        error.offset = reader.position
        raise
    return value


@dataclass(slots=True)
class _Reader:
    shape: Shape
    limits: Limits
    data: bytes
    position: int
    empty_items_left: int

    def read(self, action: Action, path: str, depth: int) -> Any:
        match action:
            case ReadScalar():
                return self._scalar(action, path)
            case ReadFixed():
                data = self._take(action.size, path)
                return _decimal(data, action.logical, path) if action.logical else data
            case ReadEnum():
                return self._enum(action, path)
            case ReadArray():
                return self.shape.array(self._array(action, path, depth))
            case ReadMap():
                return self._map(action, path, depth)
            case ReadUnion():
                index = self._long(path)
                if not 0 <= index < len(action.branches):
                    raise BadIndexError(f"union has no branch {index}", path=path)
                return self.shape.branch(index, self.read(action.branches[index], path, depth))
            case ReadRecord():
                return self._record(action, path, depth)

    def _record(self, action: ReadRecord, path: str, depth: int) -> Any:
        if depth > self.limits.max_depth:
            raise LimitError(f"records nested deeper than {self.limits.max_depth} levels", path=_short(path))
        fields = {}
        for step in action.steps:
            name = step.target or step.name
            value = self.read(step.action, f"{path}.{name}" if path else name, depth + 1)
            if step.target is not None:
                fields[step.target] = value
        for field in action.defaulted:
            fields[field.name] = shaped_default(self.shape, field.type, field.default)
        return self.shape.make(action.reader, fields)

    def _array(self, action: ReadArray, path: str, depth: int) -> list[Any]:
        items: list[Any] = []
        while count := self._block(path, action.item_bytes):
            for _ in range(count):
                items.append(self.read(action.items, f"{path}[{len(items)}]", depth))
        return items

    def _map(self, action: ReadMap, path: str, depth: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        while count := self._block(path, 1):
            for _ in range(count):
                key = self._text(path)
                found[key] = self.read(action.values, f"{path}{{}}", depth)
        return found

    def _block(self, path: str, item_bytes: int) -> int:
        """The number of items in the next block; 0 ends the list."""
        count = self._long(path)
        if count < 0:
            count = -count
            if self._long(path) < 0:
                raise BadValueError("block of a negative number of bytes", path=path)
        if item_bytes and count > len(self.data) - self.position:
            raise TruncatedError("the record ends inside a list", path=path)
        if not item_bytes:
            self.empty_items_left -= count
            if self.empty_items_left < 0:
                raise LimitError(f"more than {self.limits.max_empty_items} items without content", path=path)
        return count

    def _enum(self, action: ReadEnum, path: str) -> str:
        index = self._long(path)
        if not 0 <= index < len(action.symbols):
            raise BadIndexError(f"enum has no symbol number {index}", path=path)
        return action.symbols[index]

    def _scalar(self, action: ReadScalar, path: str) -> Any:
        match action.kind:
            case "null":
                return None
            case "boolean":
                byte = self._take(1, path)[0]
                if byte > 1:
                    raise BadValueError("a boolean that is neither 0 nor 1", path=path)
                return byte == 1
            case "int" | "long":
                number = self._long(path, bits=32 if action.kind == "int" else 64)
                return _number(number, action, path)
            case "float" | "double":
                size, form = (4, "<f") if action.kind == "float" else (8, "<d")
                return struct.unpack(form, self._take(size, path))[0]
            case _ if action.becomes == "string":
                text = self._text(path)
                return _uuid(text, path) if action.logical else text
            case _:
                data = self._take(self._length(path), path)
                return _decimal(data, action.logical, path) if action.logical else data

    def _text(self, path: str) -> str:
        try:
            return self._take(self._length(path), path).decode()
        except UnicodeDecodeError:
            raise InvalidUtf8Error("text is not UTF-8", path=path) from None

    def _length(self, path: str) -> int:
        length = self._long(path)
        if length < 0:
            raise BadValueError("negative length", path=path)
        return length

    def _take(self, size: int, path: str) -> bytes:
        end = self.position + size
        if end > len(self.data):
            raise TruncatedError(f"the record ends {end - len(self.data)} bytes early", path=path)
        data = self.data[self.position : end]
        self.position = end
        return data

    def _long(self, path: str, bits: int = 64) -> int:
        unsigned = shift = 0
        while True:
            byte = self._take(1, path)[0]
            unsigned |= (byte & 127) << shift
            if byte < 128:
                break
            shift += 7
            if shift > 63:
                raise BadVarintError("number of more than 10 bytes", path=path)
        if unsigned >> bits:
            raise DecodedRangeError(f"number of more than {bits} bits", path=path)
        return (unsigned >> 1) ^ -(unsigned & 1)


def _number(number: int, action: ReadScalar, path: str) -> Any:
    if action.becomes in ("float", "double"):
        return float(number)
    if action.logical is None:
        return number
    try:
        return from_number(action.logical.name, number)
    except (ValueError, OverflowError):
        raise DecodedRangeError(f"number is no {action.logical}", path=path) from None


def _decimal(data: bytes, logical: Logical, path: str) -> Any:
    if not data:
        raise BadValueError("decimal of no bytes", path=path)
    try:
        return from_unscaled(int.from_bytes(data, "big", signed=True), logical)
    except ValueError:
        raise DecodedRangeError(f"more digits than {logical} has", path=path) from None


def _uuid(text: str, path: str) -> Any:
    try:
        return UUID(text)
    except ValueError:
        raise BadValueError("text is no UUID", path=path) from None


def _short(path: str) -> str:
    """A path that a person can read, also where nesting made it long."""
    return path if len(path) <= 120 else f"{path[:60]}…{path[-40:]}"
