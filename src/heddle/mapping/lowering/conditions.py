"""Conditions as trees of `TRUE`, `FALSE` and `REFUSED`, and such a tree as one condition of a plan."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from heddle.contracts.resolution import ReadEnum
from heddle.mapping.lowering.numbers import as_amount, moment, rescaled
from heddle.mapping.lowering.rules import Rules, decided
from heddle.mapping.lowering.slots import Unlowered
from heddle.mapping.lowering.values import (
    FALSE,
    REFUSED,
    TRUE,
    Fixed,
    Fork,
    Leaf,
    Levels,
    Looked,
    Nothing,
    Refused,
    Rowed,
    Tree,
    Wire,
    combined,
    each_leaf,
    fork,
    is_text,
    leaves,
    rowed,
    spread,
    utf8,
)
from heddle.mapping.rules import AllOf, AnyOf, Compare, Condition, Not, OneOf, Present
from heddle.wire import plan as wire

_MIRRORED: Final = {"<": ">", ">": "<"}


class Conditions(Rules):
    """Asks what conditions ask."""

    def asked(self, condition: Condition, levels: Levels) -> Tree:
        """As `condition`, but raises `Unlowered` where only Python can answer."""
        match condition:
            case Present(of):
                given = [self.tree(of, levels)]
                return combined(given, lambda found: _truth(not isinstance(found[0], Nothing)), of_null=True)
            case Compare(left, relation, right):
                sides = [self.tree(left, levels), self.tree(right, levels)]
                return combined(sides, lambda found: self.compared(found[0], relation, found[1]), of_null=True)
            case OneOf(of, values):
                given = [self.tree(rule, levels) for rule in (of, *values)]
                return combined(given, self._one_of, of_null=True)
            case AllOf(conditions):
                tree: Tree = TRUE
                for inner in reversed(conditions):
                    tree = decided(self.condition(inner, levels), tree, FALSE)
                return tree
            case AnyOf(conditions):
                tree = FALSE
                for inner in reversed(conditions):
                    tree = decided(self.condition(inner, levels), TRUE, tree)
                return tree
            case Not(inner):
                return decided(self.condition(inner, levels), FALSE, TRUE)
        raise AssertionError(condition)

    def _one_of(self, found: tuple[Leaf, ...]) -> Tree:
        given, *others = found
        known = [leaf.value for leaf in others if isinstance(leaf, Fixed)]
        if len(known) == len(others):
            table = rowed(given)
            if table is not None:
                return _by_row(table, lambda value: value in known)
            if isinstance(given, Wire) and is_text(given):
                return _among_texts(given, [str(value) for value in known])
        tree: Tree = FALSE
        for other in reversed(others):
            tree = decided(self.compared(given, "==", other), TRUE, tree)
        return tree

    def compared(self, left: Leaf, relation: str, right: Leaf) -> Tree:
        """A comparison with null is false."""
        if isinstance(left, Refused) or isinstance(right, Refused):
            return REFUSED
        if isinstance(left, Nothing) or isinstance(right, Nothing):
            return FALSE
        if isinstance(left, Fixed) and isinstance(right, Fixed):
            return _truth(_compared_in_python(left.value, relation, right.value))
        if isinstance(left, Fixed) or (isinstance(right, Rowed | Looked) and not isinstance(left, Rowed | Looked)):
            return self.compared(right, _MIRRORED.get(relation, relation), left)
        table = rowed(left)
        if table is not None and isinstance(right, Fixed):
            known = right.value
            return _by_row(table, lambda value: _compared_in_python(value, relation, known))
        if isinstance(left, Rowed | Looked):
            return each_leaf(spread(left), lambda leaf: self.compared(leaf, relation, right))
        return _compared_in_registers(left, relation, right)


def _truth(holds: bool) -> Fixed:
    return TRUE if holds else FALSE


def _fork(condition: wire.Condition) -> Tree:
    return fork(condition, TRUE, FALSE)


def _by_row(table: Rowed, holds: Callable[[Any], bool]) -> Tree:
    indexes = tuple(i for i, row in enumerate(table.rows) if isinstance(row, Fixed) and holds(row.value))
    if len(indexes) in (0, len(table.rows)):
        return _truth(bool(indexes))
    return _fork(wire.AmongNumbers(table.number, indexes))


def _among_texts(leaf: Wire, texts: Sequence[str]) -> Tree:
    return _fork(wire.AmongTexts(leaf.slot.content, leaf.slot.end, tuple(map(utf8, texts)))) if texts else FALSE


def _compared_in_python(left: Any, relation: str, right: Any) -> bool:
    if relation == "==":
        return bool(left == right)
    return bool(left < right) if relation == "<" else bool(left > right)


def _compared_in_registers(left: Leaf, relation: str, right: Leaf) -> Tree:
    if relation == "==" and isinstance(left, Wire) and is_text(left) and isinstance(right, Fixed):
        return _among_texts(left, [str(right.value)])
    if relation == "==" and isinstance(left, Wire) and isinstance(right, Wire) and _same_rows(left, right):
        return _fork(wire.Compare(wire.Number(left.slot.number), "==", wire.Number(right.slot.number)))
    one, other = as_amount(left), as_amount(right)
    if one is not None and other is not None:
        scale = max(one.scale, other.scale)
        return _fork(wire.Compare(rescaled(one, scale).value, relation, rescaled(other, scale).value))
    moments = moment(left), moment(right)
    if moments[0] is not None and moments[1] is not None and moments[0][0] == moments[1][0]:
        return _fork(wire.Compare(moments[0][1], relation, moments[1][1]))
    raise Unlowered("it compares what only Python compares")


def _same_rows(left: Wire, right: Wire) -> bool:
    """Two enums whose indexes mean the same symbols, or two booleans."""
    one, other = left.slot.action, right.slot.action
    if isinstance(one, ReadEnum) and isinstance(other, ReadEnum):
        return one.symbols == other.symbols and len(set(one.symbols)) == len(one.symbols)
    return rowed(left) is not None and rowed(right) is not None and type(one) is type(other)


def condition_of(tree: Tree) -> wire.Condition | None:
    """The tree as one condition; None where it may refuse."""
    if any(leaf is REFUSED for leaf in leaves(tree)):
        return None
    return _condition(tree)


def _condition(tree: Tree) -> wire.Condition:
    if not isinstance(tree, Fork):
        return wire.All(()) if tree is TRUE else wire.AnyOf(())
    asked, then, otherwise = tree.condition, tree.then, tree.otherwise
    if then is TRUE:
        return asked if otherwise is FALSE else _any(asked, _condition(otherwise))
    if otherwise is FALSE:
        return _all(asked, _condition(then))
    if then is FALSE:
        return wire.Not(asked) if otherwise is TRUE else _all(wire.Not(asked), _condition(otherwise))
    if otherwise is TRUE:
        return _any(wire.Not(asked), _condition(then))
    return _any(_all(asked, _condition(then)), _all(wire.Not(asked), _condition(otherwise)))


def _all(first: wire.Condition, second: wire.Condition) -> wire.Condition:
    return wire.All((first, *(second.of if isinstance(second, wire.All) else (second,))))


def _any(first: wire.Condition, second: wire.Condition) -> wire.Condition:
    return wire.AnyOf((first, *(second.of if isinstance(second, wire.AnyOf) else (second,))))
