"""Exact numbers, dates and times as whole numbers of registers, and arithmetic with them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import date, datetime, timedelta
from decimal import Decimal
from functools import reduce
from typing import Any, Final

from heddle.contracts.resolution import ReadFixed, ReadScalar
from heddle.contracts.schema import Logical
from heddle.contracts.values import EPOCH, EPOCH_ORDINAL, INT_MAX, INT_MIN, LOCAL_EPOCH, LONG_MAX, LONG_MIN
from heddle.mapping import numbers
from heddle.mapping.lowering.slots import Slot, Unlowered
from heddle.mapping.lowering.values import Amount, Fixed, Leaf, Tree, Wire, each_value, spread
from heddle.mapping.rules import Apply, typed
from heddle.mapping.types import decimal_of, is_integer
from heddle.wire import plan as wire

MAX_DIGITS: Final = 1_000
"""Exact in the object path up to ten thousand; nobody's amounts need a hundred."""

MAX_ITEMS: Final = 2**31
"""More items than a record can hold."""

_MICROSECOND: Final = timedelta(microseconds=1)


def as_amount(leaf: Leaf) -> Amount | None:
    """An exact number in registers or known; None for anything else."""
    match leaf:
        case Amount():
            return leaf
        case Fixed(value):
            return _of_constant(value)
        case Wire(slot):
            return _of_slot(slot)
    return None


def _of_constant(value: Any) -> Amount | None:
    match value:
        case bool():
            return None
        case int():
            return Amount(wire.Exact(value), 0, True, value, value)
        case Decimal():
            sign, digits, exponent = value.as_tuple()
            if not isinstance(exponent, int):
                return None
            number = int("".join(map(str, digits))) * (-1 if sign else 1)
            # A zero may be negative, and is then written with its sign.
            return Amount(wire.Exact(number), -exponent, False, number, number, spelled=bool(number or not sign))
    return None


def _of_slot(slot: Slot) -> Amount | None:
    match slot.action:
        case ReadScalar(kind="int" | "long" as kind, becomes="int" | "long", logical=None):
            low, high = (INT_MIN, INT_MAX) if kind == "int" else (LONG_MIN, LONG_MAX)
            return Amount(wire.Number(slot.number), 0, True, low, high)
        case ReadScalar(logical=Logical("decimal") as logical) | ReadFixed(logical=Logical() as logical):
            high = 10 ** min(logical.precision, MAX_DIGITS + 1) - 1
            return checked(Amount(wire.Number(slot.number), logical.scale, False, -high, high))
    return None


def checked(amount: Amount) -> Amount:
    """Raises `Unlowered` for what might get longer than the object path computes exactly."""
    if max(abs(amount.low), abs(amount.high)) >= 10**MAX_DIGITS or abs(amount.scale) > MAX_DIGITS:
        raise Unlowered(f"its numbers may have more than {MAX_DIGITS} digits")
    return amount


def rescaled(amount: Amount, scale: int) -> Amount:
    """With `scale` digits after the point, which are not fewer than it has."""
    if scale == amount.scale:
        return amount
    times = 10 ** (scale - amount.scale)
    within = amount.within and (amount.within[0] * times, amount.within[1] * times)
    value = multiplied(amount.value, wire.Exact(times))
    return checked(replace(
        amount, value=value, scale=scale, low=amount.low * times, high=amount.high * times, within=within,
    ))  # fmt: skip


def multiplied(left: wire.Value, right: wire.Value) -> wire.Value:
    if isinstance(left, wire.Exact) and isinstance(right, wire.Exact):
        return wire.Exact(left.value * right.value)
    return wire.Multiply((left, right))


def amounts(tree: Tree) -> Tree:
    """A tree of numbers with an `Amount` at every leaf, its bounds checked. Raises `Unlowered` for another."""

    def amount_of(leaf: Leaf) -> Tree:
        found = as_amount(leaf)
        if found is None:
            raise Unlowered("it works on what is no exact number in the source")
        return spread(found)

    return each_value(tree, lambda leaf: each_value(spread(leaf), amount_of))


def computed(rule: Apply, given: Sequence[Amount]) -> Amount | None:
    """A built-in function of exact numbers. None where there are no instructions for it."""
    combine = _ARITHMETIC.get(rule.operation.name)
    if combine is None:
        return _converted(rule, given[0])
    result = checked(reduce(combine, given))
    return bounded(result, LONG_MIN, LONG_MAX) if all(is_integer(typed(arg).node) for arg in rule.args) else result


