"""A mapping over bytes, as data: how to walk what one writer wrote, and what to write of it. Every engine runs this.

A plan is made of registers and three little languages. **Marks** are byte positions in the input record, **numbers**
are exact whole numbers (of any size; an engine of bounded width refuses what it cannot hold). The **walk** follows the
writer's bytes from first to last, checks each value as the codec would, and sets registers on its way. **Emits** write
the output from these registers, in the target's order. **Calls** are Python functions, for what has no instruction:
they get the bytes of their arguments and give bytes.

An engine either does a record exactly as the mapping's reference would, or **refuses** it: then the object path does
it again, and finds the words for what is wrong. So a plan needs no error messages, and no engine is ever asked why.

Registers that lie in a union are unset (mark -1) before the union is read; whether one is set afterwards says whether
its branch was there. An array's item registers are overwritten with every item.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from hashlib import sha256
from typing import Any, Final

FORMAT: Final = 1
UNSET: Final = -1

# Values: exact whole numbers


@dataclass(frozen=True, slots=True)
class Number:
    """A number register."""

    number: int


@dataclass(frozen=True, slots=True)
class Exact:
    """A constant, of any size. In JSON a decimal string."""

    value: int


@dataclass(frozen=True, slots=True)
class Add:
    parts: tuple[Value, ...]


@dataclass(frozen=True, slots=True)
class Subtract:
    left: Value
    right: Value


@dataclass(frozen=True, slots=True)
class Multiply:
    """Also what brings decimals to one scale: times a power of ten."""

    parts: tuple[Value, ...]


Value = Number | Exact | Add | Subtract | Multiply

# The walk. `begin` and `end` are marks around the value as it is written, union index and length included.


@dataclass(frozen=True, slots=True)
class Null:
    begin: int = UNSET
    end: int = UNSET


@dataclass(frozen=True, slots=True)
class Boolean:
    """Refused unless 0 or 1, which `number` gets."""

    begin: int = UNSET
    end: int = UNSET
    number: int = UNSET


@dataclass(frozen=True, slots=True)
class Integer:
    """A zig-zag varint of at most `bits` (32 or 64), within `low` and `high` where these are not None (a date, a
    timestamp: bounds included)."""

    bits: int
    low: int | None = None
    high: int | None = None
    begin: int = UNSET
    end: int = UNSET
    number: int = UNSET


@dataclass(frozen=True, slots=True)
class Real:
    """A float or double: `size` bytes, anything goes."""

    size: int
    begin: int = UNSET
    end: int = UNSET


@dataclass(frozen=True, slots=True)
class Text:
    """Length and UTF-8, which is checked. `content`: mark after the length. `uuid`: refused unless 36 characters,
    hexadecimal in lower case, hyphens where they belong: what is spelt otherwise the codec refuses or rewrites."""

    uuid: bool = False
    begin: int = UNSET
    end: int = UNSET
    content: int = UNSET


@dataclass(frozen=True, slots=True)
class Bytes:
    """Length and bytes, unchecked."""

    begin: int = UNSET
    end: int = UNSET


@dataclass(frozen=True, slots=True)
class Fixed:
    size: int
    begin: int = UNSET
    end: int = UNSET


@dataclass(frozen=True, slots=True)
class Decimal:
    """Two's complement, big-endian, of `size` bytes; with a length before it where `size` is 0, and then refused when
    empty. Refused with more than `digits` digits. `number` gets the unscaled value."""

    digits: int
    size: int = 0
    begin: int = UNSET
    end: int = UNSET
    number: int = UNSET


@dataclass(frozen=True, slots=True)
class Enum:
    """An index below `symbols`, which `number` gets."""

    symbols: int
    begin: int = UNSET
    end: int = UNSET
    number: int = UNSET


@dataclass(frozen=True, slots=True)
class Fold:
    """`number` starts at 0 with the array, and after each item it grows by `value`."""

    number: int
    value: Value


@dataclass(frozen=True, slots=True)
class Array:
    """Blocks of items; a negative count has a size in bytes after it, which is not looked at but for its sign.
    An item takes at least `item_bytes`; a block that claims more than the record has left is refused, and so is any
    item where that is 0. `count` (a number) gets the items of all blocks."""

    items: Walk
    item_bytes: int
    begin: int = UNSET
    end: int = UNSET
    count: int = UNSET
    folds: tuple[Fold, ...] = ()


@dataclass(frozen=True, slots=True)
class Map:
    """As an array of keys (texts) and values. A key that comes twice is refused: the codec would keep one."""

    values: Walk
    begin: int = UNSET
    end: int = UNSET


@dataclass(frozen=True, slots=True)
class Union:
    """Refused unless the index names one of `branches`. `number` gets the index."""

    branches: tuple[Walk, ...]
    begin: int = UNSET
    end: int = UNSET
    number: int = UNSET


@dataclass(frozen=True, slots=True)
class Record:
    fields: tuple[Walk, ...]
    begin: int = UNSET
    end: int = UNSET


Walk = Null | Boolean | Integer | Real | Text | Bytes | Fixed | Decimal | Enum | Array | Map | Union | Record

# Conditions


@dataclass(frozen=True, slots=True)
class Present:
    """The mark is set."""

    mark: int


@dataclass(frozen=True, slots=True)
class Compare:
    """`relation`: `==`, `<` or `>`."""

    left: Value
    relation: str
    right: Value


@dataclass(frozen=True, slots=True)
class AmongTexts:
    """The bytes between two marks are one of `values`. The marks are set."""

    content: int
    end: int
    values: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class AmongNumbers:
    number: int
    values: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Holds:
    """The call gave b"\\x01" and not b"\\x00"."""

    call: int


@dataclass(frozen=True, slots=True)
class Not:
    of: Condition


@dataclass(frozen=True, slots=True)
class All:
    """In order, up to the first that does not hold. Without any: true."""

    of: tuple[Condition, ...]


@dataclass(frozen=True, slots=True)
class AnyOf:
    """In order, up to the first that holds. Without any: false."""

    of: tuple[Condition, ...]


Condition = Present | Compare | AmongTexts | AmongNumbers | Holds | Not | All | AnyOf

# Parts of a text


@dataclass(frozen=True, slots=True)
class Said:
    """Bytes of a constant text."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Content:
    """The text between two marks."""

    content: int
    end: int


