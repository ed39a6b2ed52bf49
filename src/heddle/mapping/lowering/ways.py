"""Which way a target field is made, in words for people."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final, Literal, NamedTuple

from heddle.mapping.lowering.pieces import Either, ForEach, Piece, Span
from heddle.wire import plan as wire


class Way(NamedTuple):
    """`why` is a clause."""

    way: Literal["copied", "constant", "instructions", "call"]
    why: str


_TOLD: Final[dict[type, str]] = {
    Either: "decided by what the source holds",
    wire.Pick: "looked up in a table",
    wire.Lookup: "looked up in a table",
    wire.WriteText: "put together as text",
    wire.WriteJoin: "put together as text",
    wire.WriteNumber: "computed exactly",
    wire.WriteDecimal: "computed exactly",
    ForEach: "item by item",
    wire.Refuse: "may refuse the record",
    wire.Spliced: "a part of it in Python",
}


def way_of(pieces: Iterable[Piece], *, reads: bool) -> Way:
    """Of a field that these pieces write; `reads`: its rule reads the source."""
    kinds = set(map(type, pieces)) - {wire.Raw}
    if not kinds:
        return Way("constant", "the writer lacks what it reads: defaults" if reads else "the same for every record")
    if kinds == {Span}:
        return Way("copied", "the source's bytes are the target's")
    return Way("instructions", ", ".join(dict.fromkeys(_told(pieces))))


def _told(pieces: Iterable[Piece]) -> Iterator[str]:
    for piece in pieces:
        if type(piece) in _TOLD:
            yield _TOLD[type(piece)]
        match piece:
            case Either(_, then, otherwise):
                yield from _told((*then, *otherwise))
            case ForEach(pieces=inner):
                yield from _told(inner)
