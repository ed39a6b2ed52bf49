"""Bytes that no writer wrote: what goes wrong on disks, in networks and in other people's serializers."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from heddle.contracts.codec import FRAME_BYTES
from heddle.contracts.encode_reference import varint

_EDGES = bytes([0, 1, 2, 3, 63, 64, 126, 127, 128, 129, 254, 255])
_KINDS = ["flip"] * 8 + ["edge"] * 2 + ["insert", "delete", "truncate", "repeat", "splice", "swap", "number"]
_KINDS += ["lengthen"] * 2 + ["block"] * 2
"""What leaves the length alone comes more often: it alone is seldom refused."""
_NUMBERS = [-1, -2, 2**31, -(2**31) - 1, 2**63 - 1, -(2**63), 10**9, 1 << 40]


def mutated(data: bytes, others: Sequence[bytes], dice: Random) -> bytes:
    """A framed record with one to three things wrong. The frame is seldom touched: it only says who wrote."""
    frame, body = data[:FRAME_BYTES], bytearray(data[FRAME_BYTES:])
    for _ in range(dice.choice([1, 1, 1, 2, 3])):
        _mutate(body, others, dice)
    whole = bytearray(frame + body)
    if dice.random() < 0.01:
        _mutate(whole, others, dice)
    return bytes(whole)


def _mutate(body: bytearray, others: Sequence[bytes], dice: Random) -> None:
    at = dice.randrange(len(body) + 1)
    stop = min(len(body), at + dice.choice([1, 1, 2, 5, 20]))
    match dice.choice(_KINDS):
        case "flip" if at < len(body):
            body[at] ^= 1 << dice.randrange(8)
        case "edge" if at < len(body):
            body[at] = dice.choice(_EDGES)
        case "insert":
            body[at:at] = dice.randbytes(dice.randrange(1, 5))
        case "delete":
            del body[at:stop]
        case "truncate":
            del body[at:]
        case "repeat":
            body[at:at] = body[at:stop]
        case "splice":
            other = dice.choice(others)[FRAME_BYTES:]
            body[at:] = other[dice.randrange(len(other) + 1) :]
        case "swap":
            _swap(body, at, stop, dice)
        case "lengthen" if at < len(body) and body[at] < 128:
            body[at : at + 1] = bytes([body[at] | 128]) + b"\x80" * dice.randrange(10) + b"\x00"
        case "block" if at < len(body) and 0 < body[at] < 128 and not body[at] & 1:
            body[at : at + 1] = varint(-(body[at] >> 1)) + varint(dice.choice([0, 1, 7, -1, 2**40]))
        case _:
            body[at:stop] = varint(dice.choice(_NUMBERS))


def _swap(body: bytearray, at: int, stop: int, dice: Random) -> None:
    """Two spans that do not overlap change places."""
    again = dice.randint(stop, len(body))
    end = min(len(body), again + stop - at)
    body[at:end] = body[again:end] + body[stop:again] + body[at:stop]