@dataclass(frozen=True, slots=True)
class Digits:
    """A number in plain notation with `scale` digits after the point: 1250 with scale 2 is `12.50`, -5 is `-0.05`."""

    value: Value
    scale: int = 0


@dataclass(frozen=True, slots=True)
class Picked:
    """The row of a number register that is an index. Refused where the row is None."""

    number: int
    rows: tuple[bytes | None, ...]


Part = Said | Content | Digits | Picked

# Emits


@dataclass(frozen=True, slots=True)
class Raw:
    data: bytes


@dataclass(frozen=True, slots=True)
class Copy:
    """The input from mark to mark: one value, or several that lie side by side. The marks are set."""

    first: int
    last: int


@dataclass(frozen=True, slots=True)
class WriteText:
    """Length, then the parts one after the other."""

    parts: tuple[Part, ...]


@dataclass(frozen=True, slots=True)
class JoinPart:
    """Left out, with its separator, where `present` is a mark that is not set."""

    parts: tuple[Part, ...]
    present: int = UNSET


@dataclass(frozen=True, slots=True)
class WriteJoin:
    """Length, then what is there of `parts`, with `by` between. (That something is there, an `If` around it says.)"""

    parts: tuple[JoinPart, ...]
    by: bytes


@dataclass(frozen=True, slots=True)
class WriteNumber:
    """A zig-zag varint. Refused beyond `bits` (32 or 64)."""

    value: Value
    bits: int


@dataclass(frozen=True, slots=True)
class WriteDecimal:
    """Two's complement, with its length: as the codec (and fastavro) writes it, in one byte more than the magnitude's
    whole bytes, `bit_length // 8 + 1`, so -128 takes two. In `size` bytes where that is not 0. Refused with more than
    `digits` digits."""

    value: Value
    digits: int
    size: int = 0


