"""What every kind of source and of sink has to do, as checks that its own tests run. Not for production code."""

from heddle.testing.conformance.gateways import Answer, Gateway, Gateways, MemoryGateways, Sent
from heddle.testing.conformance.pulled import PulledSourceConformance
from heddle.testing.conformance.pushed import PushedSourceConformance
from heddle.testing.conformance.sinks import SinkConformance

__all__ = [
    "Answer",
    "Gateway",
    "Gateways",
    "MemoryGateways",
    "PulledSourceConformance",
    "PushedSourceConformance",
    "Sent",
    "SinkConformance",
]
