"""Which engine runs mappings on this machine."""

from __future__ import annotations

from heddle.errors import UsageError
from heddle.wire.engine import Engine
from heddle.wire.native_engine import native_engine
from heddle.wire.python_engine import PythonEngine
from heddle.wire.shadow_engine import ShadowEngine


def chosen_engine(codec: str) -> Engine | None:
    """A new engine for what HEDDLE_CODEC says (`Settings.codec`), None for `objects`. Raises `UsageError` where the
    native one is asked for and not there."""
    if codec == "objects":
        return None
    native = None if codec == "python" else native_engine()
    if codec == "both" and native is not None:
        return ShadowEngine(PythonEngine(), native)
    if native is None and codec in ("native", "both"):
        raise UsageError(
            f"HEDDLE_CODEC={codec}, but the native engine is not installed, or speaks another version of plans",
            hint="run `make native`, or unset HEDDLE_CODEC",
        )
    return native or PythonEngine()
