"""Bodies as values, for `--where`: many of them, so on generated decoders."""

from __future__ import annotations

import json
from collections.abc import Callable
from threading import Lock
from typing import Any

from heddle.contracts import Registry
from heddle.contracts.codec import FRAME_BYTES, schema_id_of
from heddle.contracts.codegen import REFUSALS
from heddle.contracts.decode_compiler import compile_decoder
from heddle.contracts.limits import DEFAULT_LIMITS
from heddle.contracts.parser import parse_schema
from heddle.contracts.resolution import as_written
from heddle.contracts.schema import MISSING
from heddle.contracts.shapes import DictShape
from heddle.delivery.envelope import original_of
from heddle.errors import ContractError
from heddle.operations.dead_letters.entries import EntryView


class Payloads:
    """`value_of` for `Selection.matches`, for any number of threads. Asks the registry once for each schema, and raises
    what that raises."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._lock = Lock()
        self._decoders: dict[bytes, Callable[[bytes], Any]] = {}

    def value_of(self, view: EntryView) -> Any:
        """As its writer wrote it, or the JSON of a raw delivery; `MISSING` for null and for what is neither."""
        value = None if view.record is None else original_of(view.record).value
        if not value:
            return MISSING
        try:
            return self._decoder(value[:FRAME_BYTES])(value) if value[0] == 0 else json.loads(value)
        except (ContractError, RecursionError, *REFUSALS):
            return MISSING

    def _decoder(self, frame: bytes) -> Callable[[bytes], Any]:
        with self._lock:
            if frame not in self._decoders:
                self._decoders[frame] = self._compiled(schema_id_of(frame))
            return self._decoders[frame]

    def _compiled(self, schema_id: int) -> Callable[[bytes], Any]:
        action = as_written(parse_schema(self._registry.schema(schema_id)))
        return compile_decoder(action, DictShape(), DEFAULT_LIMITS, FRAME_BYTES, f"schema {schema_id}")
