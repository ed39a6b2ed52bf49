"""Objects out of bytes and back, for handlers written in Python: Heddle's generated types, its dicts, fastavro's dicts,
and pydantic models on top of those.

    python -m benchmarks.objects [--records N] [--batch B] [--rounds R]

All sides take turns in one process on the same orders; what they decode is first compared field by field, what they
encode byte for byte. pydantic's models are as one would write them by hand: frozen, no extra fields; `construct` trusts
what fastavro checked and validates nothing. CPU is user + system of this process; the least of the rounds is what code
costs when nothing disturbs it. Writes benchmarks/out/objects.json."""

from __future__ import annotations

import argparse
import gc
import io
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from decimal import Decimal
from typing import Any, Literal

import fastavro
from pydantic import BaseModel, ConfigDict

from benchmarks.codec import interleaved
from benchmarks.lab import table
from benchmarks.machine import machine, write_result
from benchmarks.orders import APP, SOURCE, fault, frame, schema, values
from benchmarks.sides import Result
from heddle.contracts import AvroCodec, MemoryRegistry, contract_of
from heddle.project import load_project

FRAME = frame(1)
BASELINE = "pydantic"
LABELS = {
    "typed": "heddle, typed values",
    "dicts": "heddle, dicts",
    "fastavro": "fastavro, dicts",
    "construct": "fastavro and pydantic, construct",
    "pydantic": "fastavro and pydantic, validate",
}


class Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Customer(Model):
    id: str
    first: str
    last: str
    email: str | None
    vip: bool


class Line(Model):
    sku: str
    qty: int
    price: Decimal


class Order(Model):
    order_id: str
    event_ts: datetime
    amount: Decimal
    currency: str
    status: Literal["NEW", "PAID", "SHIPPED", "CANCELLED"]
    coupon: str | None
    note: str | None
    priority: int | None
    channel: str
    customer: Customer
    lines: tuple[Line, ...]
    source_system: str


Way = Callable[[Sequence[Any]], Sequence[Any]]


def main() -> None:
    options = _options()
    result = measured(options.records, options.batch, options.rounds)
    _report(result)
    write_result("objects", result)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=4_000)
    parser.add_argument("--batch", type=int, default=1_000)
    parser.add_argument("--rounds", type=int, default=9)
    return parser.parse_args()


def measured(records: int, batch: int, rounds: int) -> Result:
    """By part (`decode`, `encode`) and side the least and the median µs of a record, and how many times as fast as
    pydantic's validation the least is."""
    data = [value for number, value in enumerate(values(range(records), FRAME)) if not fault(number)]
    decoders, encoders = _ways()
    decoded = {name: decode(data) for name, decode in decoders.items()}
    _compare(decoded, data, encoders)

    def batches(of: Sequence[Any]) -> list[Sequence[Any]]:
        return [of[i : i + batch] for i in range(0, len(of), batch)]

    gc.freeze()
    decode_s = interleaved(decoders, batches(data), rounds)
    encode_s = _side_by_side(encoders, {name: batches(of) for name, of in decoded.items()}, rounds)
    return {
        "records": len(data),
        "batch": batch,
        "rounds": rounds,
        "value_bytes": round(statistics.mean(map(len, data))),
        "decode": _figures(decode_s, len(data)),
        "encode": _figures(encode_s, len(data)),
    }


def _side_by_side(
    encoders: Mapping[str, Way], batches: Mapping[str, Sequence[Sequence[Any]]], rounds: int
) -> dict[str, list[float]]:
    """`interleaved`, where each side has inputs of its own."""
    places = range(len(next(iter(batches.values()))))

    def way(name: str) -> Callable[[int], Any]:
        return lambda place: encoders[name](batches[name][place])

    return interleaved({name: way(name) for name in encoders}, places, rounds)


def _ways() -> tuple[dict[str, Way], dict[str, Way]]:
    """Decoders and encoders of batches, by side."""
    flow: Any = load_project(APP).component("order-to-pick")
    contract = contract_of(flow.reads)
    codec: AvroCodec[Any] = AvroCodec(contract, MemoryRegistry([contract]))
    parsed = schema(SOURCE)

    def read(data: bytes) -> Any:
        stream = io.BytesIO(data)
        stream.seek(len(FRAME))
        return fastavro.schemaless_reader(stream, parsed, None)

    def write(record: Any) -> bytes:
        stream = io.BytesIO()
        stream.write(FRAME)
        fastavro.schemaless_writer(stream, parsed, record)
        return stream.getvalue()

    decoders: dict[str, Way] = {
        "typed": lambda batch: codec.decode_batch(batch)[0],
        "dicts": lambda batch: codec.decode_dict_batch(batch)[0],
        "fastavro": lambda batch: [read(data) for data in batch],
        "construct": lambda batch: [_constructed(read(data)) for data in batch],
        "pydantic": lambda batch: [Order.model_validate(read(data)) for data in batch],
    }
    encoders: dict[str, Way] = {
        "typed": lambda batch: codec.encode_batch(batch)[0],
        "dicts": lambda batch: [codec.encode_dict(value) for value in batch],
        "fastavro": lambda batch: [write(value) for value in batch],
        "construct": lambda batch: [write(value.model_dump()) for value in batch],
        "pydantic": lambda batch: [write(value.model_dump()) for value in batch],
    }
    return decoders, encoders


def _constructed(order: dict[str, Any]) -> Order:
    return Order.model_construct(
        **{
            **order,
            "customer": Customer.model_construct(**order["customer"]),
            "lines": tuple([Line.model_construct(**line) for line in order["lines"]]),
        }
    )


def _compare(decoded: Mapping[str, Sequence[Any]], data: Sequence[bytes], encoders: Mapping[str, Way]) -> None:
    """Also what fills caches."""
    wanted = [Order.model_validate(value) for value in decoded["fastavro"]]
    for name, found in decoded.items():
        as_dicts = [value.model_dump() if isinstance(value, Order) else _as_dict(value) for value in found]
        if [Order.model_validate(value) for value in as_dicts] != wanted:
            sys.exit(f"{LABELS[name]}: other values than fastavro's")
        if list(encoders[name](found)) != list(data):
            sys.exit(f"{LABELS[name]}: other bytes than fastavro's")


def _as_dict(value: Any) -> Any:
    return value if isinstance(value, dict) else asdict(value)


def _figures(seconds: Mapping[str, Sequence[float]], records: int) -> Result:
    baseline = min(seconds[BASELINE])
    return {
        name: {
            "label": LABELS[name],
            "min_us": min(found) / records * 1e6,
            "median_us": statistics.median(found) / records * 1e6,
            "times_pydantic": baseline / min(found),
        }
        for name, found in seconds.items()
    }


def _report(result: Result) -> None:
    print(f"\n{machine()}")
    print(
        f"{result['records']:,} orders of {result['value_bytes']} bytes, batches of {result['batch']:,}, "
        f"{result['rounds']} interleaved rounds"
    )
    for part, title in (("decode", "bytes to objects, CPU µs a record"), ("encode", "objects to bytes")):
        rows = [
            (side["label"], f"{side['min_us']:.2f}", f"{side['median_us']:.2f}", f"{side['times_pydantic']:.1f}x")
            for side in result[part].values()
        ]
        print("\n" + table((title, "least", "median", "pydantic / this"), rows))


if __name__ == "__main__":
    main()
