"""What a rule gives, before anything is known of a record: a tree of conditions with values at its leaves.

A leaf says how its value is made of registers. Forks carry null and refusals as well: "null where the union holds
null" is a fork with the leaf `NOTHING`, "refused where the table lacks the key" one with the leaf `REFUSED`. So a rule
that works on values works on the leaves of its arguments, and knows nothing of what is around them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from heddle.contracts.resolution import ReadEnum, ReadScalar, ReadUnion
from heddle.mapping.lowering.slots import Slot, Unlowered, is_null
from heddle.mapping.rules import Condition, Rule
from heddle.wire import plan as wire

MAX_LEAVES: Final = 24
"""More ways than these through one rule are no gain over calling it, and nest deeper than engines should have to."""


@dataclass(frozen=True, slots=True, eq=False)
class Nothing:
    """Null."""


@dataclass(frozen=True, slots=True, eq=False)
class Refused:
    """The record is not done here."""


@dataclass(frozen=True, slots=True, eq=False)
class Fixed:
    """A native value that is the same in every record."""

    value: Any


@dataclass(frozen=True, slots=True, eq=False)
class Wire:
    """A value as the writer wrote it."""

    slot: Slot


@dataclass(frozen=True, slots=True, eq=False)
class Amount:
    """An exact number: `value` times ten to the power of `-scale`. `whole`: an int, and no Decimal.

    `low` and `high` bound `value` whatever the record holds. `within`: the rule refuses what is not in these bounds,
    and nothing has checked it yet. `spelled`: as text it has just `scale` digits after its point."""

    value: wire.Value
    scale: int
    whole: bool
    low: int
    high: int
    within: tuple[int, int] | None = None
    spelled: bool = True


@dataclass(frozen=True, slots=True, eq=False)
class Words:
    """A text of parts, one after the other."""

    parts: tuple[wire.Part, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Joined:
    """A text of those parts that are there."""

    parts: tuple[wire.JoinPart, ...]
    by: str


@dataclass(frozen=True, slots=True, eq=False)
class Rowed:
    """One of several leaves, by a number register that is an index."""

    number: int
    rows: tuple[Plain, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Looked:
    """One of several leaves, by a text."""

    slot: Slot
    rows: tuple[tuple[str, Plain], ...]
    otherwise: Plain


@dataclass(frozen=True, slots=True, eq=False)
class Made:
    """A record or a list that a rule puts together: known when it is written."""

    rule: Rule
    levels: Levels


@dataclass(frozen=True, slots=True, eq=False)
class Listed:
    """The items of an array for which `where` holds, each made by a rule if there is one."""

    slot: Slot
    levels: Levels
    where: tuple[Condition, ...] = ()
    each: Rule | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Fork:
    condition: wire.Condition
    then: Tree
    otherwise: Tree


Plain = Nothing | Refused | Fixed
Leaf = Plain | Wire | Amount | Words | Joined | Rowed | Looked | Made | Listed
Tree = Leaf | Fork
Levels = tuple[Tree | None, ...]
"""The enclosing values, the innermost last. None: cannot be reached from here."""

NOTHING: Final = Nothing()
REFUSED: Final = Refused()
TRUE: Final = Fixed(True)
FALSE: Final = Fixed(False)


def leaves(tree: Tree) -> Iterator[Leaf]:
    if isinstance(tree, Fork):
        yield from leaves(tree.then)
        yield from leaves(tree.otherwise)
    else:
        yield tree


def fork(condition: wire.Condition, then: Tree, otherwise: Tree) -> Tree:
    """Asks nothing twice on one way, and nothing in vain. Raises `Unlowered` for a tree that got too large."""
    then, otherwise = _assuming(then, condition, True), _assuming(otherwise, condition, False)
    if then is otherwise and not _may_refuse(condition):
        return then
    made = Fork(condition, then, otherwise)
    if sum(1 for _ in leaves(made)) > MAX_LEAVES:
        raise Unlowered(f"there are more than {MAX_LEAVES} ways through it")
    return made


def _assuming(tree: Tree, condition: wire.Condition, holds: bool) -> Tree:
    if not isinstance(tree, Fork):
        return tree
    if tree.condition == condition:
        return _assuming(tree.then if holds else tree.otherwise, condition, holds)
    then, otherwise = (_assuming(inner, condition, holds) for inner in (tree.then, tree.otherwise))
    if then is tree.then and otherwise is tree.otherwise:
        return tree
    in_vain = then is otherwise and not _may_refuse(tree.condition)
    return then if in_vain else Fork(tree.condition, then, otherwise)


def _may_refuse(condition: wire.Condition) -> bool:
    """A call is made even where nothing depends on its answer: it may have none."""
    match condition:
        case wire.Holds():
            return True
        case wire.Not(of):
            return _may_refuse(of)
        case wire.All(of) | wire.AnyOf(of):
            return any(map(_may_refuse, of))
    return False


def each_leaf(tree: Tree, change: Callable[[Leaf], Tree]) -> Tree:
    """The tree with every leaf changed; a change may put forks there."""
    if not isinstance(tree, Fork):
        return change(tree)
    return fork(tree.condition, each_leaf(tree.then, change), each_leaf(tree.otherwise, change))


def each_value(tree: Tree, change: Callable[[Leaf], Tree]) -> Tree:
    """Null stays null, a refusal a refusal; other leaves are opened as far as shows whether they are one of these."""
    return each_leaf(opened(tree), lambda leaf: leaf if isinstance(leaf, Nothing | Refused) else change(leaf))


def combined(trees: Sequence[Tree], combine: Callable[[tuple[Leaf, ...]], Tree], *, of_null: bool = False) -> Tree:
    """What several values together give: refused where one is, else null where one is. `of_null`: null is handed to
    `combine` like any value."""
    given = [opened(tree) for tree in trees]
    if of_null or (len(given) > 1 and any(isinstance(leaf, Nothing) for tree in given for leaf in leaves(tree))):
        # A refusal may not get lost where another value alone decides.
        given = [each_leaf(tree, settled) for tree in given]
    return _combined(given, (), combine, of_null)


def _combined(
    trees: Sequence[Tree], before: tuple[Leaf, ...], combine: Callable[[tuple[Leaf, ...]], Tree], of_null: bool
) -> Tree:
    if trees:
        return each_leaf(trees[0], lambda leaf: _combined(trees[1:], (*before, leaf), combine, of_null))
    if any(isinstance(leaf, Refused) for leaf in before):
        return REFUSED
    if not of_null and any(isinstance(leaf, Nothing) for leaf in before):
        return NOTHING
    return combine(before)


def opened(tree: Tree) -> Tree:
    """Every leaf is null, refused, or surely neither null nor a union."""
    return each_leaf(tree, _opened)


def _opened(leaf: Leaf) -> Tree:
    match leaf:
        case Wire(slot) if isinstance(slot.action, ReadUnion):
            return _branches(slot)
        case Wire(slot) if is_null(slot):
            return NOTHING
        case Fixed(None):
            return NOTHING
        case Rowed(rows=rows) if any(isinstance(row, Nothing) for row in rows):
            return spread(leaf)
        case Looked(rows=pairs, otherwise=otherwise):
            null = isinstance(otherwise, Nothing) or any(isinstance(row, Nothing) for _, row in pairs)
            return spread(leaf) if null else leaf
    return leaf


def _branches(slot: Slot) -> Tree:
    """The value of the branch that is there. Null is looked for last, by the others' marks."""
    found = sorted(slot.children, key=is_null)
    if not found:
        return REFUSED
    tree = _opened(Wire(found[-1]))
    for branch in reversed(found[:-1]):
        tree = fork(wire.Present(branch.begin), _opened(Wire(branch)), tree)
    return tree


