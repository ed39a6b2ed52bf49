"""Writers that no careful program has: bytes that are spelt oddly, and bytes that are just outside of their type."""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random
from typing import Any, Final

from wire_spelling import BLOCKS, DECIMAL, LETTERS, NAN, TWICE, VARINT, end_of_varint

from heddle.contracts.encode_reference import encode_reference, varint
from heddle.contracts.limits import DEFAULT_LIMITS
from heddle.contracts.schema import Array, Enum, Fixed, Map, Node, Primitive, Record, Union
from heddle.contracts.shapes import Chosen, ChosenShape
from heddle.contracts.values import DAY_US, INT_MAX, INT_MIN, LONG_MAX, LONG_MIN

_CHOSEN = ChosenShape()
_SIGNALLING: Final = b"\x01\x00\x80\x7f"
"""A NaN that turns into a quiet one on its way through a double."""
_DAYS: Final = (-719_162, 2_932_896)
"""From 0001-01-01 to 9999-12-31, since 1970-01-01."""


def spelt_oddly(node: Node, value: Any, dice: Random) -> bytes:
    """Bytes of a value that any reader takes and no careful writer writes; `value` as `value_of` gives it. Each oddity
    has even odds to come at all, so that it is seen alone too."""
    kinds = [VARINT, BLOCKS, DECIMAL, NAN, LETTERS, TWICE]
    writer = OddWriter(dice, {kind for kind in kinds if dice.random() < 0.5})
    writer.write(node, value)
    return bytes(writer.out)


def at_the_edge(node: Node, value: Any, dice: Random) -> bytes:
    """Bytes of a value of which a place or two hold the last that their type permits, or the first that it does not."""
    counter = EdgeWriter(dice, set())
    counter.write(node, value)
    writer = EdgeWriter(dice, set(), odds=1.5 / counter.places)
    writer.write(node, value)
    return bytes(writer.out)


@dataclass
class OddWriter:
    """Writes what `value_of` gives, and now and then, for each of `kinds`, spells it so."""

    dice: Random
    kinds: set[str]
    out: bytearray = field(default_factory=bytearray)

    def write(self, node: Node, value: Any) -> None:
        match node:
            case Array():
                self._blocks([(None, item) for item in value], node.items)
            case Map():
                entries = list(value.items())
                self._blocks(entries + (entries[:1] if self._now(TWICE) else []), node.values)
            case Union():
                assert isinstance(value, Chosen)
                self._number(value.index)
                self.write(node.branches[value.index], value.value)
            case Record():
                for item in node.fields:
                    self.write(item.type, value[item.name])
            case Enum():
                self._number(node.symbols.index(value))
            case Primitive(kind="float") if value != value and NAN in self.kinds:
                self.out += _SIGNALLING
            case Primitive(kind="null" | "boolean" | "float" | "double") | Fixed():
                self.out += encode_reference(node, _CHOSEN, DEFAULT_LIMITS, value)
            case Primitive(kind="int" | "long"):
                self.out += self._longer(encode_reference(node, _CHOSEN, DEFAULT_LIMITS, value))
            case Primitive():
                self._sized(node, value)

    def _sized(self, node: Primitive, value: Any) -> None:
        whole = encode_reference(node, _CHOSEN, DEFAULT_LIMITS, value)
        content = whole[end_of_varint(whole, 0) :]
        if node.logical is not None and node.logical.name == "uuid" and self._now(LETTERS):
            content = content.upper() if self.dice.random() < 0.5 else content.replace(b"-", b"")
        if node.logical is not None and node.logical.name == "decimal" and self._now(DECIMAL):
            content = (b"\xff" if content[0] > 127 else b"\x00") * self.dice.randrange(1, 4) + content
        self._number(len(content))
        self.out += content

    def _blocks(self, entries: list[tuple[str | None, Any]], inner: Node) -> None:
        while entries:
            count = self.dice.randint(1, len(entries)) if self._now(BLOCKS) else len(entries)
            before, self.out = self.out, bytearray()
            for key, item in entries[:count]:
                if key is not None:
                    self.write(Primitive("string"), key)
                self.write(inner, item)
            block, self.out = self.out, before
            entries = entries[count:]
            if self._now(BLOCKS):
                self._number(-count)
                # Readers that read items do not need the size, and none looks at it.
                self.out += varint(len(block) if self.dice.random() < 0.7 else self.dice.randrange(1000))
            else:
                self._number(count)
            self.out += block
        self._number(0)

    def _now(self, kind: str) -> bool:
        return kind in self.kinds and self.dice.random() < 0.2

    def _number(self, number: int) -> None:
        self.out += self._longer(varint(number))

    def _longer(self, written: bytes) -> bytes:
        if len(written) == 10 or not self._now(VARINT):
            return written
        more = self.dice.randint(1, 10 - len(written))
        return written[:-1] + bytes([written[-1] | 128]) + b"\x80" * (more - 1) + b"\x00"


