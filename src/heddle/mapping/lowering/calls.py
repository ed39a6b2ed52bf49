"""Rules without instructions as calls: a Python function over the bytes of those source values that the rule reads.

The function decodes its arguments as the source's codec would, runs the rule as compiled for the object path, and
encodes what comes of it as the target's codec would."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import partial
from typing import Any, Final, NamedTuple

from heddle.contracts.decode_compiler import Decoder, compile_decoder
from heddle.contracts.encode_compiler import compile_encoder
from heddle.contracts.limits import Limits
from heddle.contracts.resolution import ReadRecord, ReadUnion
from heddle.contracts.schema import Node
from heddle.contracts.shapes import DictShape
from heddle.contracts.values import default_value
from heddle.mapping.compile import Native, compile_part
from heddle.mapping.lowering.slots import Slot, is_null
from heddle.mapping.rules import Branch, Condition, Each, Filter, First, Rule, Step, Take, Total
from heddle.mapping.wording import asked, in_words
from heddle.wire import plan as wire
from heddle.wire.engine import Function

_PER_ITEM: Final[dict[type, tuple[str, ...]]] = {
    Each: ("rule",), Filter: ("where",), Total: ("rule", "currency"), First: ("rule",),
}  # fmt: skip
"""What of a rule is said of each item, where a path begins one level further in."""

Path = tuple[str, ...]


class Reached(NamedTuple):
    """How far a path goes through records: to bytes, or to a default that the writer's schema lacks."""

    path: Path
    slot: Slot | None
    default: Callable[[], Any] | None = None


@dataclass(slots=True)
class Calls:
    """The calls of one plan, and their functions. `label`: of which contracts, for tracebacks."""

    root: Slot
    label: str
    limits: Limits
    calls: list[wire.Call] = field(default_factory=list)
    functions: list[Function] = field(default_factory=list)

    def value(self, rule: Rule, node: Node, target: str) -> int:
        """A call for the bytes of a target value."""
        encode = compile_encoder(node, DictShape(), self.limits, target)

        def encoded(value: Any) -> bytes:
            out = bytearray()
            encode(out, value)
            return bytes(out)

        return self.add(rule, target, encoded)

    def holds(self, condition: Condition) -> int:
        """A call for a condition."""
        return self.add(condition, "", lambda holds: b"\1" if holds else b"\0")

    def add(self, part: Rule | Condition, target: str, finish: Callable[[Any], bytes]) -> int:
        """A call for what `finish` makes of a rule's value."""
        reached = _fewest([_reach(self.root, take) for take in _taken(part, 0)])
        moved = _moved(part, 0, reached)
        slots = {_name(known.path): known.slot for known in reached if known.slot is not None}
        decoders = {
            name: compile_decoder(slot.action, DictShape(), self.limits, 0, f"{self.label} {name}")
            for name, slot in slots.items()
        }
        defaults = {_name(known.path): known.default for known in reached if known.default is not None}
        arguments = tuple(wire.Argument(slot.begin, slot.end) for slot in slots.values())
        self.calls.append(wire.Call(arguments, _does(part, target)))
        self.functions.append(_function(decoders, defaults, compile_part(moved, target, self.label), finish))
        return len(self.calls) - 1

    def forget(self, count: int) -> None:
        """Keep the first `count` calls only: what the others were for became a call itself."""
        del self.calls[count:], self.functions[count:]


def _does(part: Rule | Condition, target: str) -> str:
    return f"{target}: {in_words(part)}" if isinstance(part, Rule) else asked(part)


def _function(
    decoders: dict[str, Decoder],
    defaults: dict[str, Callable[[], Any]],
    mapped: Callable[[Native], Any],
    finish: Callable[[Any], bytes],
) -> Function:
    def function(*arguments: bytes | None) -> bytes:
        pairs = zip(decoders.items(), arguments, strict=True)
        source = {name: None if data is None else decode(data) for (name, decode), data in pairs}
        for name, default in defaults.items():
            source[name] = default()
        return finish(mapped(source))

    return function


def _taken(part: Any, inside: int) -> Iterator[Take]:
    """Every path of a rule that begins at the root; `inside` counts the lists around."""
    if isinstance(part, Take):
        if part.up == inside:
            yield part
    elif isinstance(part, Rule | Condition):
        for _, value, deeper in _parts(part):
            yield from _taken(value, inside + deeper)
    elif isinstance(part, tuple):
        for value in part:
            yield from _taken(value, inside)


def _moved(part: Any, inside: int, reached: Sequence[Reached]) -> Any:
    """The same rule over a flat dict of what its paths reach."""
    match part:
        case Take():
            return _moved_take(part, reached) if part.up == inside else part
        case Rule() | Condition():
            moved = {name: _moved(value, inside + deeper, reached) for name, value, deeper in _parts(part)}
            return replace(part, **moved)  # type: ignore[type-var]
        case Branch(condition, then):
            return Branch(_moved(condition, inside, reached), _moved(then, inside, reached))
        case tuple() if not hasattr(part, "_fields"):
            return tuple(_moved(value, inside, reached) for value in part)
    return part


def _parts(part: Rule | Condition) -> Iterator[tuple[str, Any, int]]:
    """Name and value of what a rule is made of, and 1 for what is said of each item."""
    per_item = _PER_ITEM.get(type(part), ())
    for named in fields(part):  # type: ignore[arg-type]
        yield named.name, getattr(part, named.name), int(named.name in per_item)


def _moved_take(take: Take, reached: Sequence[Reached]) -> Take:
    names = tuple(step.name for step in take.steps)
    path = next(known.path for known in reached if names[: len(known.path)] == known.path)
    return replace(take, steps=(Step(_name(path), False, False), *take.steps[len(path) :]))


def _reach(root: Slot, take: Take) -> Reached:
    """Through records as far as there are any, and through a union that has one branch beside null."""
    path: Path = ()
    slot, sure = root, True
    for step in take.steps:
        inside = slot
        if isinstance(slot.action, ReadUnion):
            branches = [branch for branch in slot.children if not is_null(branch)]
            if len(branches) != 1:
                break
            inside, sure = branches[0], False
        if not isinstance(inside.action, ReadRecord):
            break
        if step.name not in inside.fields:
            if not sure:
                break
            absent = next(field for field in inside.action.defaulted if field.name == step.name)
            return Reached((*path, step.name), None, partial(default_value, absent.type, absent.default))
        slot, path = inside.fields[step.name], (*path, step.name)
    return Reached(path, slot)


def _fewest(found: Sequence[Reached]) -> list[Reached]:
    """Without those that lie inside of others, each once."""
    kept: dict[Path, Reached] = {}
    for known in found:
        inside = any(
            other.path == known.path[: len(other.path)] for other in found if len(other.path) < len(known.path)
        )
        if not inside:
            kept.setdefault(known.path, known)
    return list(kept.values())


def _name(path: Path) -> str:
    return ".".join(path) or "."
