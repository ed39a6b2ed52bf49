"""A mapping from one contract to another."""

from __future__ import annotations

from typing import Any, Generic, TypeVar

S = TypeVar("S")
T = TypeVar("T")


class Mapping(Generic[S, T]):
    """How a target event is made of a source event, field by field."""

    def __init__(self, source: type[S], target: type[T], **rules: Any) -> None:
        self.source = source
        self.target = target
        self.rules = rules
