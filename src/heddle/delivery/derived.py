"""Headers of derived events: a new identity, type and lineage; time, trace and root are the parent's."""

from __future__ import annotations

from hashlib import blake2b

from heddle.event import (
    DIGITS_AS_ZERO,
    ID,
    ID_ALPHABET,
    ID_DIGEST_BYTES,
    LINEAGE,
    LINEAGE_VERSION,
    SOURCE,
    SPECVERSION,
    SPECVERSION_HEADER,
    TIME,
    TRACE_SHAPE,
    TRACE_START,
    TRACEPARENT,
    TYPE,
    ParsedHeaders,
    RawHeaders,
    hashed_id,
    prefixed,
)


class DerivedHeaders:
    """One per flow: what is the same for all of its outputs is made once.

    An output's id is a function of (parent identity, flow, output contract, entity key, ordinal within that key), so
    that an inserted output of another entity shifts no id."""

    def __init__(self, project: str, flow: str, contract: str, revision: str) -> None:
        self._middle = prefixed(flow.encode()) + prefixed(contract.encode())
        self._source = (SOURCE, f"/{project}/{flow}".encode())
        self._type = (TYPE, contract.encode())
        self._before_root = b"%b;%b;" % (LINEAGE_VERSION, revision.encode())

    def id_of(self, source: bytes, parent_id: bytes, key: bytes, ordinal: int) -> bytes:
        tail = _FIRST if ordinal == 0 else prefixed(b"%d" % ordinal)
        return hashed_id(prefixed(source) + prefixed(parent_id) + self._middle + prefixed(key) + tail)

    def of(self, parent: ParsedHeaders, key: bytes, ordinal: int) -> RawHeaders:
        """The seven, then what came along and is none of ours."""
        headers: RawHeaders = [
            SPECVERSION_HEADER,
            (ID, self.id_of(parent.source, parent.id, key, ordinal)),
            self._source,
            self._type,
            (TIME, parent.time),
            (LINEAGE, self._before_root + parent.root),
        ]
        if parent.traceparent is not None:
            headers.append((TRACEPARENT, parent.traceparent))
        headers.extend(parent.extra)
        return headers

    def of_each(self, parents: list[RawHeaders], keys: list[bytes | None]) -> list[RawHeaders | None]:
        """`of` for first outputs, a whole batch in a third of the time. None where a key is None, and for a parent
        whose headers are not our seven, in the order in which we write them, and nothing else.

        In one loop, because a batch of a thousand has seven thousand headers."""
        own_source, own_type, own_before_root, middle = self._source, self._type, self._before_root, self._middle
        made: list[RawHeaders | None] = []
        unnamed: list[RawHeaders] = []
        digests: list[bytes] = []
        # Mostly the same all through a batch: one version of one flow has made it.
        before_root, hashed, begun = b"", b"", blake2b()
        for headers, key in zip(parents, keys, strict=True):
            made.append(None)
            try:
                (first, _), (second, event_id), (third, source), (fourth, _), time, (sixth, lineage), trace = headers
            except ValueError:
                continue
            if not (
                first == SPECVERSION and second == ID and third == SOURCE and fourth == TYPE and time[0] == TIME
                and sixth == LINEAGE and trace[0] == TRACEPARENT
                and key is not None and event_id and source and time[1] and lineage
                and (parent := trace[1]) and parent.startswith(TRACE_START)
                and parent.translate(DIGITS_AS_ZERO) == TRACE_SHAPE
            ):  # fmt: skip
                continue
            if not before_root or not lineage.startswith(before_root):
                before_root = _before_root(lineage)
            root = lineage[len(before_root) :]
            if not before_root or _SEMICOLON not in root:
                continue
            if source != hashed:
                hashed, begun = source, blake2b(prefixed(source), digest_size=ID_DIGEST_BYTES)
            digest = begun.copy()
            digest.update(
                len(event_id).to_bytes(4, "big") + event_id + middle + len(key).to_bytes(4, "big") + key + _FIRST
            )
            digests.append(digest.digest())
            made[-1] = output = [
                SPECVERSION_HEADER, _NO_ID, own_source, own_type, time, (LINEAGE, own_before_root + root), trace
            ]  # fmt: skip
            unnamed.append(output)
        for output, event_id in zip(unnamed, ids_of_each(digests), strict=True):
            output[_AT_ID] = (ID, event_id)
        return made


_FIRST = prefixed(b"0")
_NO_ID = (ID, b"")
_AT_ID = 1
_SEMICOLON = ord(";")
_LINEAGE_START = LINEAGE_VERSION + b";"


def _before_root(lineage: bytes) -> bytes:
    """Version and revision of a packed lineage; empty where there are none that we know."""
    return lineage[: lineage.find(b";", len(_LINEAGE_START)) + 1] if lineage.startswith(_LINEAGE_START) else b""


def ids_of_each(digests: list[bytes]) -> list[bytes]:
    """The text of `hashed_id`, a column at a time: of all groups of five bytes, which are eight characters, the first
    bytes, the second, and so on. A character is some bits of one byte, or the last of one and the first of the next."""
    padded = _PADDING.join([*digests, b""])
    columns = [padded[place::5] for place in range(5)]
    size = len(columns[0])
    text = bytearray(size * 8)
    for place, (column, bits, next_bits) in enumerate(_CHARACTERS):
        values = columns[column].translate(bits)
        if next_bits is not None:
            rest = columns[column + 1].translate(next_bits)
            values = (int.from_bytes(values, "big") | int.from_bytes(rest, "big")).to_bytes(size, "big")
        text[place::8] = values
    letters = bytes(text.translate(_LETTERS))
    return [letters[start : start + 26] for start in range(0, len(letters), _PADDED_BYTES // 5 * 8)]


_LETTERS = ID_ALPHABET.ljust(256)
_PADDED_BYTES = 20
_PADDING = bytes(_PADDED_BYTES - ID_DIGEST_BYTES)


def _character(place: int) -> tuple[int, bytes, bytes | None]:
    """Of one of the eight: its column, its bits by that column's byte, and what the byte of the next column adds."""
    column, skipped = divmod(5 * place, 8)
    bits = bytes(byte << skipped >> 3 & 31 for byte in range(256))
    return column, bits, bytes(byte >> 11 - skipped for byte in range(256)) if skipped > 3 else None


_CHARACTERS = [_character(place) for place in range(8)]
