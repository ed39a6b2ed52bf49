"""Contract values to Confluent wire format and back: a zero byte, the schema id in four bytes, Avro binary."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from hashlib import blake2b
from typing import Any, Final, Generic, Protocol, TypeVar, cast

from heddle.contracts.codegen import REFUSALS
from heddle.contracts.contract import Contract
from heddle.contracts.decode_compiler import compile_decoder
from heddle.contracts.decode_reference import decode_reference
from heddle.contracts.encode_compiler import compile_encoder
from heddle.contracts.encode_reference import encode_reference
from heddle.contracts.limits import DEFAULT_LIMITS, Limits
from heddle.contracts.parser import parse_schema
from heddle.contracts.refusals import IncompatibleWriterError, TombstoneError, TooLargeError, failure_of
from heddle.contracts.registry import Registry
from heddle.contracts.resolution import Action, resolve
from heddle.contracts.schema import Record
from heddle.contracts.shapes import DictShape, Shape, TypeShape
from heddle.errors import ContractError, DecodeError, Failure, ForeignBytesError, TruncatedError

T = TypeVar("T")

FRAME_BYTES: Final = 5
_MAGIC: Final = 0


class Codec(Protocol[T]):
    """Between values of one contract and framed bytes. Used by one thread.

    Bad data raises a `ContractError` (singly) or becomes a `Failure` (in batches), with the field path and types
    only. `DependencyDownError` and `AuthError` of the registry are raised always: nothing of a batch is settled."""

    def encode(self, value: T) -> bytes: ...

    def decode(self, data: bytes | None) -> T: ...

    def encode_batch(self, values: Sequence[T]) -> tuple[list[bytes | None], list[Failure]]:
        """Same length out; None exactly where a failure names that index."""

    def decode_batch(self, values: Sequence[bytes | None]) -> tuple[list[T | None], list[Failure]]:
        """Same length out; None exactly where a failure names that index."""

    def encode_dict(self, value: dict[str, Any]) -> bytes: ...

    def decode_dict(self, data: bytes | None) -> dict[str, Any]: ...

    def decode_dict_batch(self, values: Sequence[bytes | None]) -> tuple[list[dict[str, Any] | None], list[Failure]]:
        """As `decode_batch`, with records as dicts of fastavro's native values."""


class AvroCodec(Generic[T]):
    """The codec of one contract, on decoders that are generated per writer's schema id and kept.

    Nothing is asked of the registry before the first record."""

    def __init__(self, contract: Contract, registry: Registry, limits: Limits = DEFAULT_LIMITS) -> None:
        self.contract = contract
        self._registry = registry
        self._limits = limits
        self._plans: dict[bytes, Action] = {}

    def encode(self, value: T) -> bytes:
        return self._typed.encode(value)

    def decode(self, data: bytes | None) -> T:
        return cast(T, self._typed.decode(data))

    def encode_batch(self, values: Sequence[T]) -> tuple[list[bytes | None], list[Failure]]:
        return _batch(self._typed.encode, values)

    def decode_batch(self, values: Sequence[bytes | None]) -> tuple[list[T | None], list[Failure]]:
        return _batch(self._typed.decode, values)

    def encode_dict(self, value: dict[str, Any]) -> bytes:
        return self._dicts.encode(value)

    def decode_dict(self, data: bytes | None) -> dict[str, Any]:
        return cast(dict[str, Any], self._dicts.decode(data))

    def decode_dict_batch(self, values: Sequence[bytes | None]) -> tuple[list[dict[str, Any] | None], list[Failure]]:
        return _batch(self._dicts.decode, values)

    @cached_property
    def _typed(self) -> _Side:
        return _Side(self, TypeShape(self.contract.type, self.contract.major))

    @cached_property
    def _dicts(self) -> _Side:
        return _Side(self, DictShape())

    @cached_property
    def frame(self) -> bytes:
        """The five bytes before everything that this codec encodes. Raises `NotRegisteredError`."""
        return bytes([_MAGIC]) + self._registry.id_of(self.contract).to_bytes(4, "big")

    def plan(self, frame: bytes) -> Action:
        """How to read what the schema named in a frame wrote. Raises `UnknownSchemaIdError` for an id that the
        registry does not know and `IncompatibleWriterError` for a schema that is not this contract's."""
        if frame not in self._plans:
            schema_id = schema_id_of(frame)
            self._plans[frame] = self._resolve(self._registry.schema(schema_id), schema_id)
        return self._plans[frame]

    def _resolve(self, source: dict[str, Any], schema_id: int) -> Action:
        ours = self.contract.root
        try:
            writer = parse_schema(source)
        except ContractError as error:
            raise IncompatibleWriterError(f"schema {schema_id}: {error}") from error
        name = writer.name if isinstance(writer, Record) else str(writer)
        if name not in (ours.name, *ours.aliases):
            raise IncompatibleWriterError(
                f"schema {schema_id} is {name}, not {ours.name}", hint="another contract's record is in this topic"
            )
        action, problems = resolve(writer, ours)
        if problems:
            raise IncompatibleWriterError(
                f"schema {schema_id} cannot be read as {self.contract.name}: {problems[0]}", path=problems[0].path
            )
        return action