def _converted(rule: Apply, given: Amount) -> Amount | None:
    params, node = dict(rule.params), typed(rule.args[0]).node
    match rule.operation.name:
        case numbers.AS_DECIMAL.name:
            return replace(given, whole=False)
        case numbers.IN_32_BITS.name:
            return bounded(given, INT_MIN, INT_MAX)
        case numbers.IN_DIGITS.name:
            given = rescaled(given, max(given.scale, 0))
            limit = 10 ** (params["digits"] + given.scale)
            return bounded(given, 1 - limit, limit - 1)
        case numbers.TO_INTEGER.name if is_integer(node):
            return given
        case numbers.TO_DECIMAL.name | numbers.ROUND.name if decimal_of(node) and given.scale <= params["scale"]:
            return replace(rescaled(given, params["scale"]), whole=False)
    return None


def bounded(amount: Amount, low: int, high: int) -> Amount:
    """Refused outside of these bounds, where it can get there at all."""
    inside = low <= amount.low and amount.high <= high
    return amount if inside else replace(amount, within=(low, high))


def _add(left: Amount, right: Amount) -> Amount:
    left, right, spelled = _aligned(left, right)
    low, high, whole = left.low + right.low, left.high + right.high, left.whole and right.whole
    return Amount(wire.Add((left.value, right.value)), left.scale, whole, low, high, spelled=spelled)


def _subtract(left: Amount, right: Amount) -> Amount:
    left, right, spelled = _aligned(left, right)
    low, high, whole = left.low - right.high, left.high - right.low, left.whole and right.whole
    return Amount(wire.Subtract(left.value, right.value), left.scale, whole, low, high, spelled=spelled)


def _aligned(left: Amount, right: Amount) -> tuple[Amount, Amount, bool]:
    scale = max(left.scale, right.scale)
    return rescaled(left, scale), rescaled(right, scale), left.spelled and right.spelled


def _multiply(left: Amount, right: Amount) -> Amount:
    corners = [one * other for one in (left.low, left.high) for other in (right.low, right.high)]
    # Zero times a negative Decimal is a negative zero, which a text shows.
    spelled = left.spelled and right.spelled and ((left.whole and right.whole) or min(left.low, right.low) >= 0)
    value = multiplied(left.value, right.value)
    whole = left.whole and right.whole
    return Amount(value, left.scale + right.scale, whole, min(corners), max(corners), spelled=spelled)


_ARITHMETIC: Final[dict[str, Callable[[Amount, Amount], Amount]]] = {
    numbers.ADD.name: _add,
    numbers.SUBTRACT.name: _subtract,
    numbers.MULTIPLY.name: _multiply,
}


def total(slot: Slot, item: Amount, whole: bool) -> Amount:
    """The sum over an array, of an amount in each of its items."""
    item = rescaled(item, max(item.scale, 0))
    low, high = min(item.low, 0) * MAX_ITEMS, max(item.high, 0) * MAX_ITEMS
    # Without items the sum is a plain 0, whatever the scale of an item.
    result = Amount(wire.Number(slot.fold(item.value)), item.scale, whole, low, high, spelled=item.scale == 0)
    return bounded(result, LONG_MIN, LONG_MAX) if whole else checked(result)


def moment(leaf: Leaf) -> tuple[str, wire.Value] | None:
    """A date in days, or a time in microseconds, as a number, with the kind of moment that it is."""
    match leaf:
        case Wire(Slot(action=ReadScalar(kind="int" | "long", logical=Logical(name))) as slot):
            number = wire.Number(slot.number)
            kind = name.removesuffix("-millis").removesuffix("-micros")
            return kind, multiplied(number, wire.Exact(1000)) if name.endswith("-millis") else number
        case Fixed(datetime() as value):
            return _moment_of(value)
        case Fixed(date() as value):
            return "date", wire.Exact(value.toordinal() - EPOCH_ORDINAL)
    return None


def _moment_of(value: datetime) -> tuple[str, wire.Value]:
    zone = value.tzinfo
    if zone is None:
        return "local-timestamp", wire.Exact((value - LOCAL_EPOCH) // _MICROSECOND)
    if value.replace(fold=0).utcoffset() != value.replace(fold=1).utcoffset():
        # Python calls such a moment unequal to every other one.
        raise Unlowered("it compares with a moment that its zone has twice, or not at all")
    return "timestamp", wire.Exact((value - EPOCH) // _MICROSECOND)
