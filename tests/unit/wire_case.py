"""Plans written by hand, each with records and what comes of them. Every engine runs them all: the first definition of
what a plan means that is not an engine's code."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from heddle.wire import plan as p
from heddle.wire.plan import WirePlan

WRITER: Final = b"\x00\x00\x00\x00\x07"
FRAME: Final = b"\x00\x00\x00\x00\x09"
MAX_BYTES: Final = 2_000
REFUSED: Final = "refused"
LEFT_OUT: Final = "left out"

Expected = tuple[bytes, bytes] | str
"""Key and body (no frame), or REFUSED or LEFT_OUT."""


@dataclass(frozen=True)
class Case:
    """`records`: a body as the writer wrote it, and what is expected."""

    name: str
    plan: WirePlan
    records: tuple[tuple[bytes, Expected], ...]
    functions: tuple[Callable[..., bytes], ...] = ()


def varint(number: int) -> bytes:
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes((*out, number))


def num(number: int) -> bytes:
    return varint(number << 1 if number >= 0 else ~(number << 1))


def text(content: str | bytes) -> bytes:
    data = content.encode() if isinstance(content, str) else content
    return num(len(data)) + data


def decimal(*data: int) -> bytes:
    return text(bytes(data))


def listed(*items: bytes) -> bytes:
    return num(len(items)) + b"".join(items) + b"\0" if items else b"\0"


def keyed(content: int = 0, end: int = 1) -> p.Key:
    return p.Key(((p.Content(content, end),),))


ID: Final = p.Text(content=0, end=1)
"""The first field of most plans: the entity of the key. Marks 0 and 1."""


N: Final = p.Number(0)
TEXT, OTHER_TEXT = p.Text(content=2, end=3), p.Text(content=4, end=5)
MAYBE_TEXT: Final = p.Union((p.Null(), p.Text(content=8, end=9)))
X, Z, Y = text("x"), text("z"), b"\2" + text("y")
"""Two texts, and one that may be there."""


def plan(
    *fields: p.Walk,
    emits: tuple[p.Emit, ...],
    when: p.Condition | None = None,
    key: p.Key | None = None,
    calls: tuple[p.Call, ...] = (),
    max_input: int = MAX_BYTES,
    max_output: int = MAX_BYTES,
) -> WirePlan:
    """A record of ID and then `fields`."""
    return WirePlan(
        mapping="ab" * 32,
        walk=p.Record((ID, *fields)),
        when=when,
        emits=emits,
        key=key or keyed(),
        max_input_bytes=max_input,
        max_output_bytes=max_output,
        marks=40,
        numbers=20,
        calls=calls,
    )


def copying(name: str, walk: p.Walk, good: tuple[bytes, ...], bad: tuple[bytes, ...]) -> Case:
    """A value between two texts (`walk` has marks 2 and 3) is copied, if it is good."""
    made = plan(walk, p.Text(begin=4, end=5), emits=(p.Copy(2, 3), p.Copy(4, 5)))
    behind = text("süß")
    accepted = tuple((text("k") + data + behind, (b"default/k", data + behind)) for data in good)
    return Case(name, made, accepted + tuple((text("k") + data + behind, REFUSED) for data in bad))


def writing(
    name: str,
    emits: tuple[p.Emit, ...],
    *records: tuple[bytes, bytes | str],
    fields: tuple[p.Walk, ...] = (),
) -> Case:
    """What `emits` write of `fields`: pairs of fields' bytes and the body (or REFUSED)."""
    expected = tuple(
        (text("k") + data, (b"default/k", out) if isinstance(out, bytes) else out) for data, out in records
    )
    return Case(name, plan(*fields, emits=emits), expected)


def numbers(name: str, emit: p.Emit, *records: tuple[int, bytes | str]) -> Case:
    """What an emit writes of a long, number 0."""
    walk = p.Integer(64, number=0)
    return writing(name, (emit,), *((num(number), out) for number, out in records), fields=(walk,))


def nested(depth: int, leaf: p.Walk, begin: int = p.UNSET, end: int = p.UNSET) -> p.Union:
    """A value inside of so many unions."""
    return p.Union((p.Null(), nested(depth - 1, leaf) if depth > 1 else leaf), begin=begin, end=end)


def asked(
    name: str, condition: p.Condition, *records: tuple[bytes, bool], fields: tuple[p.Walk, ...] = (TEXT, MAYBE_TEXT)
) -> Case:
    """Whether a condition holds: as the branch of an emit, turned round, and as what leaves a record out."""
    emits = (p.If(condition, (p.Raw(b"yes"),), (p.Raw(b"no"),)), p.If(p.Not(condition), (), (p.Raw(b"!"),)))
    expected: list[tuple[bytes, Expected]] = []
    for data, holds in records:
        expected.append((text("k") + data, (b"default/k", b"yes!") if holds else LEFT_OUT))
    made = plan(*fields, emits=emits, when=p.AnyOf((p.All((condition, condition)), p.AnyOf(()))))
    return Case(f"ask {name}", made, tuple(expected))
