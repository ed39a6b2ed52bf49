"""What every kind of pulled source has to do, as checks that its own tests run. Not for production code."""

from heddle.testing.conformance.pulled import PulledSourceConformance

__all__ = ["PulledSourceConformance"]
