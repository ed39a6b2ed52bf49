"""The decoder of pgoutput messages: what it reads, and that no bytes make it raise anything of its own choosing."""

from __future__ import annotations

import random
from struct import pack

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heddle.sources.postgres.pgoutput import (
    UNCHANGED,
    Begin,
    Column,
    Commit,
    Delete,
    Emitted,
    Ignored,
    Insert,
    Message,
    PgoutputError,
    Relation,
    Row,
    Truncate,
    Update,
    decode,
)

# What PostgreSQL 16.14 sent for tables t and f (id int primary key, v text; f with replica identity full).
T, F = 16386, 16395
COLUMNS_OF_T = Column("id", 23, True, -1), Column("v", 25, False, -1)
COLUMNS_OF_F = Column("id", 23, True, -1), Column("v", 25, True, -1)
RECORDED: list[tuple[str, Message]] = [
    ("420000000001efd1780003041f043920e6000002f8", Begin(32493944, 848956191482086, 760)),
    (
        "52000040027075626c69630074006400020169640000000017ffffffff00760000000019ffffffff",
        Relation(T, "public", "t", "d", COLUMNS_OF_T),
    ),
    (
        "520000400b7075626c69630066006600020169640000000017ffffffff01760000000019ffffffff",
        Relation(F, "public", "f", "f", COLUMNS_OF_F),
    ),
    ("49000040024e0002740000000131740000000161", Insert(T, (b"1", b"a"))),
    ("490000400b4e00027400000001317400000002c3a9", Insert(F, (b"1", "é".encode()))),
    ("55000040024e00027400000001316e", Update(T, None, False, (b"1", None))),
    ("55000040024b00027400000001316e4e00027400000001326e", Update(T, (b"1", None), False, (b"2", None))),
    ("55000040024b00027400000001336e4e000274000000013475", Update(T, (b"3", None), False, (b"4", UNCHANGED))),
    (
        "550000400b4f00027400000001317400000002c3a94e0002740000000131740000000162",
        Update(F, (b"1", "é".encode()), True, (b"1", b"b")),
    ),
    ("44000040024b00027400000001326e", Delete(T, (b"2", None), False)),
    ("440000400b4f0002740000000131740000000162", Delete(F, (b"1", b"b"), True)),
    ("4d010000000001efd3f070000000000163", Emitted(True, 32494576, "p", b"c")),
    ("540000000200000040020000400b", Truncate((T, F))),
    (
        "43000000000001efd1780000000001efd1a80003041f043920e6",
        Commit(32493944, 32493992, 848956191482086),
    ),
]

ROWS = st.lists(st.one_of(st.none(), st.just(UNCHANGED), st.binary(max_size=40)), max_size=12).map(tuple)
U32, U64, I64 = (
    st.integers(0, 2**32 - 1),
    st.integers(0, 2**64 - 1),
    st.integers(-(2**63), 2**63 - 1),
)
NAMES = st.text(st.characters(blacklist_characters="\0", blacklist_categories=("Cs",)), min_size=1, max_size=20)


def packed_row(row: Row) -> bytes:
    parts = [pack(">H", len(row))]
    for value in row:
        if value is None:
            parts.append(b"n")
        elif isinstance(value, bytes):
            parts.append(b"t" + pack(">I", len(value)) + value)
        else:
            parts.append(b"u")
    return b"".join(parts)


