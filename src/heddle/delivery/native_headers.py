"""Headers of derived events by the optional package heddle-native (`make native`), in a third of the time."""

from __future__ import annotations

import importlib
from typing import Any, Protocol

import structlog

from heddle.delivery.derived import DerivedHeaders
from heddle.event import SPECVERSION_HEADER, RawHeaders

_Header = tuple[str, bytes]


class _Native(Protocol):
    """`heddle_native.Headers`."""

    def of_each(self, parents: list[RawHeaders], keys: list[bytes | None]) -> list[RawHeaders | None]: ...


class _Module(Protocol):
    def Headers(self, own: tuple[_Header, _Header, _Header], before_root: bytes, middle: bytes) -> _Native: ...


class NativeHeaders(DerivedHeaders):
    def __init__(self, project: str, flow: str, contract: str, revision: str) -> None:
        super().__init__(project, flow, contract, revision)
        module: _Module | None = _module()
        assert module is not None
        own = (SPECVERSION_HEADER, self._source, self._type)
        self._native = module.Headers(own, self._before_root, self._middle)

    def of_each(self, parents: list[RawHeaders], keys: list[bytes | None]) -> list[RawHeaders | None]:
        return self._native.of_each(parents, keys)


class ComparedHeaders(NativeHeaders):
    """Both ways, for HEDDLE_CODEC=both. Where they differ Python's counts, and it is said."""

    def of_each(self, parents: list[RawHeaders], keys: list[bytes | None]) -> list[RawHeaders | None]:
        natives, ours = super().of_each(parents, keys), DerivedHeaders.of_each(self, parents, keys)
        odd = [index for index, each in enumerate(natives) if each is not None and each != ours[index]]
        if odd:
            structlog.get_logger().error("headers differ: Python's are taken", records=len(odd), first=odd[0])
        return ours


def headers_for(codec: str) -> type[DerivedHeaders]:
    """What HEDDLE_CODEC (`Settings.codec`) stands for on this machine."""
    if codec in ("python", "objects") or _module() is None:
        return DerivedHeaders
    return ComparedHeaders if codec == "both" else NativeHeaders


def _module() -> Any:
    """None where it is not installed, or older than this."""
    try:
        module = importlib.import_module("heddle_native")
    except ImportError:
        return None
    return module if hasattr(module, "Headers") else None
