"""Asks a broker whether it is ready, in the few requests of Kafka's own protocol that it takes.

The Kafka client stands above this package (one module alone imports it) and would hide what is asked here: a
coordinator that still loads. Formats: Kafka protocol guide, versions without optional fields where there is a choice.
"""

from __future__ import annotations

import itertools
import socket
import struct
from collections.abc import Callable

from heddle.local.ports import HOST

_METADATA, _OFFSET_FETCH, _FIND_COORDINATOR, _INIT_PRODUCER_ID, _DESCRIBE_TRANSACTIONS = 3, 9, 10, 22, 65
_GROUP, _TRANSACTION = 0, 1
_NO_ERROR, _UNKNOWN_TRANSACTIONAL_ID = 0, 105
_TIMEOUT_S = 2.0

# One name for each of the four partitions of the coordinators' topics: a name's partition is its Java hash code,
# which for one character is its code point, modulo the number of partitions.
_NAMES = ("a", "b", "c", "d")


def answers(port: int, brokers: int = 1) -> bool:
    """True when the broker lists the expected number of brokers, itself unfenced among them."""
    try:
        with _connect(port) as connection:
            body = _call(connection, _METADATA, 1, struct.pack(">i", 0))
    except (OSError, struct.error):
        return False
    (count,) = struct.unpack_from(">i", body)
    return bool(count == brokers)


def coordinators_are_loaded(port: int) -> bool:
    """True when every partition of the group and transaction coordinators serves. The first call makes their
    topics, so that the first consumer or transactional producer of a fresh stack does not wait for that."""
    try:
        with _connect(port) as connection:
            checks = itertools.chain.from_iterable((_group_check(n), _transaction_check(n)) for n in _NAMES)
            return all([_gives_producer_ids(connection), *(check(connection) for check in checks)])
    except (OSError, struct.error):
        return False


def _gives_producer_ids(connection: socket.socket) -> bool:
    """The first producer makes the broker ask its controller for a block of ids; meanwhile it says "loading"."""
    body = _call(connection, _INIT_PRODUCER_ID, 1, struct.pack(">hi", -1, 60_000))
    return bool(struct.unpack_from(">h", body, 4)[0] == _NO_ERROR)


_Check = Callable[[socket.socket], bool]


def _group_check(group: str) -> _Check:
    def check(connection: socket.socket) -> bool:
        if not _has_coordinator(connection, group, _GROUP):
            return False
        body = _call(connection, _OFFSET_FETCH, 2, _string(group) + struct.pack(">i", -1))
        return bool(struct.unpack(">h", body[-2:])[0] == _NO_ERROR)

    return check


def _transaction_check(transactional_id: str) -> _Check:
    def check(connection: socket.socket) -> bool:
        if not _has_coordinator(connection, transactional_id, _TRANSACTION):
            return False
        encoded = transactional_id.encode()
        request = bytes([2, len(encoded) + 1]) + encoded + b"\0"
        body = _call(connection, _DESCRIBE_TRANSACTIONS, 0, request, flexible=True)
        # header tags, throttle time, length of the one-element list, then its error code
        (error,) = struct.unpack_from(">h", body, 1 + 4 + 1)
        return error in (_NO_ERROR, _UNKNOWN_TRANSACTIONAL_ID)

    return check


def _has_coordinator(connection: socket.socket, key: str, kind: int) -> bool:
    body = _call(connection, _FIND_COORDINATOR, 1, _string(key) + struct.pack(">b", kind))
    return bool(struct.unpack_from(">h", body, 4)[0] == _NO_ERROR)


def _connect(port: int) -> socket.socket:
    return socket.create_connection((HOST, port), timeout=_TIMEOUT_S)


def _call(connection: socket.socket, key: int, version: int, body: bytes, *, flexible: bool = False) -> bytes:
    """One request and its answer without length and correlation id."""
    header = struct.pack(">hhi", key, version, 1) + _string("heddle-probe") + (b"\0" if flexible else b"")
    connection.sendall(struct.pack(">i", len(header) + len(body)) + header + body)
    (length,) = struct.unpack(">i", _receive(connection, 4))
    return _receive(connection, length)[4:]


def _receive(connection: socket.socket, length: int) -> bytes:
    parts = bytearray()
    while len(parts) < length:
        part = connection.recv(length - len(parts))
        if not part:
            raise ConnectionError("the broker closed the connection")
        parts += part
    return bytes(parts)


def _string(text: str) -> bytes:
    encoded = text.encode()
    return struct.pack(">h", len(encoded)) + encoded
