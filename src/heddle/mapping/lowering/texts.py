"""Texts that are put together: parts of constants, of the source's own bytes, of numbers in plain notation."""

from __future__ import annotations

from collections.abc import Sequence

from heddle.mapping.lowering.numbers import as_amount
from heddle.mapping.lowering.slots import Unlowered
from heddle.mapping.lowering.values import (
    NOTHING,
    Fixed,
    Fork,
    Joined,
    Leaf,
    Nothing,
    Refused,
    Tree,
    Wire,
    Words,
    any_of,
    combined,
    each_leaf,
    fork,
    is_text,
    opened,
    rowed,
    settled,
    utf8,
)
from heddle.mapping.texts import as_text
from heddle.wire import plan as wire


def joined(parts: Sequence[Tree], by: str, *, skip_null: bool) -> Tree:
    """The text of a `Join`. Its parts refuse nothing later, so that it may be dropped where another value is null."""
    settled_parts = [each_leaf(opened(part), settled) for part in parts]
    if not skip_null:
        return combined(settled_parts, lambda found: _text(_between([said(leaf) for leaf in found], by)))
    optional = [part for part in map(_optional, settled_parts) if part is not None]
    marks = [wire.Present(part.present) for part in optional if part.present != wire.UNSET]
    if len(optional) < len(parts) or not marks:
        return combined(settled_parts, lambda found: _there(found, by), of_null=True)
    leaf = Joined(tuple(optional), by)
    return fork(any_of(marks), leaf, NOTHING) if len(marks) == len(parts) else leaf


def _optional(part: Tree) -> wire.JoinPart | None:
    """A part that is there always, or where one mark is set; None for one that must be decided otherwise."""
    match part:
        case Fork(wire.Present(mark), then, Nothing()) if not isinstance(then, Fork | Nothing | Refused):
            return wire.JoinPart(said(then), mark)
        case Fork() | Nothing() | Refused():
            return None
    return wire.JoinPart(said(part))


def _there(found: tuple[Leaf, ...], by: str) -> Tree:
    there = [said(leaf) for leaf in found if not isinstance(leaf, Nothing)]
    return _text(_between(there, by)) if there else NOTHING


def _text(parts: tuple[wire.Part, ...]) -> Leaf:
    if all(isinstance(part, wire.Said) for part in parts):
        return Fixed(b"".join(part.data for part in parts if isinstance(part, wire.Said)).decode())
    return Words(parts)


def said(leaf: Leaf) -> tuple[wire.Part, ...]:
    """A value as parts of a text. Raises `Unlowered` for what instructions cannot spell."""
    match leaf:
        case Words(parts):
            return parts
        case Fixed(value):
            text = as_text(value)
            return (wire.Said(utf8(text)),) if text else ()
        case Wire(slot) if is_text(leaf):
            return (wire.Content(slot.content, slot.end),)
    table = rowed(leaf)
    if table is not None:
        rows = (utf8(as_text(row.value)) if isinstance(row, Fixed) else None for row in table.rows)
        return (wire.Picked(table.number, tuple(rows)),)
    amount = as_amount(leaf)
    if amount is None or not amount.spelled:
        raise Unlowered("it spells a value that only Python spells")
    if amount.scale < 0:
        return (wire.Digits(wire.Multiply((amount.value, wire.Exact(10**-amount.scale)))),)
    return (wire.Digits(amount.value, amount.scale),)


def _between(parts: Sequence[tuple[wire.Part, ...]], by: str) -> tuple[wire.Part, ...]:
    """Parts with a separator between them; constants side by side become one."""
    separator = (wire.Said(utf8(by)),) if by else ()
    made: list[wire.Part] = []
    for i, part in enumerate(parts):
        for piece in (*separator, *part) if i else part:
            last = made[-1] if made else None
            if isinstance(piece, wire.Said) and isinstance(last, wire.Said):
                made[-1] = wire.Said(last.data + piece.data)
            else:
                made.append(piece)
    return tuple(made)
