"""What mappings are written with. Every function gives a frozen rule or condition and does nothing else.

Two kinds of parameters, everywhere the same:
- a **rule position** takes a rule; a plain string there is a source path (`take`), a dict a nested record (`record`);
- a **value position** (`value`, `fallback`, `then`, `otherwise`, table values, `text` parts) takes a value as it
  stands, so a plain string there is that string; a rule is welcome as well.

Paths are dotted names. Inside a list's rule they begin at the item: `.` is the item itself, `^name` climbs out of one
list. A path through a nullable record, or to a map's key, gives null where something is missing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

from heddle.errors import UsageError
from heddle.mapping import moments, numbers, texts
from heddle.mapping.rules import (
    AllOf,
    AnyOf,
    Apply,
    Branch,
    Build,
    Call,
    Choose,
    Compare,
    Condition,
    Constant,
    Default,
    Each,
    Fail,
    Filter,
    First,
    Items,
    Join,
    Not,
    OneOf,
    Present,
    Rule,
    Table,
    Take,
    Total,
)

RuleLike = Rule | str | Mapping[str, Any]
Rounding = Literal["half-even", "half-up", "half-down", "up", "down", "ceiling", "floor"]
Unit = Literal["month", "day", "hour", "minute", "second", "millisecond"]

_NO_VALUE: Any = object()


def as_rule(given: Any) -> Rule:
    """What stands in a rule position, as a rule. Raises `UsageError`."""
    match given:
        case Rule():
            return given
        case str():
            return Take(given)
        case Mapping():
            return Build(tuple((name, as_rule(rule)) for name, rule in given.items()))
        case _:
            raise UsageError(
                f"{type(given).__name__} where a rule or a source path belongs",
                hint="write constant(value) for a fixed value",
            )


def as_value(given: Any) -> Rule:
    """What stands in a value position, as a rule."""
    return given if isinstance(given, Rule) else Constant(given)


def take(path: str) -> Rule:
    """The value at a source path. Under another target name it is a rename."""
    return Take(path)


def constant(value: Any) -> Rule:
    """The same value for every record."""
    return Constant(value)


def default(of: RuleLike, fallback: Any) -> Rule:
    """`of`, or `fallback` where that is null."""
    return Default(as_rule(of), as_value(fallback))


def required(of: RuleLike) -> Rule:
    """`of`; a record where it is null is refused with code `required`."""
    return Default(as_rule(of), Fail("required", "the source value is null"))


def fail(code: str, reason: str = "refused by the mapping") -> Rule:
    """Refuses every record that comes here: `otherwise=fail("no-route")`."""
    return Fail(code, reason)


def text(*parts: Any) -> Rule:
    """Values one after the other: `text("INV-", take("deal_id"))`. Null where a part is null.

    Texts, enums, whole numbers, decimals (plain notation), dates (ISO) and uuids can be parts."""
    return Join(tuple(as_value(part) for part in parts), "", skip_null=False)


def join(*parts: RuleLike, by: str) -> Rule:
    """Parts with a separator between them. Null parts are left out; null where every part is null."""
    return Join(tuple(as_rule(part) for part in parts), by, skip_null=True)


def upper(of: RuleLike) -> Rule:
    """In upper case."""
    return Apply(texts.UPPER, (as_rule(of),))


def lower(of: RuleLike) -> Rule:
    """In lower case."""
    return Apply(texts.LOWER, (as_rule(of),))


def strip(of: RuleLike) -> Rule:
    """Without white space at both ends."""
    return Apply(texts.STRIP, (as_rule(of),))


def lookup(of: RuleLike, table: Mapping[Any, Any], *, otherwise: Any = _NO_VALUE) -> Rule:
    """The table's value for a key. A key that is missing refuses the record with code `lookup`, unless `otherwise`."""
    return _table(of, table, otherwise, exhaustive=False)


def enum(
    of: RuleLike, table: Mapping[str, Any] | None = None, /, *, otherwise: Any = _NO_VALUE, **symbols: Any
) -> Rule:
    """Source symbols to values, usually target symbols: `enum("stage", WON="OPEN", LOST="VOID")`.

    Every source symbol must be covered, if only by `otherwise=` or `LOST=fail("lost-deal")`."""
    return _table(of, {**(table or {}), **symbols}, otherwise, exhaustive=True)


def _table(of: RuleLike, table: Mapping[Any, Any], otherwise: Any, exhaustive: bool) -> Rule:
    rows = tuple((key, as_value(value)) for key, value in table.items())
    return Table(as_rule(of), rows, None if otherwise is _NO_VALUE else as_value(otherwise), exhaustive)


def add(*of: RuleLike, rounding: Rounding | None = None) -> Rule:
    """The exact sum of decimals or whole numbers. `rounding` permits to round to the target's scale."""
    return Apply(numbers.ADD, tuple(map(as_rule, of)), _given(rounding=rounding))


def subtract(of: RuleLike, less: RuleLike, *, rounding: Rounding | None = None) -> Rule:
    """The exact difference."""
    return Apply(numbers.SUBTRACT, (as_rule(of), as_rule(less)), _given(rounding=rounding))


def multiply(*of: RuleLike, rounding: Rounding | None = None) -> Rule:
    """The exact product."""
    return Apply(numbers.MULTIPLY, tuple(map(as_rule, of)), _given(rounding=rounding))


