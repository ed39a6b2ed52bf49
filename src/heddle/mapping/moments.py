"""Operations on dates and times. A zone is stated wherever one is needed; nothing is naive, nothing reads a clock."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from typing import Any, Final
from zoneinfo import ZoneInfo

from heddle.mapping.refusals import Refused
from heddle.mapping.rules import Operation
from heddle.mapping.types import DATE, MICROS, MILLIS, STRING, Type, Unfit, is_integer, logical_of

Types = tuple[Type, ...]
Params = dict[str, Any]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_UNITS: Final = {"second": timedelta(seconds=1), "millisecond": timedelta(milliseconds=1)}
_START: Final[dict[str, dict[str, int]]] = {
    "month": {"day": 1, "hour": 0, "minute": 0, "second": 0, "microsecond": 0},
    "day": {"hour": 0, "minute": 0, "second": 0, "microsecond": 0},
    "hour": {"minute": 0, "second": 0, "microsecond": 0},
    "minute": {"second": 0, "microsecond": 0},
    "second": {"microsecond": 0},
    "millisecond": {},
}
_ZONED = ("month", "day", "hour")
"""Units whose beginning depends on the zone (some are half an hour off)."""


def _zone(name: str) -> tzinfo:
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        raise Unfit(f"zone {name!r} is not in the time zone database; for example Europe/Berlin or UTC") from None


def _check_zone(params: Params, needed: bool, why: str) -> None:
    if "zone" in params:
        _zone(params["zone"])
        if not needed:
            raise Unfit(f"zone= has no meaning {why}")
    elif needed:
        raise Unfit(f"state zone= {why}")


def _check_format(params: Params, of_text: bool) -> None:
    if "format" in params and not of_text:
        raise Unfit("format= is for text only")
    if "format" in params and not any(year in params["format"] for year in ("%Y", "%y", "%G")):
        raise Unfit("format= names no year (%Y)")


def _is_moment(given: Type) -> bool:
    return logical_of(given.node).startswith("timestamp-")


def _to_date_type(types: Types, params: Params) -> Type:
    (given,) = types
    _check_format(params, given.node == STRING)
    if _is_moment(given):
        _check_zone(params, True, "whose calendar day is meant")
    elif given.node == STRING or logical_of(given.node).startswith("local-timestamp-"):
        _check_zone(params, False, f"for {given}")
    else:
        raise Unfit(f"makes a date of timestamps and text, not of {given}")
    return Type(DATE)


def _to_date(types: Types, params: Params) -> Callable[[Any], date]:
    (given,) = types
    if _is_moment(given):
        zone = _zone(params["zone"])
        return lambda value: _guarded(value.astimezone, zone).date()
    if given.node == STRING:
        shape = params.get("format")
        if shape is None:
            return lambda value: _parsed(date.fromisoformat, value)
        return lambda value: _parsed(datetime.strptime, value, shape).date()
    return lambda value: value.date()


def _parsed(parse: Callable[..., Any], *args: str) -> Any:
    try:
        return parse(*args)
    except ValueError:
        raise Refused("date", "the text is no date or time of the stated form") from None


def _guarded(function: Callable[..., Any], *args: Any) -> Any:
    try:
        return function(*args)
    except (OverflowError, ValueError):
        raise Refused("range", "the moment is outside of the years 1 to 9999") from None


def _time_of_day(types: Types, _params: Params) -> str:
    return "" if types[0].node == STRING else "time of day"


TO_DATE = Operation("to_date", _to_date_type, _to_date, True, _time_of_day)


def _to_timestamp_type(types: Types, params: Params) -> Type:
    (given,) = types
    _check_format(params, given.node == STRING)
    if is_integer(given.node):
        _check_zone(params, False, "for time since 1970 in UTC")
        if params.get("unit") not in _UNITS:
            raise Unfit(f"state unit= of the number: {' or '.join(_UNITS)}")
        return Type(MILLIS)
    if "unit" in params:
        raise Unfit("unit= is for whole numbers only")
    if given.node == DATE or logical_of(given.node).startswith("local-timestamp-"):
        _check_zone(params, True, "in which the local time is meant")
        return Type(MICROS if logical_of(given.node).endswith("micros") else MILLIS)
    if given.node != STRING:
        raise Unfit(f"makes a timestamp of dates, local timestamps, whole numbers and text, not of {given}")
    if "zone" in params:
        _zone(params["zone"])
    return Type(MICROS)


def _to_timestamp(types: Types, params: Params) -> Callable[[Any], datetime]:
    node = types[0].node
    if is_integer(node):
        unit = _UNITS[params["unit"]]
        return lambda value: _guarded(lambda: _EPOCH + value * unit)
    zone = _zone(params["zone"]) if "zone" in params else None
    if node == STRING:
        shape = params.get("format")
        if shape is None:
            return lambda value: _zoned(_parsed(datetime.fromisoformat, value), zone)
        return lambda value: _zoned(_parsed(datetime.strptime, value, shape), zone)
    if node == DATE:
        return lambda value: _zoned(datetime.combine(value, time.min), zone)
    return lambda value: _zoned(value, zone)


def _zoned(value: datetime, zone: tzinfo | None) -> datetime:
    if value.tzinfo is None:
        if zone is None:
            raise Refused("zone", "the text names no offset and the rule no zone")
        value = value.replace(tzinfo=zone)
    return _guarded(value.astimezone, UTC)  # type: ignore[no-any-return]


TO_TIMESTAMP = Operation("to_timestamp", _to_timestamp_type, _to_timestamp, True)


def _truncate_type(types: Types, params: Params) -> Type:
    (given,), unit = types, params["to"]
    if unit not in _START:
        raise Unfit(f"unit {unit!r} is none of {', '.join(_START)}")
    if given.node == DATE:
        _check_zone(params, False, "for a date")
        if unit != "month":
            raise Unfit("a date can be cut to its month only")
        return Type(DATE)
    if not _is_moment(given):
        raise Unfit(f"cuts dates and timestamps, not {given}")
    _check_zone(params, unit in _ZONED, f"to cut to the {unit}")
    return Type(MILLIS)


def _truncate(types: Types, params: Params) -> Callable[[Any], Any]:
    unit = params["to"]
    if types[0].node == DATE:
        return lambda value: value.replace(day=1)
    if unit == "millisecond":
        return lambda value: value.replace(microsecond=value.microsecond // 1000 * 1000)
    fields: dict[str, Any] = _START[unit]
    if unit not in _ZONED:
        return lambda value: value.replace(**fields)
    zone = _zone(params["zone"])
    # An hour keeps which of two equal ones it is; a day begins with the earlier.
    start = fields if unit == "hour" else {**fields, "fold": 0}
    return lambda value: _guarded(lambda: value.astimezone(zone).replace(**start).astimezone(UTC))


def _finer(_types: Types, params: Params) -> str:
    return f"what is finer than the {params['to']}"


TRUNCATE = Operation("truncate", _truncate_type, _truncate, True, _finer)
