"""Generated encoders: straight-line Python for one contract, with every check that the contract asks for."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, time
from decimal import Context, Decimal, InvalidOperation, Overflow
from typing import Any, Final
from uuid import UUID

from heddle.contracts.branches import branch_picker, unwrap
from heddle.contracts.codegen import INLINE_DEPTH, Refused, Source
from heddle.contracts.encode_reference import encode_reference, varint
from heddle.contracts.limits import Limits
from heddle.contracts.naming import python_name
from heddle.contracts.schema import (
    MISSING,
    NULL,
    Array,
    Enum,
    Fixed,
    Logical,
    Map,
    Node,
    Primitive,
    Record,
    Union,
    children,
)
from heddle.contracts.shapes import DictShape, Shape
from heddle.contracts.values import (
    EPOCH,
    EPOCH_ORDINAL,
    EXACT,
    INT_MAX,
    INT_MIN,
    LOCAL_EPOCH,
    LONG_MAX,
    LONG_MIN,
    default_value,
)

Encoder = Callable[[bytearray, Any], None]

_SECONDS: Final = "({0}.days * 86400 + {0}.seconds)"
_TIME_SECONDS: Final = "(({0}.hour * 60 + {0}.minute) * 60 + {0}.second)"


def compile_encoder(node: Node, shape: Shape, limits: Limits, label: str) -> Encoder:
    """A function that appends a value's Avro bytes. It raises one of `REFUSALS` for what the contract refuses."""
    maker = _Encoder(shape, limits, _shared_records(node))
    with maker.source.function("def encode(o, x):"):
        maker.source.add(f"k = {limits.max_written_depth}")
        maker.emit(node, "x", 0)
    encode: Encoder = maker.source.compile(f"encoder {label}")["encode"]
    return encode


def _shared_records(node: Node) -> set[str]:
    seen: set[str] = set()
    shared: set[str] = set()
    waiting = [node]
    while waiting:
        current = waiting.pop()
        if isinstance(current, Record):
            if current.name in seen:
                shared.add(current.name)
                continue
            seen.add(current.name)
        waiting.extend(children(current))
    return shared


