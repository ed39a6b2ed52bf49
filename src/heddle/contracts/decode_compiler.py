"""Generated decoders: straight-line Python for one pair of schemas, about half the cost of a general reader.

The code reads past the end without looking: a slice is then short and an index raises, and the final check that
the position is the record's length catches what neither did."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from heddle.contracts.codegen import INLINE_DEPTH, Refused, Source
from heddle.contracts.limits import Limits
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
from heddle.contracts.schema import Array, Field, Logical, Map, Record, Union
from heddle.contracts.shapes import Shape, shaped_default
from heddle.contracts.values import EPOCH, EPOCH_ORDINAL, EXACT, LOCAL_EPOCH, time_of

Decoder = Callable[[bytes], Any]


def compile_decoder(action: Action, shape: Shape, limits: Limits, start: int, label: str) -> Decoder:
    """A function from bytes to the value in `data[start:]`. It raises one of `REFUSALS` for what it will not take."""
    maker = _Decoder(shape, shared_records(action))
    with maker.source.function("def decode(d):"):
        maker.source.add(
            "e = len(d)",
            f"if e > {limits.max_bytes}: raise Refused",
            f"p = {start}",
            f"k = {limits.max_depth}",
            f"z = [{limits.max_empty_items}]",
        )
        value = maker.emit(action, 0)
        maker.source.add("if p != e: raise Refused", f"return {value}")
    decode: Decoder = maker.source.compile(f"decoder {label}")["decode"]
    return decode


def shared_records(action: Action) -> set[ReadRecord]:
    """Records that recur or are read in several places: each becomes one function, so code cannot explode."""
    seen: set[ReadRecord] = set()
    shared: set[ReadRecord] = set()
    waiting: list[Action] = [action]
    while waiting:
        current = waiting.pop()
        match current:
            case ReadRecord():
                if current in seen:
                    shared.add(current)
                    continue
                seen.add(current)
                waiting.extend(step.action for step in current.steps)
            case ReadArray():
                waiting.append(current.items)
            case ReadMap():
                waiting.append(current.values)
            case ReadUnion():
                waiting.extend(current.branches)
    return shared


def length(data: bytes, position: int, first: int) -> tuple[int, int]:
    """As `varint`, of a number that may not be negative. `first` is odd or above 127."""
    number, position = varint(data, position, first) if first > 127 else (first, position)
    if number & 1:
        raise Refused
    return number, position


def varint(data: bytes, position: int, first: int, bits: int = 64) -> tuple[int, int]:
    """The rest of a variable-length number whose first byte `first` had its high bit set: (zig-zag value, position)."""
    number = first & 127
    shift = 7
    while True:
        byte = data[position]
        position += 1
        number |= (byte & 127) << shift
        if byte < 128:
            break
        shift += 7
        if shift > 63:
            raise Refused
    if number >> bits:
        raise Refused
    return number, position


_NAMES: dict[str, Any] = {
    "Refused": Refused,
    "varint": varint,
    "length": length,
    "float_at": struct.Struct("<f").unpack_from,
    "double_at": struct.Struct("<d").unpack_from,
    "number_in": int.from_bytes,
    "Decimal": Decimal,
    "scaled": EXACT.scaleb,
    "moment": datetime.fromtimestamp,
    "UTC": UTC,
    "new": object.__new__,
    "UUID": UUID,
    "EPOCH": EPOCH,
    "LOCAL_EPOCH": LOCAL_EPOCH,
    "timedelta": timedelta,
    "day": date.fromordinal,
    "time_of": time_of,
}

# Within 31 bits of seconds, a float is exact to the microsecond, and twice as fast.
_TIMESTAMP = "moment({0} / {1}, UTC) if 0 <= {0} < {1} << 31 else EPOCH + timedelta(0, {2})"
_FROM_NUMBER = {
    "date": f"day({{0}} + {EPOCH_ORDINAL})",
    "time-millis": "time_of({0} * 1000)",
    "time-micros": "time_of({0})",
    "timestamp-millis": _TIMESTAMP.format("{0}", 1_000, "{0} // 1000, {0} % 1000 * 1000"),
    "timestamp-micros": _TIMESTAMP.format("{0}", 1_000_000, "0, {0}"),
    "local-timestamp-millis": "LOCAL_EPOCH + timedelta(0, {0} // 1000, {0} % 1000 * 1000)",
    "local-timestamp-micros": "LOCAL_EPOCH + timedelta(0, 0, {0})",
}


@dataclass(slots=True)
class _Decoder:
    """Emits code that advances `p` over bytes `d` and leaves a value in a variable, whose name `emit` returns."""

    shape: Shape
    shared: set[ReadRecord]
    source: Source = field(default_factory=lambda: Source(dict(_NAMES)))
    functions: dict[int, str] = field(default_factory=dict)
    kept: list[Action] = field(default_factory=list)

    def emit(self, action: Action, depth: int) -> str:
        nests = not isinstance(action, ReadScalar | ReadFixed | ReadEnum)
        if nests and (depth >= INLINE_DEPTH or action in self.shared):
            target = self.source.fresh("v")
            self.source.add(f"{target}, p = {self._function(action)}(d, p, e, k - 1, z)")
            return target
        return self._inline(action, depth)

    def _function(self, action: Action) -> str:
        if id(action) not in self.functions:
            self.kept.append(action)
            name = self.functions[id(action)] = self.source.fresh("read")
            with self.source.function(f"def {name}(d, p, e, k, z):"):
                self.source.add("if k < 0: raise Refused")
                value = self._inline(action, 0)
                self.source.add(f"return {value}, p")
        return self.functions[id(action)]

    def _inline(self, action: Action, depth: int) -> str:
        match action:
            case ReadScalar():
                return self._scalar(action)
            case ReadFixed():
                return self._fixed(action)
            case ReadEnum():
                return self._enum(action)
            case ReadArray():
                return self._array(action, depth)
            case ReadMap():
                return self._map(action, depth)
            case ReadUnion():
                return self._union(action, depth)
            case ReadRecord():
                return self._record(action, depth)

    def _raw(self, target: str, bits: int = 64) -> None:
        """Leaves a number as it is written, zig-zag, in `target`."""
        more = "" if bits == 64 else f", {bits}"
        self.source.add(f"{target} = d[p]", "p += 1")
        self.source.add(f"if {target} > 127: {target}, p = varint(d, p, {target}{more})")

    def _span(self) -> str:
        """Leaves a length-prefixed value between `p` and the variable returned."""
        end = self.source.fresh("q")
        self._length(end)
        self.source.add(f"{end} = p + ({end} >> 1)")
        return end

    def _length(self, target: str) -> None:
        """Leaves a number that is not negative as it is written, zig-zag, in `target`: short and even, or `length`."""
        self.source.add(f"{target} = d[p]", "p += 1")
        self.source.add(f"if {target} & 129: {target}, p = length(d, p, {target})")

    def _scalar(self, action: ReadScalar) -> str:
        target = self.source.fresh("v")
        match action.kind:
            case "null":
                return "None"
            case "boolean":
                self.source.add(
                    f"{target} = d[p]", "p += 1", f"if {target} > 1: raise Refused", f"{target} = {target} == 1"
                )
            case "int" | "long":
                self._raw(target, 32 if action.kind == "int" else 64)
                self.source.add(f"{target} = ({target} >> 1) ^ -({target} & 1)")
                if action.becomes in ("float", "double"):
                    self.source.add(f"{target} = float({target})")
                elif action.logical is not None:
                    self.source.add(f"{target} = {_FROM_NUMBER[action.logical.name].format(target)}")
            case "float" | "double":
                self.source.add(f"{target} = {action.kind}_at(d, p)[0]", f"p += {4 if action.kind == 'float' else 8}")
            case _:
                self._bytes(action, target)
        return target

    def _bytes(self, action: ReadScalar, target: str) -> None:
        end = self._span()
        if action.becomes == "string":
            text = f"d[p:{end}].decode()"
            self.source.add(f"{target} = UUID({text})" if action.logical else f"{target} = {text}")
        elif action.logical is None:
            self.source.add(f"{target} = d[p:{end}]")
        else:
            self.source.add(f"if p == {end}: raise Refused")
            self._decimal(action.logical, target, end)
        self.source.add(f"p = {end}")

    def _decimal(self, logical: Logical, target: str, end: str) -> None:
        low, high = (self.source.constant("TEN", sign * 10**logical.precision) for sign in (-1, 1))
        shift = self.source.constant("SHIFT", Decimal(-logical.scale))
        self.source.add(f'{target} = number_in(d[p:{end}], "big", signed=True)')
        self.source.add(f"if not {low} < {target} < {high}: raise Refused")
        self.source.add(f"{target} = scaled({target}, {shift})" if logical.scale else f"{target} = Decimal({target})")

    def _fixed(self, action: ReadFixed) -> str:
        target, end = self.source.fresh("v"), self.source.fresh("q")
        self.source.add(f"{end} = p + {action.size}")
        if action.logical is None:
            self.source.add(f"{target} = d[p:{end}]")
        else:
            self._decimal(action.logical, target, end)
        self.source.add(f"p = {end}")
        return target

    def _enum(self, action: ReadEnum) -> str:
        target = self.source.fresh("v")
        symbols = self.source.constant("SYMBOLS", action.symbols)
        self._length(target)
        self.source.add(f"{target} = {symbols}[{target} >> 1]")
        return target

    def _union(self, action: ReadUnion, depth: int) -> str:
        target, index = self.source.fresh("v"), self.source.fresh("u")
        self._raw(index)
        for number, branch in enumerate(action.branches):
            with self.source.block(f"{'el' if number else ''}if {index} == {2 * number}:"):
                self.source.add(f"{target} = {self.emit(branch, depth + 1)}")
        if action.branches:
            self.source.add("else: raise Refused")
        else:
            self.source.add("raise Refused")
        return target

    def _blocks(self, item_bytes: int) -> str:
        """Opens the loop over the blocks of a list; returns the variable with the block's count."""
        number = self.source.fresh("n")
        self._raw(number)
        self.source.add(f"while {number}:")
        self.source.indent += 1
        with self.source.block(f"if {number} & 1:"):
            self.source.add(f"{number} = ({number} >> 1) + 1")
            size = self.source.fresh("s")
            self._length(size)
        self.source.add(f"else: {number} >>= 1")
        if item_bytes:
            self.source.add(f"if {number} > e - p: raise Refused")
        else:
            self.source.add(f"z[0] -= {number}", "if z[0] < 0: raise Refused")
        return number

    def _array(self, action: ReadArray, depth: int) -> str:
        target = self.source.fresh("v")
        self.source.add(f"{target} = []")
        number = self._blocks(action.item_bytes)
        with self.source.block(f"for _ in range({number}):"):
            self.source.add(f"{target}.append({self.emit(action.items, depth + 2)})")
        self._raw(number)
        self.source.indent -= 1
        if isinstance(self.shape.array([]), tuple):
            self.source.add(f"{target} = tuple({target})")
        return target

    def _map(self, action: ReadMap, depth: int) -> str:
        target, key = self.source.fresh("v"), self.source.fresh("m")
        self.source.add(f"{target} = {{}}")
        number = self._blocks(1)
        with self.source.block(f"for _ in range({number}):"):
            end = self._span()
            self.source.add(f"{key} = d[p:{end}].decode()", f"p = {end}")
            self.source.add(f"{target}[{key}] = {self.emit(action.values, depth + 2)}")
        self._raw(number)
        self.source.indent -= 1
        return target

    def _record(self, action: ReadRecord, depth: int) -> str:
        values: dict[str, str] = {}
        for step in action.steps:
            value = self.emit(step.action, depth + 1)
            if step.target is not None:
                values[step.target] = value
        for item in action.defaulted:
            values[item.name] = self._default(item)
        ordered = [values[f.name] for f in action.reader.fields]
        cls = self.shape.class_of(action.reader)
        if cls is None:
            pairs = ", ".join(f"{f.name!r}: {v}" for f, v in zip(action.reader.fields, ordered, strict=True))
            return f"{{{pairs}}}"
        target = self.source.fresh("v")
        self.source.add(f"{target} = new({self.source.constant('Open', open_twin(cls))})")
        self.source.add(*(f"{target}.{slot} = {v}" for slot, v in zip(cls.__slots__, ordered, strict=True)))
        self.source.add(f"{target}.__class__ = {self.source.constant('Type', cls)}")
        return target

    def _default(self, item: Field) -> str:
        if isinstance(item.type, Array | Map | Record | Union):
            return self.source.constant("default", lambda: shaped_default(self.shape, item.type, item.default)) + "()"
        return self.source.constant("DEFAULT", shaped_default(self.shape, item.type, item.default))


def open_twin(cls: type[Any]) -> type[Any]:
    """A class with the slots of a frozen dataclass that allows assignments. An instance becomes the frozen one by a
    change of class: many times as fast as the frozen constructor, which sets each field through a function call."""
    return type(f"Open{cls.__name__}", (), {"__slots__": cls.__slots__})
