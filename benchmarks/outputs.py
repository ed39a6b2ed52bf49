"""Whether a side wrote what it should have: every order once, its value equal to the reference, the seven headers."""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence
from typing import Any

import fastavro

from benchmarks.by_hand import pick_of
from benchmarks.lab import Side
from benchmarks.orders import TARGET, Frames, fault, key, order, schema, values
from heddle.broker.log import Record
from heddle.event import EVENT_HEADERS, ID


def check(side: Side, frames: Frames, written: Sequence[Record], records: int) -> None:
    """`written`: what the target topic got of orders 0 to `records`. Ends the program where it is not right."""
    if problem := problem_of(written, records, frames, is_copy=side.program == "copy"):
        sys.exit(f"{side.label}: {problem}")


def problem_of(written: Sequence[Record], records: int, frames: Frames, *, is_copy: bool) -> str:
    """What is wrong first, or nothing. The reference is the mapping by hand over the order as it was made, and fastavro
    reads what was written: nothing of Heddle's takes part."""
    wanted = {key(number): number for number in range(records) if is_copy or not fault(number)}
    found = {record.key for record in written}
    if len(found) < len(written):
        return f"{len(written) - len(found)} outputs were written twice"
    if found != wanted.keys():
        return f"{len(wanted.keys() - found)} outputs are missing, {len(found - wanted.keys())} are too many"
    if any({name for name, _ in record.headers} != EVENT_HEADERS for record in written):
        return "an output has other headers than the seven"
    if len({dict(record.headers)[ID] for record in written}) < len(written):
        return "two outputs have one id"
    numbered = [(record.value or b"", wanted[record.key or b""]) for record in written]
    if is_copy:
        copied = list(values(range(records), frames.source))
        differing = [number for value, number in numbered if value != copied[number]]
    else:
        pick = schema(TARGET)
        differing = [
            number for value, number in numbered if _read(value, frames.target, pick) != pick_of(order(number))
        ]
    return f"{len(differing)} outputs differ, the first is of order {min(differing)}" if differing else ""


def _read(value: bytes, frame: bytes, pick: Any) -> Any:
    """None where it is not framed, or something is left over."""
    stream = io.BytesIO(value)
    if stream.read(len(frame)) != frame:
        return None
    read = fastavro.schemaless_reader(stream, pick, None)
    return None if stream.read() else read
