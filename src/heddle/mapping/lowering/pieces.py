"""The output in pieces, before spans that lie side by side are one copy, and before their marks are known."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from heddle.mapping.lowering.slots import Slot
from heddle.wire import plan as wire


@dataclass(frozen=True, slots=True)
class Span:
    """The source's bytes from the first value to the last, fields of one record side by side."""

    first: Slot
    last: Slot


@dataclass(frozen=True, slots=True)
class Either:
    condition: wire.Condition
    then: tuple[Piece, ...]
    otherwise: tuple[Piece, ...]


@dataclass(frozen=True, slots=True)
class ForEach:
    """`item` is the root of a walk of its own."""

    slot: Slot
    item: Slot
    where: wire.Condition | None
    pieces: tuple[Piece, ...]


Piece = wire.Emit | Span | Either | ForEach


def merged(pieces: Iterable[Piece]) -> tuple[Piece, ...]:
    """What lies side by side in the source as one span, constants side by side as one."""
    made: list[Piece] = []
    for piece in pieces:
        last = made[-1] if made else None
        if isinstance(piece, wire.Raw) and isinstance(last, wire.Raw):
            made[-1] = wire.Raw(last.data + piece.data)
            continue
        made.append(whole(piece) if isinstance(piece, Span) else piece)
        while len(made) > 1 and (span := _together(made[-2], made[-1])):
            made[-2:] = [span]
    return tuple(made)


def _together(left: Piece, right: Piece) -> Span | None:
    if not isinstance(left, Span) or not isinstance(right, Span) or right.first.before is not left.last:
        return None
    return whole(Span(left.first, right.last))


def whole(span: Span) -> Span:
    """A span of all fields of a record is the record."""
    while span.first.record is not None and span.first.before is None and span.last.is_last:
        span = Span(span.first.record, span.first.record)
    return span


def emits_of(pieces: Sequence[Piece]) -> tuple[wire.Emit, ...]:
    return tuple(_emit(piece) for piece in merged(pieces))


def _emit(piece: Piece) -> wire.Emit:
    match piece:
        case Span(first, last):
            return wire.Copy(first.begin, last.end)
        case Either(condition, then, otherwise):
            return wire.If(condition, emits_of(then), emits_of(otherwise))
        case ForEach(slot, item, where, inner):
            emits = emits_of(inner)
            return wire.Each(slot.begin, item.walk(), where, emits)
    return piece
