"""One value, many spellings: Avro lets a writer say the same in other bytes, and a verbatim copy keeps them."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from uuid import UUID

from heddle.contracts.decode_reference import decode_reference
from heddle.contracts.encode_reference import encode_reference, varint
from heddle.contracts.limits import DEFAULT_LIMITS
from heddle.contracts.resolution import as_written
from heddle.contracts.schema import Array, Enum, Fixed, Map, Node, Primitive, Record, Union
from heddle.contracts.shapes import ChosenShape

VARINT = "a number in more bytes than it needs"
BLOCKS = "a list in several blocks, or with their sizes"
DECIMAL = "a decimal with another number of sign bytes"
NAN = "another NaN than Python's"
LETTERS = "a UUID in capital letters, or without hyphens"
TWICE = "a map with one key twice"

_CHOSEN = ChosenShape()


def canonical(node: Node, data: bytes) -> bytes:
    """The same value, each branch of a union kept, as our encoder spells it. Raises `DecodeError`."""
    value = decode_reference(as_written(node), _CHOSEN, DEFAULT_LIMITS, data, 0)
    return encode_reference(node, _CHOSEN, DEFAULT_LIMITS, value)


def spellings_in(node: Node, data: bytes) -> set[str]:
    """Which of these oddities the bytes of a valid value hold; none where they are as our encoder spells the value."""
    scanner = _Scanner(data)
    scanner.scan(node)
    assert scanner.position == len(data)
    return scanner.found


@dataclass
class _Scanner:
    data: bytes
    position: int = 0
    found: set[str] = field(default_factory=set)

    def scan(self, node: Node) -> None:
        match node:
            case Record():
                for item in node.fields:
                    self.scan(item.type)
            case Union():
                self.scan(node.branches[self._number()])
            case Array():
                self._blocks(node.items, keys=False)
            case Map():
                self._blocks(node.values, keys=True)
            case Enum():
                self._number()
            case Fixed():
                self.position += node.size
            case Primitive():
                self._scalar(node)

    def _scalar(self, node: Primitive) -> None:
        match node.kind:
            case "null":
                pass
            case "boolean":
                self.position += 1
            case "int" | "long":
                self._number()
            case "float" | "double":
                form = "<f" if node.kind == "float" else "<d"
                data = self._taken(struct.calcsize(form))
                if struct.pack(form, *struct.unpack(form, data)) != data:
                    self.found.add(NAN)
            case _:
                self._sized(node.logical.name if node.logical else "", self._taken(self._number()))

    def _sized(self, logical: str, data: bytes) -> None:
        if logical == "decimal":
            number = int.from_bytes(data, "big", signed=True)
            if len(data) != (number.bit_length() >> 3) + 1:  # fastavro's rule and ours: -128 is two bytes, Java's one
                self.found.add(DECIMAL)
        elif logical == "uuid" and str(UUID(data.decode())).encode() != data:
            self.found.add(LETTERS)

    def _blocks(self, inner: Node, keys: bool) -> None:
        blocks, seen = 0, set[bytes]()
        while count := self._number():
            blocks += 1
            if count < 0:
                self._number()
            if count < 0 or blocks > 1:
                self.found.add(BLOCKS)
            for _ in range(abs(count)):
                if keys:
                    key = self._taken(self._number())
                    self.found |= {TWICE} if key in seen else set()
                    seen.add(key)
                self.scan(inner)

    def _taken(self, size: int) -> bytes:
        self.position += size
        return self.data[self.position - size : self.position]

    def _number(self) -> int:
        end = end_of_varint(self.data, self.position)
        written = self._taken(end - self.position)
        unsigned = sum((byte & 127) << 7 * index for index, byte in enumerate(written))
        number = (unsigned >> 1) ^ -(unsigned & 1)
        if varint(number) != written:
            self.found.add(VARINT)
        return number


def end_of_varint(data: bytes, start: int) -> int:
    while data[start] > 127:
        start += 1
    return start + 1