def _whole(value: Any) -> int:
    """An int that is not quite of class int (an IntEnum), but no bool."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise Refused
    return int(value)


def _real(value: Any) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise Refused
    return float(value)


def _instance(cls: type) -> Callable[[Any], None]:
    def check(value: Any) -> None:
        if not isinstance(value, cls) or (cls is date and isinstance(value, datetime)):
            raise Refused

    return check


_NAMES: dict[str, Any] = {
    "Refused": Refused,
    "Mapping": Mapping,
    "MISSING": MISSING,
    "whole": _whole,
    "real": _real,
    "varint": varint,
    "pack_float": struct.Struct("<f").pack,
    "pack_double": struct.Struct("<d").pack,
    "EPOCH": EPOCH,
    "LOCAL_EPOCH": LOCAL_EPOCH,
    "unwrap": unwrap,
}
for _cls in (str, bytes, Decimal, UUID, date, datetime, time):
    _NAMES[_cls.__name__] = _cls
    _NAMES[f"check_{_cls.__name__}"] = _instance(_cls)


@dataclass(slots=True)
class _Encoder:
    """Emits code that appends the value of a variable to bytearray `o`."""

    shape: Shape
    limits: Limits
    shared: set[str]
    source: Source = field(default_factory=lambda: Source(dict(_NAMES)))
    functions: dict[int, str] = field(default_factory=dict)

    def emit(self, node: Node, x: str, depth: int) -> None:
        shared = isinstance(node, Record) and node.name in self.shared
        if shared or (depth >= INLINE_DEPTH and not isinstance(node, Primitive | Fixed | Enum)):
            self.source.add(f"{self._function(node)}(o, {x}, k - 1)")
        else:
            self._inline(node, x, depth)

    def _function(self, node: Node) -> str:
        if id(node) not in self.functions:
            name = self.functions[id(node)] = self.source.fresh("write")
            with self.source.function(f"def {name}(o, x, k):"):
                self.source.add("if k < 0: raise Refused")
                self._inline(node, "x", 0)
        return self.functions[id(node)]

    def _inline(self, node: Node, x: str, depth: int) -> None:
        match node:
            case Primitive():
                self._primitive(node, x)
            case Fixed():
                self._fixed(node, x)
            case Enum():
                symbols = {symbol: varint(index) for index, symbol in enumerate(node.symbols)}
                self.source.add(f"o += {self.source.constant('SYMBOLS', symbols)}[{x}]")
            case Array():
                self._array(node, x, depth)
            case Map():
                self._map(node, x, depth)
            case Union():
                self._union(node, x, depth)
            case Record():
                self._record(node, x, depth)

    def _class(self, x: str, cls: type) -> None:
        self.source.add(f"if {x}.__class__ is not {cls.__name__}: check_{cls.__name__}({x})")

    def _number(self, x: str) -> None:
        """Appends the zig-zag form of a number that is known to fit."""
        n = self.source.fresh("n")
        self.source.add(f"{n} = {x} << 1 if {x} >= 0 else ~({x} << 1)")
        with self.source.block(f"while {n} > 127:"):
            self.source.add(f"o.append({n} & 127 | 128)", f"{n} >>= 7")
        self.source.add(f"o.append({n})")

    def _length(self, x: str) -> None:
        n = self.source.fresh("n")
        self.source.add(f"{n} = len({x})")
        self.source.add(f"if {n} < 64: o.append({n} << 1)", f"else: o += varint({n})")

    def _range(self, x: str, kind: str) -> None:
        low, high = (INT_MIN, INT_MAX) if kind == "int" else (LONG_MIN, LONG_MAX)
        self.source.add(f"if not {low} <= {x} <= {high}: raise Refused")

    def _primitive(self, node: Primitive, x: str) -> None:
        match node.kind:
            case "null":
                self.source.add(f"if {x} is not None: raise Refused")
            case "boolean":
                self.source.add(
                    f"if {x} is True: o.append(1)", f"elif {x} is False: o.append(0)", "else: raise Refused"
                )
            case "int" | "long":
                self._integer(node, x)
            case "float" | "double":
                self.source.add(f"if {x}.__class__ is not float: {x} = real({x})", f"o += pack_{node.kind}({x})")
            case "string":
                self._text(node, x)
            case _:
                self._bytes(node, x)

    def _integer(self, node: Primitive, x: str) -> None:
        if node.logical is None:
            self.source.add(f"if {x}.__class__ is not int: {x} = whole({x})")
            self._range(x, node.kind)
        else:
            number = self.source.fresh("t")
            self._logical_number(node.logical.name, x, number)
            x = number
        self._number(x)

    def _logical_number(self, name: str, x: str, target: str) -> None:
        if name == "date":
            self._class(x, date)
            self.source.add(f"{target} = {x}.toordinal() - {EPOCH_ORDINAL}")
            return
        if name.startswith("time-"):
            self._class(x, time)
            self.source.add(f"if {x}.tzinfo is not None: raise Refused")
            seconds, us = _TIME_SECONDS.format(x), f"{x}.microsecond"
        else:
            # Subtracting a naive from an aware datetime raises TypeError: that is the check for a zone.
            self._class(x, datetime)
            self.source.add(f"{target} = {x} - {'LOCAL_EPOCH' if name.startswith('local-') else 'EPOCH'}")
            seconds, us = _SECONDS.format(target), f"{target}.microseconds"
        whole = f"{seconds} * 1000 + {us} // 1000" if name.endswith("-millis") else f"{seconds} * 1000000 + {us}"
        self.source.add(f"{target} = {whole}")

    def _text(self, node: Primitive, x: str) -> None:
        b = self.source.fresh("b")
        if node.logical is not None:
            self._class(x, UUID)
            self.source.add(f"{b} = str({x}).encode()")
        else:
            self._class(x, str)
            self.source.add(f"{b} = {x}.encode()")
        self._length(b)
        self.source.add(f"o += {b}")

    def _bytes(self, node: Primitive, x: str) -> None:
        b = x
        if node.logical is not None:
            number = self._unscaled(node.logical, x)
            b = self.source.fresh("b")
            self.source.add(f'{b} = {number}.to_bytes(({number}.bit_length() >> 3) + 1, "big", signed=True)')
        else:
            self._class(x, bytes)
        self._length(b)
        self.source.add(f"o += {b}")

    def _unscaled(self, logical: Logical, x: str) -> str:
        number, shifted = self.source.fresh("t"), self.source.fresh("t")
        # Overflows where there are more digits than the precision: cheaper than two comparisons of decimals.
        bounded = Context(prec=EXACT.prec, Emax=logical.precision - 1, traps=[InvalidOperation, Overflow])
        scaled = self.source.constant("scaled", bounded.scaleb)
        shift = self.source.constant("SHIFT", Decimal(logical.scale))
        self._class(x, Decimal)
        self.source.add(f"{shifted} = {scaled}({x}, {shift})", f"{number} = int({shifted})")
        self.source.add(f"if {number} != {shifted}: raise Refused")
        return number

    def _fixed(self, node: Fixed, x: str) -> None:
        if node.logical is not None:
            self.source.add(f'o += {self._unscaled(node.logical, x)}.to_bytes({node.size}, "big", signed=True)')
        else:
            self._class(x, bytes)
            self.source.add(f"if len({x}) != {node.size}: raise Refused", f"o += {x}")

    def _array(self, node: Array, x: str, depth: int) -> None:
        item = self.source.fresh("i")
        self.source.add(f"if {x}.__class__ is not tuple and not isinstance({x}, (list, tuple)): raise Refused")
        with self.source.block(f"if {x}:"):
            self._length(x)
            with self.source.block(f"for {item} in {x}:"):
                self.emit(node.items, item, depth + 3)
        self.source.add("o.append(0)")

    def _map(self, node: Map, x: str, depth: int) -> None:
        key, item = self.source.fresh("m"), self.source.fresh("i")
        self.source.add(f"if not isinstance({x}, Mapping): raise Refused")
        with self.source.block(f"if {x}:"):
            self._length(x)
            with self.source.block(f"for {key}, {item} in {x}.items():"):
                self._text(Primitive("string"), key)
                self.emit(node.values, item, depth + 3)
        self.source.add("o.append(0)")

    def _union(self, node: Union, x: str, depth: int) -> None:
        null = node.null_index
        if null is not None and len(node.branches) == 2:
            with self.source.block(f"if {x} is None:"):
                self.source.add(f"o.append({2 * null})")
            with self.source.block("else:"):
                self.source.add(f"o.append({2 - 2 * null})")
                self.emit(node.branches[1 - null], x, depth + 1)
            return
        picked = self.source.fresh("u")
        self.source.add(f"{picked} = {self.source.constant('pick', branch_picker(node, self.shape))}({x})")
        for number, branch in enumerate(node.branches):
            with self.source.block(f"{'el' if number else ''}if {picked} == {number}:"):
                self.source.add(f"o += {varint(number)!r}")
                if isinstance(branch, Record):
                    self.source.add(f"if {x}.__class__ is tuple: {x} = {x}[1]")
                if branch != NULL:
                    self.emit(branch, x, depth + 1)
        self.source.add("else: raise Refused" if node.branches else "raise Refused")

    def _record(self, node: Record, x: str, depth: int) -> None:
        cls = self.shape.class_of(node)
        if cls is None:
            self._dict_record(node, x, depth)
            return
        name = self.source.constant("Type", cls)
        self.source.add(f"if {x}.__class__ is not {name} and not isinstance({x}, {name}): raise Refused")
        for item in node.fields:
            value = self.source.fresh("x")
            self.source.add(f"{value} = {x}.{python_name(item.name)}")
            self.emit(item.type, value, depth + 1)

    def _dict_record(self, node: Record, x: str, depth: int) -> None:
        names = self.source.constant("FIELDS", frozenset(f.name for f in node.fields))
        unknown = f"{x}.keys() <= {names}"
        self.source.add(f"if {x}.__class__ is not dict and not isinstance({x}, Mapping): raise Refused")
        self.source.add(f"if len({x}) != {len(node.fields)} and not {unknown}: raise Refused")
        for item in node.fields:
            value = self.source.fresh("x")
            if item.default is MISSING:
                self.source.add(f"{value} = {x}[{item.name!r}]")
                self.emit(item.type, value, depth + 1)
                continue
            self.source.add(f"{value} = {x}.get({item.name!r}, MISSING)")
            default = encode_reference(item.type, DictShape(), self.limits, default_value(item.type, item.default))
            with self.source.block(f"if {value} is MISSING:"):
                self.source.add(f"if not {unknown}: raise Refused", f"o += {default!r}")
            with self.source.block("else:"):
                self.emit(item.type, value, depth + 2)
