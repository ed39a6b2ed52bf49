"""The transcoder on fastavro's native dicts: decode, map, encode. What a byte-to-byte plan will replace."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from heddle.contracts import Codec
from heddle.errors import AuthError, DependencyDownError, Failure, FailureClass, HeddleError
from heddle.mapping.compile import Native
from heddle.mapping.refusals import CallError
from heddle.wire.engine import Outputs

_INTERRUPTS: Final = (DependencyDownError, AuthError)


class DictTranscoder:
    """One mapping between two codecs."""

    def __init__(
        self, mapped: Callable[[Native], Native | None], reader: Codec[Any], writer: Codec[Any],
        key_of: Callable[[Any], bytes],
    ) -> None:  # fmt: skip
        self._mapped = mapped
        self._reader = reader
        self._writer = writer
        self._key_of = key_of

    def transcode(self, values: Sequence[bytes | None]) -> tuple[Outputs, list[Failure]]:
        """As `Transcoder.transcode`."""
        natives, undecodable = self._reader.decode_dict_batch(values)
        mapped, key_of, encode = self._mapped, self._key_of, self._writer.encode_dict
        keys: list[bytes | None] = []
        framed: list[bytes | None] = []
        failures = list(undecodable)
        for index, native in enumerate(natives):
            key: bytes | None = None
            value: bytes | None = None
            if native is not None:
                try:
                    output = mapped(native)
                    if output is not None:
                        key, value = key_of(output), encode(output)
                except _INTERRUPTS:
                    raise
                except Exception as error:
                    failures.append(failure_of(index, error))
            keys.append(key)
            framed.append(value)
        failures.sort(key=lambda failure: failure.index)
        return Outputs(keys, framed), failures


def failure_of(index: int, error: Exception) -> Failure:
    """A failed record's row. What no rule foresaw is `unknown`, with the exception attached."""
    path = str(getattr(error, "path", ""))
    match error:
        case CallError():
            return Failure(index, FailureClass.UNKNOWN, error.code, path, str(error), error.error)
        case HeddleError():
            return Failure(index, error.failure_class, error.code, path, str(error), error)
        case _:
            return Failure(index, FailureClass.UNKNOWN, "mapping", "", f"{type(error).__name__} in the mapping", error)
