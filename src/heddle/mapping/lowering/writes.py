"""Trees of leaves written as a target's values."""

from __future__ import annotations

from abc import abstractmethod

from heddle.contracts.encode_reference import encode_reference, varint
from heddle.contracts.limits import Limits
from heddle.contracts.resolution import ReadArray, ReadRecord
from heddle.contracts.schema import Array, Fixed, Node, Primitive, Record, Union
from heddle.contracts.shapes import DictShape
from heddle.errors import ContractError
from heddle.mapping.lowering import values
from heddle.mapping.lowering.conditions import Conditions, condition_of
from heddle.mapping.lowering.copies import branch_for, class_of, is_copy
from heddle.mapping.lowering.numbers import as_amount, moment, rescaled
from heddle.mapping.lowering.pieces import Either, ForEach, Piece, Span, merged
from heddle.mapping.lowering.rules import stepped
from heddle.mapping.lowering.slots import Unlowered
from heddle.mapping.lowering.values import (
    TRUE,
    Amount,
    Fork,
    Joined,
    Leaf,
    Levels,
    Listed,
    Looked,
    Made,
    Nothing,
    Plain,
    Refused,
    Rowed,
    Tree,
    Wire,
    Words,
    opened,
    rowed,
    spread,
    utf8,
)
from heddle.mapping.rules import AllOf, Build, Items, Rule
from heddle.mapping.types import INT, MICROS, STRING, decimal_of, is_integer, name_of
from heddle.wire import plan as wire


