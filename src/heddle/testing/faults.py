"""Breaking a dependency on purpose, and mending it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


class Crash(BaseException):
    """Raised by a handler, or by a fake that it calls: the process dies at this very place, as by kill -9.

    The harness then starts the next worker, as a supervisor would."""


@dataclass(slots=True)
class _Fault:
    error: BaseException | type[BaseException]
    left: int | None
    keys: frozenset[str]

    def fits(self, key: str) -> bool:
        return self.left != 0 and (not self.keys or key in self.keys)


class Faults:
    """What a fake asks before it does its work.

    class FakeErp:
        def __init__(self) -> None:
            self.faults = Faults()

        def book(self, order_id: str) -> None:
            self.faults.check(order_id)
            ...

    erp.faults.fail(TimeoutError("no answer"), times=3)
    """

    def __init__(self) -> None:
        self._faults: list[_Fault] = []

    def fail(
        self, error: BaseException | type[BaseException], *, times: int | None = None, keys: Iterable[str] = ()
    ) -> None:
        """Raise it from now on: `times` times, or until mended; for these keys, or for all."""
        self._faults.append(_Fault(error, times, frozenset(keys)))

    def mend(self) -> None:
        """Nothing fails any more."""
        self._faults.clear()

    def check(self, key: str = "") -> None:
        """Raise what is due for this key, if anything is."""
        for fault in self._faults:
            if fault.fits(key):
                if fault.left is not None:
                    fault.left -= 1
                raise fault.error if isinstance(fault.error, type) else fault.error.with_traceback(None)

    @property
    def lasting(self) -> BaseException | type[BaseException] | None:
        """What fails for every key until it is mended."""
        return next((fault.error for fault in self._faults if fault.left is None and not fault.keys), None)
