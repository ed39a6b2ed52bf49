"""What a shell offers for a value: what the project declares, never what a broker knows."""

from __future__ import annotations

from collections.abc import Iterable

from heddle.delivery.envelope import State
from heddle.errors import FailureClass, HeddleError
from heddle.project import load_project


def subscriptions(incomplete: str) -> list[str]:
    """A project that cannot be loaded has none to offer: nobody waits for an error behind the tabulator key."""
    try:
        names = load_project().components
    except HeddleError:
        return []
    return _beginning(names, incomplete)


def states(incomplete: str) -> list[str]:
    return _beginning([state for state in State if not state.is_marker], incomplete)


def failure_classes(incomplete: str) -> list[str]:
    return _beginning(FailureClass, incomplete)


def _beginning(words: Iterable[str], incomplete: str) -> list[str]:
    return [str(word) for word in words if word.startswith(incomplete)]
