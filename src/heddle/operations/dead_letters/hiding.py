"""What plans, dry runs and editors may not show of a component's data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from heddle.contracts import Contract, contract_of
from heddle.errors import ContractError
from heddle.integration import Component, Flow, Sink, Source
from heddle.operations.dead_letters.differences import Difference, differences
from heddle.operations.dead_letters.masking import MASK, Masking


@dataclass(frozen=True, slots=True)
class Hiding:
    """Of one kind of document: a component's bodies, or its effects. `of_raw`: no contract explains them, so that a
    single classified field hides all values."""

    masking: Masking
    of_raw: bool
    hides_key: bool

    @staticmethod
    def by(contracts: list[Contract], *, of_raw: bool) -> Hiding:
        masking = Masking.of(contracts)
        return Hiding(masking, of_raw, masking.hides_key(contracts))

    def key(self, key: str | None) -> str | None:
        return MASK if key is not None and self.hides_key else key

    def differences(self, was: Any, now: Any) -> list[Difference]:
        return self.masking.differences(differences(was, now), of_raw=self.of_raw)

    def masked(self, document: Any) -> Any:
        return self.masking.document(document, of_raw=self.of_raw) if self.masking else document

    def restored(self, edited: Any, document: Any) -> Any:
        """An edited form of `masked(document)` with the hidden values in their places again. Raises `ContractError` for
        a mask that stands where none was."""
        if not self.masking:
            return edited
        return _restored(edited, self.masked(document), document, "")


def body_hiding(component: Component) -> Hiding:
    """Of the bodies that a component reads."""
    match component:
        case Flow() | Sink():
            return Hiding.by([contract_of(component.reads)], of_raw=False)
        case Source():
            return Hiding.by([contract_of(kind) for kind in component.emits], of_raw=True)
        case _:
            return Hiding.by([], of_raw=True)


def effect_hiding(component: Component) -> Hiding:
    """Of what a component emits, or writes into a target's own form."""
    match component:
        case Flow():
            return Hiding.by([contract_of(component.writes)], of_raw=False)
        case Sink():
            return Hiding.by([contract_of(component.reads)], of_raw=True)
        case Source():
            return Hiding.by([contract_of(kind) for kind in component.emits], of_raw=False)
        case _:
            return Hiding.by([], of_raw=True)


def _restored(edited: Any, shown: Any, document: Any, path: str) -> Any:
    if edited == shown == MASK:
        return document
    match edited:
        case Mapping():
            return {
                name: _restored(part, _part(shown, name), _part(document, name), f"{path}.{name}" if path else name)
                for name, part in edited.items()
            }
        case list():
            return [
                _restored(part, _part(shown, index), _part(document, index), f"{path}[{index}]")
                for index, part in enumerate(edited)
            ]
        case str() if MASK in edited:
            raise ContractError(
                f"{path} is a mask where no value was hidden",
                path=path,
                hint="a hidden value stays in its place, or is replaced whole",
            )
        case _:
            return edited


def _part(container: Any, step: str | int) -> Any:
    match container:
        case Mapping():
            return container.get(step)
        case list() if isinstance(step, int) and step < len(container):
            return container[step]
        case _:
            return None