def packed(message: Message) -> bytes:
    """An encoder of its own, from the manual."""
    match message:
        case Begin(lsn, time_us, xid):
            return b"B" + pack(">QqI", lsn, time_us, xid)
        case Commit(lsn, end, time_us):
            return b"C\0" + pack(">QQq", lsn, end, time_us)
        case Relation(oid, schema, table, identity, columns):
            head = b"R" + pack(">I", oid) + f"{schema}\0{table}\0{identity}".encode() + pack(">H", len(columns))
            return head + b"".join(
                bytes([c.is_key]) + c.name.encode() + b"\0" + pack(">Ii", c.oid, c.modifier) for c in columns
            )
        case Insert(relation, new):
            return b"I" + pack(">I", relation) + b"N" + packed_row(new)
        case Update(relation, old, is_full, new):
            before = b"" if old is None else (b"O" if is_full else b"K") + packed_row(old)
            return b"U" + pack(">I", relation) + before + b"N" + packed_row(new)
        case Delete(relation, old, is_full):
            return b"D" + pack(">I", relation) + (b"O" if is_full else b"K") + packed_row(old)
        case Truncate(relations):
            return b"T" + pack(">IB", len(relations), 0) + b"".join(pack(">I", oid) for oid in relations)
        case Emitted(transactional, lsn, prefix, content):
            head = b"M" + pack(">BQ", transactional, lsn) + prefix.encode() + b"\0"
            return head + pack(">I", len(content)) + content
    raise AssertionError(message)


COLUMNS = st.lists(
    st.builds(Column, NAMES, U32, st.booleans(), st.integers(-1, 2**31 - 1)), max_size=5
).map(tuple)  # fmt: skip
MESSAGES: st.SearchStrategy[Message] = st.one_of(
    st.builds(Begin, U64, I64, U32),
    st.builds(Commit, U64, U64, I64),
    st.builds(Relation, U32, NAMES, NAMES, st.sampled_from("dnfi"), COLUMNS),
    st.builds(Insert, U32, ROWS),
    st.builds(Update, U32, st.none(), st.just(False), ROWS),
    st.builds(Update, U32, ROWS, st.booleans(), ROWS),
    st.builds(Delete, U32, ROWS, st.booleans()),
    st.builds(Truncate, st.lists(U32, max_size=5).map(tuple)),
    st.builds(Emitted, st.booleans(), U64, NAMES, st.binary(max_size=40)),
)


@pytest.mark.parametrize(("data", "message"), RECORDED, ids=lambda value: type(value).__name__)
def test_recorded_messages_are_read(data: str, message: Message) -> None:
    assert decode(bytes.fromhex(data)) == message


@settings(max_examples=400, deadline=None)
@given(MESSAGES)
def test_what_the_manual_says_is_read_back(message: Message) -> None:
    assert decode(packed(message)) == message


@settings(max_examples=300, deadline=None)
@given(MESSAGES, st.data())
def test_a_message_that_is_cut_off_or_goes_on_is_refused(message: Message, data: st.DataObject) -> None:
    whole = packed(message)
    with pytest.raises(PgoutputError):
        decode(whole[: data.draw(st.integers(0, len(whole) - 1))])
    with pytest.raises(PgoutputError):
        decode(whole + b"\0")


def test_any_bytes_are_a_message_or_a_pgoutput_error() -> None:
    chance = random.Random(7)
    read = refused = 0
    seeds = [bytes.fromhex(data) for data, _ in RECORDED]
    for number in range(60_000):
        if number % 3:
            data = bytearray(chance.choice(seeds))
            for _ in range(chance.randrange(1, 4)):
                data[chance.randrange(len(data))] = chance.randrange(256)
        else:
            data = bytearray(chance.choice(b"IUDBCRTMYO?").to_bytes(1, "big") + chance.randbytes(chance.randrange(40)))
        try:
            decode(bytes(data))
            read += 1
        except PgoutputError:
            refused += 1
    assert read > 1_000
    assert refused > 10_000


def test_a_large_count_costs_nothing() -> None:
    with pytest.raises(PgoutputError):
        decode(b"I\0\0\0\1N\xff\xfft\xff\xff\xff\xff")


def test_names_of_types_and_origins_are_passed_over() -> None:
    assert decode(b"Y\0\0\0\1public\0mood\0") == Ignored("type")
    assert decode(b"O" + bytes(8) + b"here\0") == Ignored("origin")


def test_a_binary_value_is_refused_because_it_is_never_asked_for() -> None:
    with pytest.raises(PgoutputError):
        decode(b"I\0\0\0\1N\0\1b\0\0\0\1x")