class Writes(Conditions):
    """Writes values of a target type; `path` is where in the target."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits

    @abstractmethod
    def field(self, rule: Rule, node: Node, levels: Levels, path: str) -> tuple[Piece, ...]:
        """The pieces of a rule's value, by a call where it has no instructions and can have a call."""

    def write(self, tree: Tree, node: Node, path: str) -> tuple[Piece, ...]:
        match tree:
            case Fork(condition, then, otherwise):
                return (Either(condition, self.write(then, node, path), self.write(otherwise, node, path)),)
            case Refused():
                return (wire.Refuse(),)
            case Nothing() | values.Fixed():
                data = self._encoded(tree, node)
                return (wire.Refuse(),) if data is None else raw(data)
            case Rowed() | Looked():
                return self._table(tree, node)
            case Wire(slot) if is_copy(slot.action, node):
                return (Span(slot, slot),)
        known = opened(tree)
        if known is not tree:
            return self.write(known, node, path)
        if isinstance(node, Union):
            index = branch_for(node, _class_of(tree))
            if index is None:
                raise Unlowered("only the value tells which branch of the union it is of")
            return (*raw(varint(index)), *self.write(tree, node.branches[index], path))
        return self._value(tree, node, path)

    def _encoded(self, leaf: Plain, node: Node) -> bytes | None:
        """The target's bytes of a constant; None where the record is refused."""
        if isinstance(leaf, Refused):
            return None
        value = leaf.value if isinstance(leaf, values.Fixed) else None
        try:
            return encode_reference(node, DictShape(), self.limits, value)
        except ContractError:
            return None

    def _table(self, leaf: Rowed | Looked, node: Node) -> tuple[Piece, ...]:
        if isinstance(leaf, Rowed):
            return (wire.Pick(leaf.number, tuple(self._encoded(row, node) for row in leaf.rows)),)
        rows = [(utf8(key), self._encoded(row, node)) for key, row in leaf.rows]
        otherwise = self._encoded(leaf.otherwise, node)
        known = tuple((key, data) for key, data in rows if data is not None)
        lookup = wire.Lookup(leaf.slot.content, leaf.slot.end, known, otherwise)
        refused = tuple(key for key, data in rows if data is None)
        if not refused or otherwise is None:
            return (lookup,)
        return (Either(wire.AmongTexts(leaf.slot.content, leaf.slot.end, refused), (wire.Refuse(),), (lookup,)),)

    def _value(self, leaf: Leaf, node: Node, path: str) -> tuple[Piece, ...]:
        """A leaf that is surely a value, as a type that is no union."""
        symbols = rowed(leaf)
        if symbols is not None:
            return self._table(symbols, node)
        match leaf:
            case Made(Build(fields), levels) if isinstance(node, Record):
                return self._record(fields, node, levels, path)
            case Made(Items(rules), levels) if isinstance(node, Array):
                return self._items(rules, node, levels, path)
            case Listed() if isinstance(node, Array):
                return self._list(leaf, node, path)
            case Wire(slot) if isinstance(slot.action, ReadRecord) and isinstance(node, Record):
                return merged(p for f in node.fields for p in self.write(stepped(leaf, f.name), f.type, path))
            case Wire(slot) if isinstance(slot.action, ReadArray) and isinstance(node, Array):
                return self._list(Listed(slot, ()), node, path)
            case Words(parts) if node == STRING:
                return (wire.WriteText(parts),)
            case Joined(parts, by) if node == STRING:
                return (wire.WriteJoin(parts, utf8(by)),)
        if isinstance(node, Primitive | Fixed):
            return self._number(leaf, node, path)
        raise Unlowered(f"Python makes {name_of(node)} of it")

    def _record(
        self, fields: tuple[tuple[str, Rule], ...], node: Record, levels: Levels, path: str
    ) -> tuple[Piece, ...]:
        rules = dict(fields)
        pieces: list[Piece] = []
        for field in node.fields:
            at = f"{path}.{field.name}" if path else field.name
            pieces += self.field(rules[field.name], field.type, levels, at)
        return merged(pieces)

    def _items(self, rules: tuple[Rule, ...], node: Array, levels: Levels, path: str) -> tuple[Piece, ...]:
        pieces = list(raw(varint(len(rules)) if rules else b""))
        for i, rule in enumerate(rules):
            pieces += self.field(rule, node.items, levels, f"{path}[{i}]")
        return merged((*pieces, wire.Raw(b"\0")))

    def _list(self, leaf: Listed, node: Array, path: str) -> tuple[Piece, ...]:
        item = leaf.slot.children[0].again()
        levels: Levels = (*leaf.levels, Wire(item))
        where = self._where(leaf, levels)
        if leaf.each is None:
            pieces = merged(self.write(Wire(item), node.items, path))
        else:
            pieces = merged(self.field(leaf.each, node.items, levels, f"{path}[]"))
        if where is None and pieces == (Span(item, item),):
            return (Span(leaf.slot, leaf.slot),)
        return (ForEach(leaf.slot, item, where, pieces),)

    def _where(self, leaf: Listed, levels: Levels) -> wire.Condition | None:
        tree = self.condition(AllOf(leaf.where), levels)
        if tree is TRUE:
            return None
        where = condition_of(tree)
        if where is None:
            raise Unlowered("a condition of the list may refuse the record")
        return where

    def _number(self, leaf: Leaf, node: Primitive | Fixed, path: str) -> tuple[Piece, ...]:
        found = moment(leaf)
        if found is not None and found[0] == "timestamp" and node == MICROS:
            return (wire.WriteNumber(found[1], 64),)
        amount = as_amount(leaf)
        if amount is None or amount.whole != is_integer(node):
            raise Unlowered(f"Python makes {name_of(node)} of it")
        if is_integer(node):
            limit = 2**31 if node == INT else 2**63
            number: Piece = wire.WriteNumber(amount.value, 32 if node == INT else 64)
            covered = _covers(amount, -limit, limit - 1)
        else:
            limits = decimal_of(node)
            size = node.size if isinstance(node, Fixed) else 0
            if limits is None or amount.scale > limits.scale or (isinstance(node, Fixed) and not size):
                raise Unlowered(f"Python makes {name_of(node)} of it")
            limit, step = 10**limits.precision, 10 ** (limits.scale - amount.scale)
            amount = rescaled(amount, limits.scale)
            number = wire.WriteDecimal(amount.value, limits.precision, size)
            covered = _covers(amount, step - limit, limit - step)
        return (number,) if covered else self.write(spread(amount), node, path)


def _covers(amount: Amount, low: int, high: int) -> bool:
    """Whether writing no more than from `low` to `high` refuses all that the rule refuses."""
    return amount.within is None or (amount.within[0] <= low and high <= amount.within[1])


def raw(data: bytes) -> tuple[Piece, ...]:
    return (wire.Raw(data),) if data else ()


def _class_of(leaf: Leaf) -> str:
    """As `class_of`, of a value."""
    match leaf:
        case Wire(slot):
            return class_of(slot.action)
        case Amount(whole=whole):
            return "int" if whole else "decimal"
        case Words() | Joined():
            return "string"
        case Made(Build()):
            return "dict"
    return "list"
