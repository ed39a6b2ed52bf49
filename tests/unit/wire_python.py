"""The pure Python engine, as its tests run it."""

from __future__ import annotations

import wire_case as w

from heddle.wire.python_engine import PythonEngine


def ready(case: w.Case) -> PythonEngine:
    """An engine with the plan of a case."""
    engine = PythonEngine()
    engine.add(w.WRITER, case.plan, case.functions, w.FRAME)
    return engine


def told(engine: PythonEngine, bodies: list[bytes]) -> list[w.Expected]:
    """What becomes of each body that the writer wrote."""
    outputs, refused = engine.transcode([w.WRITER + body for body in bodies])
    results: list[w.Expected] = [
        w.LEFT_OUT if output is None else (output[0], output[1].removeprefix(w.FRAME)) for output in outputs
    ]
    assert refused == sorted(set(refused))
    for index in refused:
        assert outputs[index] is None
        results[index] = w.REFUSED
    return results