class _Side:
    """One shape's half of a codec."""

    def __init__(self, codec: AvroCodec[Any], shape: Shape) -> None:
        self._codec = codec
        self._shape = shape
        self._limits = codec._limits
        self._max_bytes = codec.contract.metadata.topic.max_message_bytes
        self._decoders: dict[bytes, Callable[[bytes], Any]] = {}
        self._encode = compile_encoder(codec.contract.root, shape, self._limits, codec.contract.name)

    def encode(self, value: Any) -> bytes:
        out = bytearray(self._codec.frame)
        try:
            self._encode(out, value)
        except REFUSALS:
            out = bytearray(self._codec.frame)
            out += encode_reference(self._codec.contract.root, self._shape, self._limits, value)
        if len(out) > self._max_bytes:
            raise TooLargeError(
                f"{self._codec.contract.name}: event of {len(out)} bytes, its topic takes {self._max_bytes}",
                hint="raise max_message_bytes in the contract's TOML file and run `heddle apply`",
            )
        return bytes(out)

    def decode(self, data: bytes | None) -> Any:
        if data is None:
            raise TombstoneError("null value (a tombstone) where the contract wants a record")
        frame = data[:FRAME_BYTES]
        decoder = self._decoders.get(frame) or self._decoder(frame)
        try:
            return decoder(data)
        except REFUSALS:
            try:
                return decode_reference(self._codec.plan(frame), self._shape, self._limits, data, FRAME_BYTES)
            except DecodeError as error:
                raise error.located(error.offset, schema_id_of(frame)) from None

    def _decoder(self, frame: bytes) -> Callable[[bytes], Any]:
        label = f"{self._codec.contract.name} from {schema_id_of(frame)}"
        decoder = compile_decoder(self._codec.plan(frame), self._shape, self._limits, FRAME_BYTES, label)
        self._decoders[frame] = decoder
        return decoder


def schema_id_of(data: bytes) -> int:
    """The writer's schema id in a frame. Raises `ForeignBytesError` where there is no frame."""
    if data[:1] != bytes([_MAGIC]):
        what = "bytes that begin with no schema id" if data else "an empty value"
        raise ForeignBytesError(
            f"{what}: not in Confluent wire format", hint="was it written without a registry serializer?"
        )
    if len(data) < FRAME_BYTES:
        raise TruncatedError("the record ends inside its schema id")
    return int.from_bytes(data[1:FRAME_BYTES], "big")


def body_hash(framed: bytes) -> bytes:
    """BLAKE2b-128 of an encoded event without its frame, so that one body under two schema ids hashes alike."""
    return blake2b(framed[FRAME_BYTES:], digest_size=16).digest()


def _batch(convert: Callable[[Any], Any], values: Sequence[Any]) -> tuple[list[Any], list[Failure]]:
    out: list[Any] = []
    failures: list[Failure] = []
    for index, value in enumerate(values):
        try:
            out.append(convert(value))
        except ContractError as error:
            out.append(None)
            failures.append(failure_of(index, error))
    return out, failures