def spread(leaf: Leaf) -> Tree:
    """A leaf that stands for several as forks; an amount with its bounds checked."""
    match leaf:
        case Rowed(number, rows):
            tree: Tree | None = None
            for row in dict.fromkeys(reversed(rows)):
                indexes = tuple(i for i, other in enumerate(rows) if other is row)
                tree = row if tree is None else fork(wire.AmongNumbers(number, indexes), row, tree)
            return tree or REFUSED
        case Looked(slot, pairs, otherwise):
            tree = otherwise
            for key, row in reversed(pairs):
                tree = fork(wire.AmongTexts(slot.content, slot.end, (utf8(key),)), row, tree)
            return tree
        case Amount(within=(low, high)):
            checked = replace(leaf, within=None, low=max(low, leaf.low), high=min(high, leaf.high))
            outside: list[wire.Condition] = []
            if leaf.low < low:
                outside.append(wire.Compare(leaf.value, "<", wire.Exact(low)))
            if leaf.high > high:
                outside.append(wire.Compare(leaf.value, ">", wire.Exact(high)))
            return fork(any_of(outside), REFUSED, checked) if outside else checked
    return leaf


def any_of(conditions: Sequence[wire.Condition]) -> wire.Condition:
    return conditions[0] if len(conditions) == 1 else wire.AnyOf(tuple(conditions))


