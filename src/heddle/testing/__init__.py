"""Testing a flow's, a source's or a sink's failure handling without Kafka. Not for production code."""

from heddle.integration import Outcome
from heddle.testing.clock import START, ManualClock
from heddle.testing.faults import Crash, Faults
from heddle.testing.harness import Harness
from heddle.testing.sinks import BreakableSink, RecordingSink
from heddle.testing.values import DeadLetter, Fed, Pause, PauseKind

__all__ = [
    "START",
    "BreakableSink",
    "Crash",
    "DeadLetter",
    "Faults",
    "Fed",
    "Harness",
    "ManualClock",
    "Outcome",
    "Pause",
    "PauseKind",
    "RecordingSink",
]
