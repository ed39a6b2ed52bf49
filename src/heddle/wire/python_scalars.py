"""Generated code that walks single values: one variable per position, short cuts for what is usually short.

The code reads past the end without looking: a slice is then short and an index raises, and the final check that the
position is the record's length catches what neither did.

Texts are not checked one by one. From a text on, everything that takes one byte (a length, an index, a small number)
is ASCII, so a run of texts and such bytes is UTF-8 if and only if each of its texts is. `r` is where the run began;
whatever may hold other bytes ends or interrupts it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from heddle.contracts.codegen import Refused, Source
from heddle.wire import python_runtime as runtime
from heddle.wire.plan import Decimal, Integer
from heddle.wire.python_expressions import Place
from heddle.wire.python_registers import Registers

SHORT: Final = 63
"""The most bytes of a value whose length takes one byte."""

SMALL: Final = (*((number >> 1) ^ -(number & 1) for number in range(128)), *(None,) * 128)
"""The numbers of one byte. None: there are more bytes."""

NAMES: Final[dict[str, Any]] = {
    "Refused": Refused,
    "SMALL": SMALL,
    "UNRESERVED": runtime.UNRESERVED,
    "number_in": int.from_bytes,
    **{
        name: getattr(runtime, name)
        for name in (
            "decimal_at", "escaped_text", "number_at", "past_bytes", "past_decimal", "past_number",
            "past_number_within", "past_text", "text_at", "uuid_at",
        )
    },
}  # fmt: skip


@dataclass(slots=True)
class ScalarWriter:
    """Emits code that reads bytes `d`. Each method takes the position of a value and returns the one behind it.

    `read`: the registers that anybody reads. `checks`: False for bytes that were walked before. `run`: whether there
    are texts since `r` that are not checked yet."""

    source: Source
    read: Registers
    checks: bool = True
    run: bool = False

    def fresh(self) -> Place:
        return Place(self.source.fresh("p"))

    def variable(self, number: int) -> str:
        """That of a number which anybody reads."""
        return f"n{number}" if number in self.read.numbers else ""

    # Runs of texts

    def begin_run(self, at: Place) -> None:
        if self.checks and not self.run:
            self.source.add(f"r = {at}")
            self.run = True

    def end_run(self, at: Place) -> None:
        if self.run:
            self.source.add(f"d[r:{at}].decode()")
            self.run = False

    @contextmanager
    def interruption(self, at: Place, after: Place) -> Iterator[None]:
        """What lies between these is not ASCII, or was checked apart; the run goes on behind it."""
        if self.run:
            self.source.add(f"d[r:{at}].decode()")
        yield
        if self.run:
            self.source.add(f"r = {after}")

    # Values

    def boolean(self, at: Place, name: str) -> Place:
        if name:
            self.source.add(f"{name} = d[{at}]")
        if self.checks:
            self.source.add(f"if {name or f'd[{at}]'} > 1: raise Refused")
        return at + 1

    def index(self, at: Place, name: str, count: int) -> Place:
        """An index below `count`. One below 64 that is longer than a byte is longer than it need be."""
        if count <= SHORT + 1:
            indexes = self._named(f"INDEX_{count}", {2 * index: index for index in range(count)})
            self.source.add(f"{name} = {indexes}[d[{at}]]" if name else f"if d[{at}] not in {indexes}: raise Refused")
            return at + 1
        self.end_run(at)
        after, name = self.fresh(), name or self.source.fresh("i")
        self.source.add(f"{name}, {after} = number_at(d, {at}, 64)")
        self.source.add(f"if not 0 <= {name} < {count}: raise Refused")
        return after

    def integer(self, at: Place, name: str, walk: Integer) -> Place:
        after = self.fresh()
        bounds = f"{walk.low}, {walk.high}" if self.checks and walk.low is not None else ""
        if name:
            self.source.add(f"{name} = SMALL[d[{at}]]")
            with self.source.block(f"if {name} is None:"), self.interruption(at, after):
                self.source.add(f"{name}, {after} = number_at(d, {at}, {walk.bits})")
            self.source.add(f"else: {after} = {at + 1}")
            if bounds:
                self.source.add(f"if not {walk.low} <= {name} <= {walk.high}: raise Refused")
            return after
        if bounds and (size := _usual_bytes(walk)):
            self.end_run(at)
            self.source.add(f"if {_is_usual(at, size, walk)}: {after} = {at + size}")
        else:
            self.source.add(f"if d[{at}] < {_one_byte_end(walk) if bounds else 128}: {after} = {at + 1}")
        with self.source.block("else:"), self.interruption(at, after):
            if bounds:
                self.source.add(f"{after} = past_number_within(d, {at}, {walk.bits}, {bounds})")
            else:
                self.source.add(f"{after} = past_number(d, {at}, {'4, 15' if walk.bits == 32 else '9, 1'})")
        return after

    def uuid(self, at: Place) -> Place:
        """It is ASCII, with its length."""
        if self.checks:
            self.source.add(f"if not uuid_at(d, {at}): raise Refused")
        return at + 37

    def text(self, at: Place) -> Place:
        self.begin_run(at)
        after = self._short(at)
        with self.source.block(f"if {after} == {at.name or 0}:"), self.interruption(at, after):
            self.source.add(f"{after} = past_text(d, {at})")
        return after

    def content(self, at: Place) -> tuple[Place, Place]:
        """A text: where its content begins and ends."""
        self.begin_run(at)
        start, after = self.fresh(), self._short(at)
        with self.source.block(f"if {after} == {at.name or 0}:"), self.interruption(at, after):
            self.source.add(f"{start}, {after} = text_at(d, {at})")
        self.source.add(f"else: {start} = {at + 1}")
        return start, after

    def entity(self, at: Place, name: str) -> tuple[Place, Place]:
        """As `content`, for the text that is the key's entity: where it needs no escapes, it needs no check."""
        start, after = self.fresh(), self._short(at)
        self.source.add(f"if {after} == {at.name or 0}: {start}, {after} = text_at(d, {at})")
        self.source.add(f"else: {start} = {at + 1}")
        self.source.add(f"{name} = d[{start}:{after}]")
        self.source.add(f"if {name}.strip(UNRESERVED): {name} = escaped_text({name})")
        return start, after

    def bytes(self, at: Place) -> Place:
        self.end_run(at)
        after = self._short(at)
        self.source.add(f"if {after} == {at.name or 0}: {after} = past_bytes(d, {at})")
        return after

    def skip(self, at: Place, size: int) -> Place:
        """A value of so many bytes of any kind."""
        self.end_run(at)
        return at + size

    def decimal(self, at: Place, name: str, walk: Decimal) -> Place:
        self.end_run(at)
        bound = 10**walk.digits
        limit = self._named(f"TEN_{walk.digits}", bound)
        most = bound.bit_length() // 8  # so many bytes hold no number of more digits
        if walk.size:
            return self._fixed_decimal(at, name, walk.size, "" if walk.size <= most else limit)
        after = self._short(at, least=1, most=min(most, SHORT))
        if name:
            self.source.add(f"if {after} == {at.name or 0}: {name}, {after} = decimal_at(d, {at}, {limit})")
            self.source.add(f'else: {name} = number_in(d[{at + 1}:{after}], "big", signed=True)')
        else:
            self.source.add(f"if {after} == {at.name or 0}: {after} = past_decimal(d, {at}, {limit})")
        return after

    def _fixed_decimal(self, at: Place, name: str, size: int, limit: str) -> Place:
        checked = self.checks and limit
        if name or checked:
            name = name or self.source.fresh("i")
            self.source.add(f'{name} = number_in(d[{at}:{at + size}], "big", signed=True)')
        if checked:
            self.source.add(f"if not -{limit} < {name} < {limit}: raise Refused")
        return at + size

    def _short(self, at: Place, least: int = 0, most: int = SHORT) -> Place:
        """A length of `least` to `most` and so many bytes. If it is another, then the variable has the value of that
        of `at` (0 where there is none), and the caller is to see to it."""
        after, name = self.fresh(), f"END_{at.offset}_{least}_{most}"
        if name not in self.source.names:
            ends = {2 * size: at.offset + 1 + size for size in range(least, most + 1)}
            self.source.names[name] = tuple(ends.get(byte, 0) for byte in range(256))
        self.source.add(f"{after} = {at.name + ' + ' if at.name else ''}{name}[d[{at}]]")
        return after

    def _named(self, name: str, value: Any) -> str:
        self.source.names.setdefault(name, value)
        return name