def settled(leaf: Leaf) -> Tree:
    """A leaf as it must be where it may be dropped: whatever its rule refuses is refused by a fork, and nothing later.
    Raises `Unlowered` for what cannot be known before it is written."""
    match leaf:
        case Rowed(rows=rows) if any(isinstance(row, Refused) for row in rows):
            return spread(leaf)
        case Looked(rows=pairs, otherwise=otherwise):
            refuses = isinstance(otherwise, Refused) or any(isinstance(row, Refused) for _, row in pairs)
            return spread(leaf) if refuses else leaf
        case Amount():
            return spread(leaf)
        case Made() | Listed(where=(_, *_)) | Listed(each=Rule()):
            raise Unlowered("a record or list is made only to be looked at")
    return leaf


def rowed(leaf: Leaf) -> Rowed | None:
    """A leaf of few possible values as rows: a table, an enum, a boolean."""
    match leaf:
        case Rowed():
            return leaf
        case Wire(slot) if isinstance(slot.action, ReadEnum):
            known = {symbol: Fixed(symbol) for symbol in slot.action.symbols}
            return Rowed(slot.number, tuple(known[symbol] for symbol in slot.action.symbols))
        case Wire(slot) if isinstance(slot.action, ReadScalar) and slot.action.kind == "boolean":
            return Rowed(slot.number, (FALSE, TRUE))
    return None


def per_row(leaf: Leaf, change: Callable[[Plain], Tree]) -> Tree | None:
    """A change made row by row, where the leaf has rows and the change keeps them plain; else None."""
    match leaf:
        case Looked(slot, pairs, otherwise):
            changed = [(key, change(row)) for key, row in pairs]
            last = change(otherwise)
            plain = tuple((key, row) for key, row in changed if isinstance(row, Plain))
            return Looked(slot, plain, last) if len(plain) == len(pairs) and isinstance(last, Plain) else None
        case Fixed() | Nothing() | Refused():
            return change(leaf)
    table = rowed(leaf)
    if table is None:
        return None
    known = {row: change(row) for row in dict.fromkeys(table.rows)}
    rows = tuple(row for row in (known[row] for row in table.rows) if isinstance(row, Plain))
    return Rowed(table.number, rows) if len(rows) == len(table.rows) else None


def is_text(leaf: Leaf) -> bool:
    """A text whose bytes are those that the codec would write."""
    action = leaf.slot.action if isinstance(leaf, Wire) else None
    return isinstance(action, ReadScalar) and action.becomes == "string"


def utf8(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise Unlowered("a text that UTF-8 cannot say") from None
