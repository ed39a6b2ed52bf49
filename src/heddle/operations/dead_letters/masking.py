"""Classified fields stay masked until somebody gives a reason, which the audit trail keeps."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from heddle.contracts import Contract, contract_of
from heddle.errors import FailureClass
from heddle.integration import Component, Flow, Sink, Source
from heddle.operations.dead_letters.differences import ABSENT, Difference
from heddle.operations.dead_letters.entries import EntryView
from heddle.operations.dead_letters.fields import FieldRow, Mark

MASK: Final = "••••"
_LEAST_CHARS: Final = 4  # shorter values (a flag, a currency) would blot out texts that do not tell of them
_STEP: Final = re.compile(r"\[(?:\d+|'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\")\]")


@dataclass(slots=True)
class Masking:
    """`paths` as the contract's metadata has them. `found`: the values masked so far, by which texts are searched."""

    paths: tuple[str, ...] = ()
    found: set[str] = field(default_factory=set)

    @staticmethod
    def of(contracts: Iterable[Contract]) -> Masking:
        return Masking(tuple(path for contract in contracts for path in contract.metadata.classified))

    def __bool__(self) -> bool:
        return bool(self.paths)

    def rows(self, rows: Sequence[FieldRow]) -> list[FieldRow]:
        """A field that the handler's contract does not have is masked too: nobody has said what it is."""
        return [
            row._replace(value=self._masked(row.value))
            if self and (row.mark is Mark.EXTRA or self._covers(row.path))
            else row
            for row in rows
        ]

    def differences(self, found: Sequence[Difference], *, of_raw: bool) -> list[Difference]:
        """`of_raw`: no contract explains the documents."""
        return [
            Difference(each.path, self._masked(each.was), self._masked(each.now))
            if self and (of_raw or self._covers(each.path))
            else each
            for each in found
        ]

    def document(self, document: Any, *, of_raw: bool) -> Any:
        """The document with what is classified masked, and nothing beside it."""
        return self.whole(document) if of_raw else self._leaves(document, "")

    def _leaves(self, document: Any, path: str) -> Any:
        if any(path == each or _inside(path, each) for each in self.paths):
            return self._masked(document)
        match document:
            case Mapping():
                return {name: self._leaves(part, f"{path}.{name}" if path else name) for name, part in document.items()}
            case list():
                return [self._leaves(part, path) for part in document]
            case _:
                return document

    def whole(self, document: Any) -> Any:
        """A document that no contract explains: all of it but its form."""
        if self:
            match document:
                case Mapping():
                    return {name: self.whole(part) for name, part in document.items()}
                case list():
                    return [self.whole(part) for part in document]
                case _:
                    return self._masked(document)
        return document

    def text(self, text: str) -> str:
        """Without the values that were masked before."""
        for value in sorted(self.found, key=len, reverse=True):
            text = text.replace(value, MASK)
        return text

    def message(self, view: EntryView) -> str:
        """Errors of codecs and mappings hold no content; what a handler or a client says may hold any."""
        return self.text(view.message) if not self or _is_without_content(view) else MASK if view.message else ""

    def stack(self, view: EntryView) -> str:
        """The frames, which are code, and in place of what the exception says its type."""
        if not self or _is_without_content(view):
            return self.text(view.stack)
        frames = [line for line in view.stack.splitlines() if line.startswith("  ")]
        return "\n".join([*frames, f"{view.exception}: {MASK}"]) if view.stack else ""

    def listed(self, view: EntryView, contracts: Iterable[Contract]) -> EntryView:
        """As it may stand in a list."""
        key = MASK.encode() if view.key is not None and self.hides_key(contracts) else view.key
        return replace(view, key=key, message=self.message(view)) if self else view

    def hides_key(self, contracts: Iterable[Contract]) -> bool:
        """Whether the record key is made of a classified field."""
        return any(self._covers(path) for contract in contracts for path in contract.metadata.key)

    def _covers(self, path: str) -> bool:
        """A value that is shown whole is masked when any part of it is classified."""
        name = _STEP.sub("", path)
        return any(name in ("", each) or _inside(name, each) or _inside(each, name) for each in self.paths)

    def _masked(self, value: Any) -> Any:
        if value is None or value is ABSENT:
            return value
        self.found.update(text for text in _texts(value) if len(text) >= _LEAST_CHARS)
        return MASK


def _is_without_content(view: EntryView) -> bool:
    return view.failure_class == FailureClass.CONTRACT and view.exception.startswith("heddle.")


def contracts_of(component: Component | None) -> list[Contract]:
    """Those whose classified fields its entries may hold; a source's raw deliveries become events of several."""
    match component:
        case Flow() | Sink():
            return [contract_of(component.reads)]
        case Source():
            return [contract_of(kind) for kind in component.emits]
        case _:
            return []


def _inside(path: str, container: str) -> bool:
    return path.startswith(f"{container}.")


def _texts(value: Any) -> Iterable[str]:
    match value:
        case Mapping():
            return [text for part in value.values() for text in _texts(part)]
        case list():
            return [text for part in value for text in _texts(part)]
        case bool() | None:
            return ()
        case _:
            return (str(value),)
