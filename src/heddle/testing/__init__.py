"""Harness and conformance suites for integrators."""
