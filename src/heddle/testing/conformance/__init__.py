"""What every kind of pulled source and of sink has to do, as checks that its own tests run. Not for production code."""

from heddle.testing.conformance.pulled import PulledSourceConformance
from heddle.testing.conformance.sinks import SinkConformance

__all__ = ["PulledSourceConformance", "SinkConformance"]
