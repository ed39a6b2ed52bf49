"""Random Avro schemas and values that fit them, for property tests."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from itertools import count
from typing import Any

from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

from heddle.contracts.values import EXACT


@dataclass
class Sample:
    """A type as JSON, and values of it in the shape of dicts."""

    schema: Any
    values: SearchStrategy[Any]


def _floored(moment: datetime, milliseconds: bool) -> datetime:
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000) if milliseconds else moment


_moments = st.datetimes(min_value=datetime(1, 1, 3), max_value=datetime(9999, 12, 30))
_times = st.times()
_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
_SCALARS: list[tuple[Any, SearchStrategy[Any]]] = [
    ("boolean", st.booleans()),
    ("int", st.integers(-(2**31), 2**31 - 1)),
    ("long", st.integers(-(2**63), 2**63 - 1)),
    ("float", st.floats(width=32, allow_nan=False)),
    ("double", st.floats(allow_nan=False)),
    ("bytes", st.binary(max_size=100)),
    ("string", _text),
    ({"type": "int", "logicalType": "date"}, st.dates()),
    (
        {"type": "int", "logicalType": "time-millis"},
        _times.map(lambda t: t.replace(microsecond=t.microsecond // 1000 * 1000)),
    ),
    ({"type": "long", "logicalType": "time-micros"}, _times),
    (
        {"type": "long", "logicalType": "timestamp-millis"},
        _moments.map(lambda m: _floored(m, True).replace(tzinfo=UTC)),
    ),
    ({"type": "long", "logicalType": "timestamp-micros"}, _moments.map(lambda m: m.replace(tzinfo=UTC))),
    ({"type": "long", "logicalType": "local-timestamp-millis"}, _moments.map(lambda m: _floored(m, True))),
    ({"type": "long", "logicalType": "local-timestamp-micros"}, _moments),
    ({"type": "string", "logicalType": "uuid"}, st.uuids()),
]


class Names:
    """Fresh names: a schema may not define one twice."""

    def __init__(self) -> None:
        self._numbers = count()

    def fresh(self, prefix: str) -> str:
        return f"{prefix}{next(self._numbers)}"


@st.composite
def decimals(draw: DrawFn, names: Names) -> Sample:
    precision = draw(st.integers(1, 30))
    scale = draw(st.integers(0, precision))
    schema: dict[str, Any] = {"type": "bytes", "logicalType": "decimal", "precision": precision, "scale": scale}
    if draw(st.booleans()):
        schema |= {"type": "fixed", "name": names.fresh("Money"), "size": 16}
    unscaled = st.integers(-(10**precision) + 1, 10**precision - 1)
    return Sample(schema, unscaled.map(lambda n: Decimal(n).scaleb(-scale, EXACT)))


@st.composite
def types(draw: DrawFn, names: Names, depth: int) -> Sample:
    """A type at most `depth` levels deep."""
    kinds = ["scalar", "scalar", "enum", "fixed", "decimal"] + (
        ["array", "map", "record", "nullable", "union"] if depth else []
    )
    match draw(st.sampled_from(kinds)):
        case "scalar":
            return Sample(*draw(st.sampled_from(_SCALARS)))
        case "enum":
            symbols = [f"S{i}" for i in range(draw(st.integers(1, 4)))]
            return Sample({"type": "enum", "name": names.fresh("Enum"), "symbols": symbols}, st.sampled_from(symbols))
        case "fixed":
            size = draw(st.integers(1, 5))
            schema = {"type": "fixed", "name": names.fresh("Fixed"), "size": size}
            return Sample(schema, st.binary(min_size=size, max_size=size))
        case "decimal":
            return draw(decimals(names))
        case "array":
            inner = draw(types(names, depth - 1))
            return Sample({"type": "array", "items": inner.schema}, st.lists(inner.values, max_size=3))
        case "map":
            inner = draw(types(names, depth - 1))
            return Sample({"type": "map", "values": inner.schema}, st.dictionaries(_text, inner.values, max_size=3))
        case "nullable":
            inner = draw(types(names, depth - 1).filter(lambda s: not isinstance(s.schema, list)))
            branches = draw(st.permutations(["null", inner.schema]))
            return Sample(branches, st.none() | inner.values)
        case "union":
            return draw(unions(names, depth - 1))
        case _:
            return draw(records(names, depth - 1))


@st.composite
def unions(draw: DrawFn, names: Names, depth: int) -> Sample:
    """Branches whose Python values cannot be taken for one another."""
    inner = draw(types(names, depth).filter(lambda s: isinstance(s.schema, dict)))
    array = Sample({"type": "array", "items": inner.schema}, st.lists(inner.values, max_size=2))
    choices: list[Sample] = [
        Sample("null", st.none()),
        Sample("boolean", st.booleans()),
        # fastavro writes an int as the first number branch, be it a double.
        draw(
            st.sampled_from(
                [Sample("long", st.integers(-(2**63), 2**63 - 1)), Sample("double", st.floats(allow_nan=False))]
            )
        ),
        Sample("string", _text),
        # An array beside bytes is left out: fastavro takes bytes for an array of numbers.
        draw(st.sampled_from([Sample("bytes", st.binary(max_size=3)), array])),
        draw(records(names, 0)),
    ]
    chosen = draw(st.lists(st.sampled_from(choices), min_size=2, max_size=4, unique_by=id))
    return Sample([c.schema for c in chosen], st.one_of([c.values for c in chosen]))


@st.composite
def records(draw: DrawFn, names: Names, depth: int) -> Sample:
    """A record with the documentation that contracts need."""
    fields = draw(st.lists(types(names, depth), min_size=1, max_size=4))
    named = {f"f{i}": inner for i, inner in enumerate(fields)}
    schema = {
        "type": "record",
        "name": names.fresh("Record"),
        "doc": "A record.",
        "fields": [{"name": name, "type": inner.schema, "doc": "A field."} for name, inner in named.items()],
    }
    return Sample(schema, st.fixed_dictionaries({name: inner.values for name, inner in named.items()}))


@st.composite
def things(draw: DrawFn) -> tuple[dict[str, Any], SearchStrategy[Any]]:
    """The schema of contract `test.thing.v1`, and its values."""
    sample = draw(records(Names(), 3))
    schema = sample.schema | {"name": "Thing", "namespace": "test.v1"}
    schema["fields"] = [{"name": "id", "type": "string", "doc": "An id."}, *schema["fields"]]
    return schema, sample.values.map(lambda value: {"id": "x", **value})


anything: SearchStrategy[Any] = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.integers(-5, 5),
        st.floats(),
        st.decimals(),
        st.text(max_size=5),
        st.sampled_from(["S0", "S1"]),
        st.binary(max_size=5),
        st.dates(),
        st.datetimes(timezones=st.none() | st.just(UTC)),
        st.times(),
        st.timedeltas(),
        st.uuids(),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.tuples(inner, inner),
        st.dictionaries(st.sampled_from(["id", "f0", "f1", "f2", "a"]), inner, max_size=4),
    ),
    max_leaves=6,
)