@dataclass
class EdgeWriter(OddWriter):
    """Puts edges in the place of values, with these odds. `places`: how many values could have had one."""

    odds: float = 0
    places: int = 0

    def write(self, node: Node, value: Any) -> None:
        edges = _edges(node)
        self.places += bool(edges)
        if edges and self.dice.random() < self.odds:
            self.out += self.dice.choice(edges)
        else:
            super().write(node, value)


def _edges(node: Node) -> list[bytes]:
    match node:
        case Primitive(kind="boolean"):
            return [b"\x02", b"\xff"]
        case Primitive(kind="int" | "long"):
            return [varint(number) for number in _numbers(node)] + [b"\xff" * 9 + b"\x02", b"\xff" * 10 + b"\x01"]
        case Primitive(kind="float"):
            return [_SIGNALLING]
        case Primitive(kind="string" | "bytes") if node.logical is None:
            texts = [
                b"\xff",
                b"a\xc3",
                b"\xed\xa0\x80",
                b"\xc0\x80",
                b"\xf4\x90\x80\x80",
                b"\xef\xbf\xbf",
                b"\x7f" * 64,
            ]
            return [_sized(text) for text in texts] + [varint(-1), varint(2**40)]
        case Primitive(kind="string"):
            plain = "12345678-1234-5678-1234-56781234567"
            texts = [plain, f"{plain}g", f"{plain}F", f"{{{plain}8}}", f"urn:uuid:{plain}8", f"{plain}88"]
            return [_sized(text.encode()) for text in texts]
        case Primitive() | Fixed() if node.logical is not None:
            return _decimals(node)
        case Enum(symbols=symbols):
            return [varint(len(symbols)), varint(-1)]
        case Union(branches=branches):
            return [varint(len(branches)), varint(-1)]
        case Array() | Map():
            return [varint(2**40), varint(-1) + varint(-1), varint(LONG_MIN) + varint(0), varint(1)]
    return []


def _numbers(node: Primitive) -> list[int]:
    """The first and last of a type, and what is next to them."""
    low, high = (INT_MIN, INT_MAX) if node.kind == "int" else (LONG_MIN, LONG_MAX)
    name = node.logical.name if node.logical else ""
    if name == "date":
        low, high = _DAYS
    elif name:
        day = DAY_US // (1000 if name.endswith("-millis") else 1)
        low, high = (0, day - 1) if name.startswith("time-") else (_DAYS[0] * day, (_DAYS[1] + 1) * day - 1)
    return [number for number in (low - 1, low, high, high + 1) if LONG_MIN <= number <= LONG_MAX]


def _decimals(node: Primitive | Fixed) -> list[bytes]:
    assert node.logical is not None
    highest = int(10**node.logical.precision) - 1
    numbers = [highest, highest + 1, -highest, -highest - 1]
    if isinstance(node, Fixed):
        fitting = [number for number in numbers if number.bit_length() < 8 * node.size]
        return [number.to_bytes(node.size, "big", signed=True) for number in fitting]
    data = [number.to_bytes((number.bit_length() >> 3) + 1, "big", signed=True) for number in numbers]
    return [_sized(part) for part in (*data, b"", b"\x80", b"\xff\x80")]


def _sized(data: bytes) -> bytes:
    return varint(len(data)) + data