@dataclass(frozen=True, slots=True)
class Pick:
    """The row of a number register that is an index, as it stands. Refused where the row is None."""

    number: int
    rows: tuple[bytes | None, ...]


@dataclass(frozen=True, slots=True)
class Lookup:
    """The row of the text between two marks, as it stands. Where there is none: `otherwise`, refused if that is
    None."""

    content: int
    end: int
    rows: tuple[tuple[bytes, bytes], ...]
    otherwise: bytes | None = None


@dataclass(frozen=True, slots=True)
class If:
    condition: Condition
    then: tuple[Emit, ...]
    otherwise: tuple[Emit, ...]


@dataclass(frozen=True, slots=True)
class Refuse:
    """Always: a rule that only fails."""


@dataclass(frozen=True, slots=True)
class Each:
    """An array made of the array that begins at the mark `begin` and was walked already: `items` is walked again for
    each item, with registers of its own, then `where` is asked (None: holds), then `emits` write. One block with its
    count, then 0; 0 alone where nothing is left. Holds no calls."""

    begin: int
    items: Walk
    where: Condition | None
    emits: tuple[Emit, ...]


@dataclass(frozen=True, slots=True)
class Spliced:
    """What a call gave: the bytes of a whole value."""

    call: int


Emit = Raw | Copy | WriteText | WriteJoin | WriteNumber | WriteDecimal | Pick | Lookup | If | Refuse | Each | Spliced


@dataclass(frozen=True, slots=True)
class Argument:
    """Bytes from mark to mark as the writer wrote them; None where `first` is not set."""

    first: int
    last: int


@dataclass(frozen=True, slots=True)
class Call:
    """`does` says which rule, for people and the digest; the engine gets the function itself beside the plan."""

    arguments: tuple[Argument, ...]
    does: str


@dataclass(frozen=True, slots=True)
class Key:
    """The record key `tenant/entity` (`heddle.contracts.keys`): each percent-escaped UTF-8, but for A-Z a-z 0-9 and
    `- . _ ~`. One entity is its text; several are each escaped, joined by '/', and escaped again. No tenant: `default`.
    With a `call` that alone gives the whole key, and the rest is empty. Where a part of it is not there, the emits
    refuse the record."""

    entities: tuple[tuple[Part, ...], ...] = ()
    tenant: tuple[Part, ...] | None = None
    call: int = UNSET


@dataclass(frozen=True, slots=True)
class WirePlan:
    """One mapping for one writer's schema. `mapping` is the SHA-256 (hex) of the checked mapping. Input or output of
    more bytes than these, each with its frame of 5, is refused.

    `marks`, `numbers`: how many registers there are. A record for which `when` does not hold gives no output. Calls
    are made when their result is first used, or all before the first emit, as an engine likes; one that raises refuses
    the record. Arguments of a call are not read inside of an array's items."""

    mapping: str
    walk: Record
    when: Condition | None
    emits: tuple[Emit, ...]
    key: Key
    max_input_bytes: int
    max_output_bytes: int
    marks: int
    numbers: int
    calls: tuple[Call, ...] = ()

    def json(self) -> str:
        """Canonical: sorted keys, no spaces. Each part is an object with `op`, the snake-case name of its class;
        bytes are hex; `Exact.value` is a decimal string."""
        told = {"format": FORMAT, **_told(self)}
        return json.dumps(told, sort_keys=True, separators=(",", ":"))

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of the JSON."""
        return sha256(self.json().encode()).hexdigest()


def _told(part: Any) -> Any:
    match part:
        case None | bool() | int() | str():
            return part
        case bytes():
            return part.hex()
        case tuple():
            return [_told(item) for item in part]
        case Exact():
            return {"op": "exact", "value": str(part.value)}
    told: Mapping[str, Any] = {field.name: _told(getattr(part, field.name)) for field in fields(part)}
    return {"op": _snake(type(part).__name__), **told}


def _snake(name: str) -> str:
    return "".join(f"_{c.lower()}" if c.isupper() else c for c in name).lstrip("_")