def divide(of: RuleLike, by: RuleLike, *, scale: int, rounding: Rounding) -> Rule:
    """The quotient rounded to `scale` digits after the point. Division by zero refuses the record with code `zero`."""
    return Apply(numbers.DIVIDE, (as_rule(of), as_rule(by)), _given(scale=scale, rounding=rounding))


def to_decimal(of: RuleLike, *, scale: int, rounding: Rounding) -> Rule:
    """A number or a text as decimal of a scale. Text that is no plain number refuses the record with code `number`."""
    return Apply(numbers.TO_DECIMAL, (as_rule(of),), _given(scale=scale, rounding=rounding))


def to_integer(of: RuleLike, *, rounding: Rounding | None = None) -> Rule:
    """A decimal (with `rounding`) or a text as whole number; also states that a long may be put into an int."""
    return Apply(numbers.TO_INTEGER, (as_rule(of),), _given(rounding=rounding))


def to_date(of: RuleLike, *, zone: str | None = None, format: str | None = None) -> Rule:
    """The calendar day of a timestamp in `zone` ("Europe/Berlin"), or of a text (ISO, or strptime `format`)."""
    return Apply(moments.TO_DATE, (as_rule(of),), _given(zone=zone, format=format))


def to_timestamp(
    of: RuleLike, *, zone: str | None = None, format: str | None = None,
    unit: Literal["second", "millisecond"] | None = None,
) -> Rule:  # fmt: skip
    """A moment: of a date (its midnight in `zone`), of a local timestamp or a text (`zone` where it names none), of
    a whole number of `unit`s since 1970 in UTC. In a repeated hour the earlier moment counts."""
    return Apply(moments.TO_TIMESTAMP, (as_rule(of),), _given(zone=zone, format=format, unit=unit))


def truncate(of: RuleLike, to: Unit, *, zone: str | None = None) -> Rule:
    """A timestamp cut to a unit, from "hour" up in `zone`; or a date cut to its month."""
    return Apply(moments.TRUNCATE, (as_rule(of),), _given(to=to, zone=zone))


def record(table: Mapping[str, RuleLike] | None = None, /, **fields: RuleLike) -> Rule:
    """A nested record, field by field."""
    return as_rule({**(table or {}), **fields})


def items(*rules: RuleLike) -> Rule:
    """A list of fixed length: `items(record(...), record(...))`."""
    return Items(tuple(map(as_rule, rules)))


def each(of: RuleLike, rule: RuleLike) -> Rule:
    """One value for every item of a list: `each("lines", {"sku": "article", "quantity": "qty"})`."""
    return Each(as_rule(of), as_rule(rule))


def filtered(of: RuleLike, *, where: Condition) -> Rule:
    """The items of a list for which a condition holds."""
    return Filter(as_rule(of), where)


def count_of(of: RuleLike) -> Rule:
    """The number of items of a list."""
    return Apply(numbers.COUNT, (as_rule(of),))


def total_of(
    of: RuleLike, rule: RuleLike | None = None, *, currency: str | None = None, rounding: Rounding | None = None
) -> Rule:
    """The exact sum over a list: `total_of("lines.amount")`, `total_of("lines", multiply("qty", "price"))`.

    `currency` is a path in the item; items of different currencies refuse the record with code `currency`."""
    inner = None if rule is None else as_rule(rule)
    return Total(as_rule(of), inner, None if currency is None else Take(currency), rounding or "")


def first_of(of: RuleLike, rule: RuleLike | None = None) -> Rule:
    """A rule applied to the first item of a list, null where it is empty: `first_of("emails", "address")`."""
    return First(as_rule(of), None if rule is None else as_rule(rule))


def when(condition: Condition, then: Any) -> Branch:
    """One branch of `choose`."""
    return Branch(condition, as_value(then))


def choose(*branches: Branch, otherwise: Any) -> Rule:
    """The value of the first branch whose condition holds."""
    return Choose(branches, as_value(otherwise))


def call(function: Callable[..., Any], *args: RuleLike, returns: Any = None) -> Rule:
    """A Python function over values: the way out for what no rule can say. It must depend on its arguments only.

    It gets values as the codec makes them (decimal.Decimal, datetime in UTC, date, str, dict, list). `returns` is a
    Python type such as `str` or `str | None`, taken from the annotation if left out, and is checked."""
    return Call(function, tuple(map(as_rule, args)), returns)


def present(of: RuleLike) -> Condition:
    """The value is not null."""
    return Present(as_rule(of))


def equals(of: RuleLike, value: Any) -> Condition:
    """Equal to a value (`equals("stage", "WON")`) or to another rule's."""
    return Compare(as_rule(of), "==", as_value(value))


def above(of: RuleLike, value: Any) -> Condition:
    """Greater, or later, than a value."""
    return Compare(as_rule(of), ">", as_value(value))


def below(of: RuleLike, value: Any) -> Condition:
    """Less, or earlier, than a value."""
    return Compare(as_rule(of), "<", as_value(value))


def one_of(of: RuleLike, *values: Any) -> Condition:
    """Equal to one of several values."""
    return OneOf(as_rule(of), tuple(map(as_value, values)))


def all_of(*conditions: Condition) -> Condition:
    """Every condition holds; asked in order, up to the first that does not."""
    return AllOf(conditions)


def any_of(*conditions: Condition) -> Condition:
    """At least one condition holds; asked in order, up to the first that does."""
    return AnyOf(conditions)


def not_(condition: Condition) -> Condition:
    """The condition does not hold."""
    return Not(condition)


def _given(**params: Any) -> tuple[tuple[str, Any], ...]:
    return tuple((name, value) for name, value in params.items() if value is not None)
