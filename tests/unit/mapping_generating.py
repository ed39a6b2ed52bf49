"""Random rules over any source contract, drawn by what they yield, for property tests of mappings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

from hypothesis import strategies as st

from heddle.contracts.schema import Array, Enum, Map, Node, Primitive, Record
from heddle.errors import ContractError
from heddle.mapping import (
    above,
    add,
    all_of,
    any_of,
    below,
    call,
    choose,
    constant,
    count_of,
    default,
    divide,
    enum,
    equals,
    fail,
    filtered,
    first_of,
    join,
    lookup,
    lower,
    multiply,
    not_,
    one_of,
    present,
    required,
    strip,
    subtract,
    take,
    text,
    to_date,
    to_decimal,
    to_integer,
    to_timestamp,
    total_of,
    truncate,
    upper,
    when,
)  # fmt: skip
from heddle.mapping.texts import is_text
from heddle.mapping.types import DOUBLE, LONG, decimal_of, logical_of, type_of

Draw = Callable[[st.SearchStrategy[Any]], Any]

WORDS = ["", "a", "A", "red", " x ", "12", "12.505", "2024-02-30", "2024-03-31", "2024-03-31T02:30:00", "ß"]
ZONES = ["UTC", "Europe/Berlin", "Asia/Kolkata", "America/St_Johns"]
ROUNDINGS = ["half-even", "half-up", "half-down", "up", "down", "ceiling", "floor"]
MAP_KEYS = ("colour", "size")

words = st.sampled_from(WORDS)
moments = st.datetimes(datetime(1900, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC))
days = st.dates(date(1900, 1, 1), date(2100, 1, 1))


@dataclass
class Paths:
    """What rules can take of one level (the source, or a list's item), by what it yields."""

    texts: list[str] = field(default_factory=list)
    numbers: list[str] = field(default_factory=list)
    floats: list[str] = field(default_factory=list)
    longs: list[str] = field(default_factory=list)
    days: list[str] = field(default_factory=list)
    moments: list[str] = field(default_factory=list)
    locals: list[str] = field(default_factory=list)
    enums: dict[str, tuple[str, ...]] = field(default_factory=dict)
    lists: dict[str, Paths] = field(default_factory=dict)
    everything: list[str] = field(default_factory=list)


def paths_of(node: Node) -> Paths:
    """All paths into values of a type, `MAP_KEYS` for the keys of maps."""
    found = Paths()
    _collect(found, node, "")
    return found


def _collect(found: Paths, node: Node, path: str) -> None:
    node, at = type_of(node).node, path or "."
    if path or not isinstance(node, Record):
        found.everything.append(at)
    match node:
        case Record():
            for item in node.fields:
                _collect(found, item.type, f"{path}.{item.name}" if path else item.name)
        case Map() if path:
            for key in MAP_KEYS:
                _collect(found, node.values, f"{path}.{key}")
        case Array():
            found.lists[at] = paths_of(node.items)
        case Enum():
            found.enums[at] = node.symbols
    kinds = {"date": found.days, "timestamp-millis": found.moments, "timestamp-micros": found.moments}
    kinds |= {"local-timestamp-millis": found.locals, "local-timestamp-micros": found.locals}
    if is_text(node):
        found.texts.append(at)
    if decimal_of(node) is not None:
        found.numbers.append(at)
    if node in (Primitive("float"), DOUBLE):
        found.floats.append(at)
    if node == LONG:
        found.longs.append(at)
    if logical_of(node) in kinds:
        kinds[logical_of(node)].append(at)


def same(value: str | None) -> str | None:
    return value


def picky(value: str) -> str:
    if value == "a":
        raise ContractError("picky", path="somewhere")
    if value == "A":
        raise KeyError(value)
    return value if value else None  # type: ignore[return-value]


class Rules:
    """Draws rules by what they yield. `levels`: the source and the lists' items around, the innermost last; `depth`
    bounds nesting; with `failing` rules are drawn as well that refuse records."""

    def __init__(self, draw: Draw, levels: tuple[Paths, ...], depth: int, failing: bool = True) -> None:
        self.draw, self.levels, self.depth, self.failing = draw, levels, depth, failing

    def deeper(self, item: Paths | None = None) -> Rules:
        return Rules(self.draw, self.levels if item is None else (*self.levels, item), self.depth - 1, self.failing)

    def pick(self, *options: Callable[[], Any], failing: tuple[Callable[[], Any], ...] = ()) -> Any:
        """One option, the first where nothing may be nested any more."""
        options = (*options, *failing) if self.failing else options
        return options[0 if self.depth <= 0 else self.draw(st.integers(0, len(options) - 1))]()

    def among(self, *values: Any) -> Any:
        return self.draw(st.sampled_from(values))

    def path(self, kind: str, otherwise: Any = None) -> Any:
        """A path of a kind that can be seen from here, `otherwise` where there is none."""
        seen = [f"{'^' * up}{path}" for up, level in enumerate(reversed(self.levels)) for path in getattr(level, kind)]
        return self.among(*seen) if seen else otherwise

    def list_path(self) -> tuple[str, Paths] | None:
        path = self.path("lists")
        if path is None:
            return None
        name = path.lstrip("^")
        return path, self.levels[-1 - (len(path) - len(name))].lists[name]

    def word(self) -> str:
        return str(self.draw(words))

    def several(self, one: Callable[[], Any], least: int = 0) -> list[Any]:
        return [one() for _ in range(self.among(*range(least, 4)))]

    def text(self) -> Any:
        go = self.deeper()
        return self.pick(
            lambda: self.path("texts", constant(self.word())),
            lambda: default(go.text(), self.among(self.word(), upper(go.text()))),
            lambda: join(*self.several(go.anything, 1), by=self.word()),
            lambda: join(*(self.path("texts", constant("a")) for _ in range(3)), by=self.word()),
            lambda: text("<", *(default(go.anything(), None) for _ in range(2))),
            lambda: text(self.word(), take(self.path("texts", "id")), go.number()),
            lambda: lookup(go.text(), {self.word(): go.cell(), self.word(): go.cell()}, otherwise=go.cell()),
            lambda: lookup(self.path("texts", constant("a")), {"a": "1", "red": "2"}, otherwise=self.word()),
            lambda: lookup(go.number(), {0: self.word(), 1: go.cell()}, otherwise=go.cell()),
            go.enum,
            lambda: choose(*(when(go.condition(), go.cell()) for _ in range(self.among(1, 2, 3))), otherwise=go.cell()),
            lambda: self.among(upper, lower, strip)(self.among(go.text(), call(same, go.text()))),
            lambda: call(same, go.text()),
            go.first,
            failing=(
                lambda: default(go.text(), fail("no-text")),
                lambda: required(go.text()),
                lambda: lookup(go.text(), dict.fromkeys(self.several(self.word, 1), self.word())),
                lambda: call(picky, required(go.text())),
            ),
        )

    def enum(self) -> Any:
        path = self.path("enums")
        if path is None:
            return self.text()
        symbols = self.levels[-1 - path.count("^")].enums[path.lstrip("^")]
        covered = self.among(symbols, symbols[:1])
        return enum(path, {symbol: self.cell() for symbol in covered}, otherwise=self.cell())

    def symbol(self) -> Any:
        path = self.path("enums")
        if path is None:
            return equals(self.path("texts", constant("a")), self.word())
        symbols = self.levels[-1 - path.count("^")].enums[path.lstrip("^")]
        return one_of(path, *symbols[: self.among(1, 2)])

    def first(self) -> Any:
        found = self.list()
        return self.text() if found is None else first_of(found[0], self.deeper(found[1]).text())

    def cell(self) -> Any:
        """What may stand in a value position."""
        return self.pick(
            self.word,
            lambda: self.among(upper, lambda of: default(of, self.word()))(self.deeper().text()),
            failing=(lambda: fail(self.among("f", "g")),),
        )

    def number(self) -> Any:
        go = self.deeper()
        return self.pick(
            lambda: self.path("numbers", constant(7)),
            lambda: constant(self.among(0, 1, -7, Decimal("0.01"), Decimal("1234.5"), Decimal("-0.0"))),
            lambda: self.among(add, multiply)(*self.several(go.number, 2)),
            lambda: subtract(go.number(), go.number()),
            lambda: to_decimal(go.number(), scale=self.among(0, 1, 4), rounding=self.among(*ROUNDINGS)),
            lambda: to_integer(go.number(), rounding=self.among(*ROUNDINGS)),
            lambda: default(go.number(), self.among(0, constant(5))),
            lambda: choose(when(go.condition(), default(go.number(), 0)), otherwise=default(go.number(), 1)),
            go.total,
            go.total,
            go.count,
            failing=(
                lambda: divide(go.number(), go.number(), scale=3, rounding=self.among(*ROUNDINGS)),
                lambda: to_decimal(upper(go.text()), scale=2, rounding=self.among(*ROUNDINGS)),
                lambda: to_decimal(self.path("floats", constant(1)), scale=3, rounding=self.among(*ROUNDINGS)),
                lambda: default(go.number(), fail("no-number")),
            ),
        )

    def total(self) -> Any:
        found = self.list()
        if found is None:
            return self.number()
        of, item = found
        inside, bare = self.deeper(item), Rules(self.draw, (item,), 0)
        number, currency = bare.path("numbers", constant(2)), bare.path("texts", "^id")
        return self.pick(
            lambda: total_of(of, number),
            lambda: total_of(of, default(inside.number(), 0)),
            lambda: total_of(of, multiply(number, default(inside.number(), 3))),
            failing=(lambda: total_of(of, number, currency=currency),),
        )

    def count(self) -> Any:
        found = self.list()
        return self.number() if found is None else count_of(found[0])

    def day(self) -> Any:
        go = self.deeper()
        return self.pick(
            lambda: self.path("days", constant(self.draw(days))),
            lambda: to_date(go.moment(), zone=self.among(*ZONES)),
            lambda: truncate(go.day(), "month"),
            lambda: default(go.day(), self.draw(days)),
            failing=(lambda: to_date(upper(go.text())),),
        )

    def moment(self) -> Any:
        go = self.deeper()
        return self.pick(
            lambda: self.path("moments", constant(self.draw(moments))),
            lambda: to_timestamp(go.day(), zone=self.among(*ZONES)),
            lambda: to_timestamp(self.path("locals", constant(self.draw(days))), zone=self.among(*ZONES)),
            lambda: truncate(go.moment(), self.among("minute", "second", "millisecond")),
            lambda: truncate(go.moment(), self.among("hour", "day", "month"), zone=self.among(*ZONES)),
            failing=(
                lambda: to_timestamp(upper(go.text())),
                lambda: to_timestamp(self.path("longs", constant(7)), unit=self.among("second", "millisecond")),
            ),
        )

    def anything(self) -> Any:
        return self.pick(self.text, self.number, self.day)

    def list(self) -> tuple[Any, Paths] | None:
        """A list, filtered or not, and what its items hold."""
        found = self.list_path()
        if found is None:
            return None
        path, item = found
        return self.narrowed(path, item), item

    def narrowed(self, path: str, item: Paths) -> Any:
        """The list at a path, or what a filter leaves of it."""
        inside = self.deeper(item)
        return self.pick(
            lambda: path,
            lambda: filtered(path, where=inside.condition()),
            lambda: default(filtered(path, where=inside.condition()), []),
        )

    def condition(self) -> Any:
        go = self.deeper()
        return self.pick(
            lambda: present(self.path("everything", constant(1))),
            lambda: present(go.anything()),
            lambda: equals(go.text(), default(go.text(), None)),
            lambda: equals(lower(go.text()), self.word()),
            lambda: one_of(strip(go.text()), self.word(), upper(go.text())),
            lambda: equals(self.path("texts", constant("a")), self.word()),
            self.symbol,
            lambda: self.among(above, below)(go.number(), self.among(0, default(go.number(), None))),
            lambda: above(go.moment(), self.draw(moments)),
            lambda: below(go.day(), self.draw(days)),
            lambda: not_(go.condition()),
            lambda: all_of(*self.several(go.condition)),
            lambda: any_of(*self.several(go.condition)),
            failing=(
                self.doubt,
                lambda: self.among(all_of, any_of)(self.doubt(), present(self.path("everything", constant(1)))),
            ),
        )

    def doubt(self) -> Any:
        """A question to a function that may have no answer."""
        return equals(call(picky, self.path("texts", constant("a"))), self.word())
