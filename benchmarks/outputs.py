"""Whether a side wrote what it should have: every order once, its value equal to the reference, the seven headers."""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence
from typing import Any

import fastavro

from benchmarks.by_hand import pick_of
from benchmarks.lab import Lab, Side
from benchmarks.orders import TARGET, fault, key, order, schema, values
from heddle.broker.log import Record
from heddle.event import EVENT_HEADERS, ID


def check(lab: Lab, side: Side, written: Sequence[Record], records: int) -> None:
    """`written`: what the target topic got of orders 0 to `records`. Ends the program where it is not right.

    The reference is the mapping by hand, over the order as it was made, and fastavro reads what was written: nothing of
    Heddle's takes part."""
    for problem in _problems(lab, side, written, records):
        sys.exit(f"{side.label}: {problem}")


def _problems(lab: Lab, side: Side, written: Sequence[Record], records: int) -> list[str]:
    is_copy = side.program == "copy"
    wanted = {key(number): number for number in range(records) if is_copy or not fault(number)}
    found = [record.key for record in written]
    if len(found) != len(set(found)):
        return [f"{len(found) - len(set(found))} outputs were written twice"]
    if set(found) != wanted.keys():
        return [
            f"{len(wanted.keys() - set(found))} outputs are missing, {len(set(found) - wanted.keys())} are too many"
        ]
    if any({name for name, _ in record.headers} != EVENT_HEADERS for record in written):
        return ["an output has other headers than the seven"]
    if len({dict(record.headers)[ID] for record in written}) != len(written):
        return ["two outputs have one id"]
    if is_copy:
        copied = list(values(range(records), lab.frames.source))
        differing = [record for record in written if record.value != copied[wanted[record.key or b""]]]
    else:
        picks = schema(TARGET)
        differing = [
            record for record in written if not _equals(lab, record.value or b"", picks, wanted[record.key or b""])
        ]
    return [f"{len(differing)} outputs differ, the first is {differing[0].key!r}"] if differing else []


def _equals(lab: Lab, value: bytes, picks: Any, number: int) -> bool:
    stream = io.BytesIO(value)
    is_framed = stream.read(5) == lab.frames.target
    read = fastavro.schemaless_reader(stream, picks, None)
    return bool(is_framed and not stream.read() and read == pick_of(order(number)))