def _usual_bytes(walk: Integer) -> int:
    """The most bytes of a number that is within the bounds whatever it is, unless it is negative. Most numbers have
    so many: three for a date (1992 to 4840), six for a timestamp in milliseconds (1970 to 2039), eight in microseconds
    (1978 to 3111). 0 for a time of day: what is usual of these may be too late."""
    assert walk.low is not None
    assert walk.high is not None
    end = min(walk.high + 1, 1 << walk.bits - 1)  # the bounds may be those of a wider reader
    return end.bit_length() // 7 if walk.low < 0 else 0


def _is_usual(at: Place, size: int, walk: Integer) -> str:
    """Whether a number has just so many bytes (all but the last have their high bit set, and the last is not 0) and is
    within the bounds. One whose first byte is odd is negative."""
    assert walk.low is not None
    mask = int.from_bytes(b"\x80" * size, "big")
    least = -1 << 7 * size - 1
    odd = 0 if walk.low <= least else 1 << 8 * (size - 1)
    return f"number_in(d[{at}:{at + size}]) & {mask | odd} == {mask - 128} and d[{at + (size - 1)}]"


def _one_byte_end(walk: Integer) -> int:
    """All bytes below this are numbers within the bounds."""
    assert walk.low is not None
    assert walk.high is not None
    return next((byte for byte in range(128) if not walk.low <= (byte >> 1) ^ -(byte & 1) <= walk.high), 128)
