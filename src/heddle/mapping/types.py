"""What a rule yields: an Avro type, whether it may be null, and what the rule permits when it meets its target."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from heddle.contracts.schema import NULL, Array, Enum, Fixed, Logical, Map, Node, Primitive, Record, Union


class Type(NamedTuple):
    """`rounding`: the rule stated a rounding, so a target of smaller scale may be rounded to.
    `computed`: the value was calculated, so a narrower target is guarded at run time instead of refused at import."""

    node: Node
    nullable: bool = False
    rounding: str = ""
    computed: bool = False

    def __str__(self) -> str:
        return f"{name_of(self.node)}{' or null' if self.nullable else ''}"


STRING: Final = Primitive("string")
INT: Final = Primitive("int")
LONG: Final = Primitive("long")
DOUBLE: Final = Primitive("double")
BOOLEAN: Final = Primitive("boolean")
BYTES: Final = Primitive("bytes")
DATE: Final = Primitive("int", Logical("date"))
MILLIS: Final = Primitive("long", Logical("timestamp-millis"))
MICROS: Final = Primitive("long", Logical("timestamp-micros"))
NEVER: Final = Primitive("never")
"""The type of a rule that only fails: it fits everywhere, because nothing ever comes of it."""

INTEGER_DIGITS: Final = {"int": 10, "long": 19}


class Unfit(Exception):
    """A rule that cannot be right, in one sentence; becomes a line of `MappingDeclarationError`."""


def type_of(node: Node) -> Type:
    """Splits null off: ["null", X] is X or null. Unions of several other types stay whole."""
    if not isinstance(node, Union) or node.null_index is None:
        return Type(node, node == NULL)
    others = tuple(branch for branch in node.branches if branch != NULL)
    return Type(others[0] if len(others) == 1 else Union(others), nullable=True)


def logical_of(node: Node) -> str:
    logical = node.logical if isinstance(node, Primitive | Fixed) else None
    return logical.name if logical else ""


def name_of(node: Node) -> str:
    """As people read it: `array of string`, `enum InvoiceStatus`, `record Line`."""
    match node:
        case Array():
            return f"array of {type_of(node.items)}"
        case Map():
            return f"map of {type_of(node.values)}"
        case Enum():
            return f"enum {node.name.rpartition('.')[2]}"
        case Record():
            return f"record {node.short_name}"
        case _:
            return str(node)


def decimal_of(node: Node) -> Logical | None:
    """Precision and scale, of a decimal or of a whole number; None for anything else."""
    if isinstance(node, Primitive | Fixed) and node.logical and node.logical.name == "decimal":
        return node.logical
    if isinstance(node, Primitive) and node.logical is None and node.kind in INTEGER_DIGITS:
        return Logical("decimal", INTEGER_DIGITS[node.kind], 0)
    return None


def is_integer(node: Node) -> bool:
    return node in (INT, LONG)


def decimal(precision: int, scale: int) -> Primitive:
    return Primitive("bytes", Logical("decimal", precision, scale))


def same(have: Node, want: Node, inside: frozenset[tuple[int, int]] = frozenset()) -> bool:
    """Whether every value of `have` is a value of `want` exactly as it stands."""
    pair = (id(have), id(want))
    if pair in inside:
        return True
    inside |= {pair}
    match have, want:
        case Enum(), Enum():
            return set(have.symbols) <= set(want.symbols)
        case Fixed(), Fixed():
            return (have.size, have.logical) == (want.size, want.logical)
        case Array(), Array():
            return same(have.items, want.items, inside)
        case Map(), Map():
            return same(have.values, want.values, inside)
        case Union(), Union():
            return all(any(same(h, w, inside) for w in want.branches) for h in have.branches)
        case _, Union():
            return any(same(have, branch, inside) for branch in want.branches)
        case Record(), Record():
            return _same_fields(have, want, inside)
        case _:
            return have == want


def _same_fields(have: Record, want: Record, inside: frozenset[tuple[int, int]]) -> bool:
    mine, theirs = ({f.name: f.type for f in record.fields} for record in (have, want))
    return mine.keys() == theirs.keys() and all(same(mine[name], theirs[name], inside) for name in mine)


def closest(name: str, known: Any) -> str:
    """` (did you mean x?)`, or what there is when nothing is near."""
    from difflib import get_close_matches

    names = sorted(known)
    near = get_close_matches(name, names, n=1)
    if near:
        return f"; did you mean {near[0]}?"
    return f"; there are: {', '.join(names)}" if names else ""
