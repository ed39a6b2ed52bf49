"""What generated code calls when its short cuts do not fit: long numbers, long texts, unusual keys.

Everything here takes untrusted bytes. A varint is refused when it is longer than its number needs: the codec would
write it shorter, and so could not be copied."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final

from heddle.contracts.codegen import Refused

UNRESERVED: Final = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~"

_ESCAPES: Final = tuple(bytes([byte]) if byte in UNRESERVED else b"%%%02X" % byte for byte in range(256))

uuid_at = re.compile(rb"H[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}").match
"""A UUID as text with the byte of its length before it (36 in zig-zag is 72, "H")."""


def varint_at(data: bytes, position: int, bits: int) -> tuple[int, int]:
    """An unsigned number of at most `bits`, and where it ends."""
    byte = data[position]
    number = byte & 127
    shift = 0
    while byte > 127:
        position += 1
        shift += 7
        if shift > 63:
            raise Refused
        byte = data[position]
        number |= (byte & 127) << shift
    if number >> bits or (shift and not byte):
        raise Refused
    return number, position + 1


def number_at(data: bytes, position: int, bits: int) -> tuple[int, int]:
    """A zig-zag number and where it ends."""
    number, end = varint_at(data, position, bits)
    return (number >> 1) ^ -(number & 1), end


def past_number(data: bytes, position: int, last: int, most: int) -> int:
    """Where a number ends, which has no more than `last` bytes after its first, the last of these at most `most`."""
    end = position + 1
    while data[end] > 127:
        end += 1
        if end - position > last:
            raise Refused
    if not data[end] or (end - position == last and data[end] > most):
        raise Refused
    return end + 1


def past_number_within(data: bytes, position: int, bits: int, low: int, high: int) -> int:
    number, end = number_at(data, position, bits)
    if not low <= number <= high:
        raise Refused
    return end


def size_at(data: bytes, position: int) -> tuple[int, int]:
    """A length, and where it ends."""
    first, second = data[position], data[position + 1]
    if first > 127 and 0 < second < 128:
        number, end = first - 128 | second << 7, position + 2
    else:
        number, end = varint_at(data, position, 64)
    if number & 1:
        raise Refused
    return number >> 1, end


def past_bytes(data: bytes, position: int) -> int:
    size, start = size_at(data, position)
    return start + size


def text_at(data: bytes, position: int) -> tuple[int, int]:
    """Where the content of a text begins and ends. It is UTF-8."""
    size, start = size_at(data, position)
    end = start + size
    data[start:end].decode()
    return start, end


def past_text(data: bytes, position: int) -> int:
    return text_at(data, position)[1]


def decimal_at(data: bytes, position: int, bound: int) -> tuple[int, int]:
    """An unscaled value nearer to 0 than `bound`, and where it ends."""
    size, start = size_at(data, position)
    if not size:
        raise Refused
    end = start + size
    number = int.from_bytes(data[start:end], "big", signed=True)
    if not -bound < number < bound:
        raise Refused
    return number, end


def past_decimal(data: bytes, position: int, bound: int) -> int:
    return decimal_at(data, position, bound)[1]


def block_at(data: bytes, position: int) -> tuple[int, int]:
    """The number of items in a block, and where they begin; 0 ends the list."""
    number, end = varint_at(data, position, 64)
    if not number & 1:
        return number >> 1, end
    return (number >> 1) + 1, size_at(data, end)[1]


def varint(number: int) -> bytes:
    """An unsigned number."""
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)
    return bytes(out)


def zigzag(number: int, bits: int) -> bytes:
    """A signed number. Refused beyond `bits`."""
    bound = 1 << bits - 1
    if not -bound <= number < bound:
        raise Refused
    return varint(number << 1 if number >= 0 else ~(number << 1))


def length(size: int) -> bytes:
    return varint(size << 1)


def decimal(number: int, bound: int) -> bytes:
    """Length and two's complement, as the codec writes it: -128 takes two bytes."""
    if not -bound < number < bound:
        raise Refused
    size = (number.bit_length() >> 3) + 1
    return varint(size << 1) + number.to_bytes(size, "big", signed=True)


def fixed_decimal(number: int, bound: int, size: int) -> bytes:
    if not -bound < number < bound:
        raise Refused
    return number.to_bytes(size, "big", signed=True)


def digits(number: int, scale: int) -> bytes:
    """Plain notation with `scale` digits after the point."""
    if not scale:
        return b"%d" % number
    text = f"{abs(number):0{scale + 1}d}"
    return f"{'-' if number < 0 else ''}{text[:-scale]}.{text[-scale:]}".encode()


def row_of(rows: Sequence[Any], index: int) -> Any:
    """The row of an index that may be any number."""
    if index < 0:
        raise Refused
    return rows[index]


def escaped(text: bytes) -> bytes:
    """Percent-escaped, but for the unreserved characters."""
    return b"".join([_ESCAPES[byte] for byte in text])


def escaped_twice(text: bytes) -> bytes:
    """As `escaped`, and what came of that once more."""
    return escaped(text).replace(b"%", b"%25")


def escaped_text(data: bytes) -> bytes:
    """As `escaped`, for bytes that may be no text."""
    data.decode()
    return escaped(data)
