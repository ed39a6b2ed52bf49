"""Where metrics go: to a collector that the standard OTEL_* variables name, over OTLP (HTTP, protobuf).

Pushed, not scraped: `heddle run` is many processes that come and go, also several of one machine, and none but the
gateway listens. Off without OTEL_METRICS_EXPORTER=otlp; the SDK is not even imported then."""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import structlog

from heddle.errors import UsageError
from heddle.secrets import remember
from heddle.telemetry.catalogue import CATALOGUE, Metric
from heddle.telemetry.metrics import readings

if TYPE_CHECKING:
    from opentelemetry.metrics import CallbackOptions, Meter, Observation
    from opentelemetry.sdk.resources import Resource

EXPORTER = "OTEL_METRICS_EXPORTER"
PROTOCOLS = ("OTEL_EXPORTER_OTLP_METRICS_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
HEADERS = ("OTEL_EXPORTER_OTLP_METRICS_HEADERS", "OTEL_EXPORTER_OTLP_HEADERS")
ENDPOINTS = ("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
PROTOCOL = "http/protobuf"
LAST_EXPORT_S = 3.0
"""A collector that does not answer may not hold up a drain for longer."""


@contextlib.contextmanager
def exported_metrics(project: str, component: str, instance: str) -> Iterator[None]:
    """Exports while it is open, where that is asked for, and once more at its end.

    Raises `UsageError` for another exporter or protocol, and without the extra `otlp`."""
    if not _is_asked_for():
        yield
        return
    exporter = _exporter()
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader

    with _told_in_our_log():
        provider = MeterProvider(
            [PeriodicExportingMetricReader(exporter)],
            resource=_resource(project, component, instance),
            shutdown_on_exit=False,
        )
        try:
            _make_instruments(provider.get_meter("heddle"))
            yield
        finally:
            provider.shutdown(LAST_EXPORT_S * 1000)


def _is_asked_for() -> bool:
    wanted = os.environ.get(EXPORTER, "").strip().lower() or "none"
    if wanted not in ("none", "otlp"):
        raise UsageError(f"setting {EXPORTER}: {wanted!r} is not known", hint="say otlp or none")
    return wanted == "otlp" and os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() != "true"


def _exporter() -> Any:
    name = next((name for name in PROTOCOLS if os.environ.get(name)), "")
    if name and os.environ[name] != PROTOCOL:
        raise UsageError(f"setting {name}: {os.environ[name]!r} is not spoken here", hint=f"say {PROTOCOL}")
    try:
        module = importlib.import_module("opentelemetry.exporter.otlp.proto.http.metric_exporter")
    except ImportError:
        raise UsageError(
            f"{EXPORTER}=otlp needs the package opentelemetry-exporter-otlp-proto-http",
            hint="install it: pip install 'heddle[otlp]'",
        ) from None
    _remember_credentials()
    return module.OTLPMetricExporter()


def _remember_credentials() -> None:
    """No line of the log has what the environment holds of them: of a header the value, and a token behind its scheme;
    an address with its password."""
    for name in HEADERS:
        for pair in os.environ.get(name, "").split(","):
            value = unquote(pair.partition("=")[2].strip())
            remember(value)
            remember(value.rpartition(" ")[2])
    for name in ENDPOINTS:
        if "@" in (address := os.environ.get(name, "")):
            remember(address)


def _resource(project: str, component: str, instance: str) -> Resource:
    """What the environment says goes before what we know, but for the instance: two processes under one identity
    would overwrite each other's series."""
    from opentelemetry.sdk.resources import OTELResourceDetector, Resource

    ours = {"service.namespace": project, "service.name": component}
    given = OTELResourceDetector().detect().attributes
    return Resource.create({**ours, **given, "service.instance.id": f"{component}.{instance}"})


def _make_instruments(meter: Meter) -> None:
    from opentelemetry.metrics import Observation

    def asked(metric: Metric) -> Any:
        def answer(_: CallbackOptions) -> list[Observation]:
            return [Observation(value, attributes) for value, attributes in readings(metric)]

        return answer

    for metric in CATALOGUE:
        make = meter.create_observable_counter if metric.kind == "counter" else meter.create_observable_gauge
        make(metric.name, [asked(metric)], metric.unit, metric.what)


@contextlib.contextmanager
def _told_in_our_log() -> Iterator[None]:
    """The SDK's errors become our lines, redacted as they are: one for each export that fails, none for each try."""
    logger, handler = logging.getLogger("opentelemetry"), _Handler(logging.ERROR)
    logger.addHandler(handler)
    propagated, logger.propagate = logger.propagate, False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagated


class _Handler(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        structlog.get_logger().warning("metrics are not exported", error=record.getMessage())
