"""The pure Python engine: what it makes of plans, and that no bytes get the better of it."""

from __future__ import annotations

import pytest
import wire_case as w
from wire_plans import CASES

from heddle.wire.engine import Output
from heddle.wire.python_engine import PythonEngine


def outcomes(case: w.Case) -> list[w.Expected]:
    engine = PythonEngine()
    engine.add(w.WRITER, case.plan, case.functions, w.FRAME)
    outputs, refused = engine.transcode([w.WRITER + body for body, _ in case.records])
    return [told(output, index in refused) for index, output in enumerate(outputs)]


def told(output: Output | None, refused: bool) -> w.Expected:
    if output is None:
        return w.REFUSED if refused else w.LEFT_OUT
    assert not refused
    assert output[1].startswith(w.FRAME)
    return output[0], output[1][len(w.FRAME) :]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_plans_come_out_as_written_beside_them(case: w.Case) -> None:
    assert outcomes(case) == [expected for _, expected in case.records]
