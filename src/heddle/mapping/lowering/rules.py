"""Rules as trees of leaves (`lower_values`)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

from heddle.contracts.resolution import ReadArray, ReadMap, ReadRecord
from heddle.contracts.values import default_value
from heddle.mapping.lowering.numbers import amounts, as_amount, computed, total
from heddle.mapping.lowering.slots import Unlowered
from heddle.mapping.lowering.texts import joined
from heddle.mapping.lowering.values import (
    FALSE,
    NOTHING,
    REFUSED,
    TRUE,
    Amount,
    Fixed,
    Leaf,
    Levels,
    Listed,
    Looked,
    Made,
    Nothing,
    Plain,
    Refused,
    Tree,
    Wire,
    combined,
    each_leaf,
    each_value,
    is_text,
    leaves,
    opened,
    per_row,
    rowed,
    spread,
)
from heddle.mapping.numbers import AS_FLOAT, COUNT, ROUND
from heddle.mapping.rules import (
    Apply,
    Build,
    Call,
    Choose,
    Condition,
    Constant,
    Default,
    Each,
    Fail,
    Filter,
    First,
    Items,
    Join,
    Rule,
    Table,
    Take,
    Total,
    typed,
)
from heddle.mapping.types import is_integer
from heddle.wire import plan as wire

_MAX_COUNT: Final = 2**31 - 1
_INTERNAL: Final = {ROUND.name: "it rounds", AS_FLOAT.name: "it makes a float of a number"}
"""Why Python does what the checker put in, and no author wrote."""


class Rules(ABC):
    """Makes trees of rules. Raises `Unlowered` for what has no instructions."""

    @abstractmethod
    def condition(self, condition: Condition, levels: Levels) -> Tree:
        """A tree of `TRUE`, `FALSE` and `REFUSED`."""

    @abstractmethod
    def compared(self, left: Leaf, relation: str, right: Leaf) -> Tree:
        """The same of two values that are neither null nor refused."""

    def tree(self, rule: Rule, levels: Levels) -> Tree:
        match rule:
            case Take():
                return _taken(rule, levels)
            case Constant(value):
                return _constant(value)
            case Fail():
                return REFUSED
            case Default(of, fallback):
                return self._default(self.tree(of, levels), fallback, levels)
            case Choose():
                return self._choose(rule, levels)
            case Join(parts, by, skip_null):
                return joined([self.tree(part, levels) for part in parts], by, skip_null=skip_null)
            case Apply():
                args = [self.tree(arg, levels) for arg in rule.args]
                return combined(args, lambda found: self._applied(rule, found))
            case Table():
                return each_value(self.tree(rule.of, levels), lambda key: self._row(rule, key, levels))
            case Build() | Items():
                return Made(rule, levels)
            case Each(of, inner):
                return each_value(self.tree(of, levels), lambda leaf: _each(leaf, inner, levels))
            case Filter(of, where):
                return each_value(self.tree(of, levels), lambda leaf: _filtered(leaf, where, levels))
            case Total():
                return each_value(self.tree(rule.of, levels), lambda leaf: self._total(rule, leaf, levels))
            case First():
                raise Unlowered("it takes the first item of a list")
            case Call():
                raise Unlowered("it is a Python function")
        raise AssertionError(rule)

    def _default(self, of: Tree, fallback: Rule, levels: Levels) -> Tree:
        given = opened(of)
        if not any(isinstance(leaf, Nothing) for leaf in leaves(given)):
            return given
        instead = self.tree(fallback, levels)
        return each_leaf(given, lambda leaf: instead if isinstance(leaf, Nothing) else leaf)

    def _choose(self, rule: Choose, levels: Levels) -> Tree:
        tree = self.tree(rule.otherwise, levels)
        for condition, then in reversed(rule.branches):
            tree = decided(self.condition(condition, levels), self.tree(then, levels), tree)
        return tree

    def _applied(self, rule: Apply, found: tuple[Leaf, ...]) -> Tree:
        """A built-in function of values that are not null."""
        if all(isinstance(leaf, Fixed) for leaf in found):
            return _worked_out(rule, [leaf.value for leaf in found if isinstance(leaf, Fixed)])
        if rule.operation is COUNT:
            return _counted(found[0])
        if len(found) == 1:
            rows = per_row(found[0], lambda row: self._applied(rule, (row,)) if isinstance(row, Fixed) else row)
            if rows is not None:
                return rows
        why = _INTERNAL.get(rule.operation.name, f"{rule.operation.name}() is done in Python")
        if any(as_amount(leaf) is None and rowed(leaf) is None and not isinstance(leaf, Looked) for leaf in found):
            raise Unlowered(why)
        return combined([amounts(leaf) for leaf in found], lambda given: _computed(rule, given, why))

    def _row(self, rule: Table, key: Leaf, levels: Levels) -> Tree:
        """What a table has for a key that is not null."""
        if isinstance(key, Fixed):
            row = next((row for known, row in rule.rows if known == key.value), rule.otherwise)
            return REFUSED if row is None else self.tree(row, levels)
        if isinstance(key, Nothing | Refused):
            return key
        by_row = per_row(key, lambda row: self._row(rule, row, levels))
        if by_row is not None:
            return by_row
        rows = [(known, self.tree(row, levels)) for known, row in rule.rows]
        otherwise = REFUSED if rule.otherwise is None else self.tree(rule.otherwise, levels)
        plain = tuple((str(known), row) for known, row in rows if isinstance(row, Plain))
        if isinstance(key, Wire) and is_text(key) and len(plain) == len(rows) and isinstance(otherwise, Plain):
            return Looked(key.slot, plain, otherwise)
        return each_leaf(spread(rowed(key) or key), lambda leaf: self._row_of(leaf, rows, otherwise))

    def _row_of(self, key: Leaf, rows: Sequence[tuple[Any, Tree]], otherwise: Tree) -> Tree:
        if isinstance(key, Refused):
            return key
        tree = otherwise
        for known, row in reversed(rows):
            tree = decided(self.compared(key, "==", Fixed(known)), row, tree)
        return tree

    def _total(self, rule: Total, leaf: Leaf, levels: Levels) -> Tree:
        if rule.currency is not None:
            raise Unlowered("it compares the currencies of the items")
        if not isinstance(leaf, Wire) or not isinstance(leaf.slot.action, ReadArray) or rule.rule is None:
            raise Unlowered("it adds over what is no list of the source as it stands")
        # While a list is walked, what lies behind it is not known yet; nor is a union's branch for the next item.
        inside: Levels = (*(None for _ in levels), Wire(leaf.slot.children[0]))
        item = amounts(self.tree(rule.rule, inside))
        if not isinstance(item, Amount):
            raise Unlowered("it adds what must be decided for each item")
        return total(leaf.slot, item, is_integer(typed(rule).node))


def _taken(rule: Take, levels: Levels) -> Tree:
    tree = levels[-1 - rule.up]
    if tree is None:
        raise Unlowered("it adds what lies outside of the items")
    for step in rule.steps:
        tree = stepped(tree, step.name)
    return tree


def stepped(tree: Tree, name: str) -> Tree:
    """One field of a record; null where that is null."""
    return each_value(tree, lambda leaf: _field(leaf, name))


def _field(leaf: Leaf, name: str) -> Tree:
    match leaf:
        case Wire(slot) if isinstance(slot.action, ReadRecord):
            if name in slot.fields:
                return Wire(slot.fields[name])
            absent = next(field for field in slot.action.defaulted if field.name == name)
            return _constant(default_value(absent.type, absent.default))
        case Wire(slot) if isinstance(slot.action, ReadMap):
            raise Unlowered("it reads a key of a map")
        case Fixed(dict() as value):
            return _constant(value.get(name))
    raise Unlowered("it reads a field of what the mapping made")


def _constant(value: Any) -> Plain:
    return NOTHING if value is None else Fixed(value)


def decided(condition: Tree, then: Tree, otherwise: Tree) -> Tree:
    """One of two trees, by a tree of `TRUE`, `FALSE` and `REFUSED`."""
    return each_leaf(condition, lambda leaf: then if leaf is TRUE else otherwise if leaf is FALSE else REFUSED)


def _each(leaf: Leaf, inner: Rule, levels: Levels) -> Tree:
    match leaf:
        case Listed(each=None):
            return replace(leaf, each=inner)
        case Wire(slot) if isinstance(slot.action, ReadArray):
            return Listed(slot, levels, (), inner)
        case Fixed([]):
            return leaf
    raise Unlowered("its list is made in Python")


def _filtered(leaf: Leaf, where: Condition, levels: Levels) -> Tree:
    match leaf:
        case Listed(each=None):
            return replace(leaf, where=(*leaf.where, where))
        case Wire(slot) if isinstance(slot.action, ReadArray):
            return Listed(slot, levels, (where,))
        case Fixed([]):
            return leaf
    raise Unlowered("its list is made in Python")


def _counted(leaf: Leaf) -> Tree:
    if isinstance(leaf, Wire) and isinstance(leaf.slot.action, ReadArray):
        return Amount(wire.Number(leaf.slot.number), 0, True, 0, _MAX_COUNT)
    raise Unlowered("it counts what is no list of the source as it stands")


def _computed(rule: Apply, given: tuple[Leaf, ...], why: str) -> Tree:
    result = computed(rule, [leaf for leaf in given if isinstance(leaf, Amount)])
    if result is None:
        raise Unlowered(why)
    return result


def _worked_out(rule: Apply, values: list[Any]) -> Tree:
    """A function of constants. Whatever it raises, the object path meets it again, and says it."""
    function = rule.operation.make(tuple(typed(arg) for arg in rule.args), dict(rule.params))
    try:
        return _constant(function(*values))
    except Exception:
        return REFUSED
