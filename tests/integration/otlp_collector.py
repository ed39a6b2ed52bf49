"""A collector for tests: a real HTTP server that takes OTLP, decoded by OpenTelemetry's own message types."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

Point = tuple[str, Mapping[str, str]]


@dataclass
class Collector:
    """`exports`: by service, the newest values of each (metric, attributes as sorted pairs). `gate`: while it is
    cleared, requests are taken and not answered. `status`: of its answers."""

    url: str = ""
    status: int = 200
    gate: threading.Event = field(default_factory=threading.Event)
    exports: dict[str, dict[tuple[Any, ...], float]] = field(default_factory=dict)
    resources: dict[str, dict[str, str]] = field(default_factory=dict)
    units: dict[str, str] = field(default_factory=dict)
    asked: list[dict[str, str]] = field(default_factory=list)

    def value(self, service: str, metric: str, **attributes: str) -> float | None:
        """Attribute names with `_` for their dots."""
        wanted = tuple(sorted((name.replace("_", "."), value) for name, value in attributes.items()))
        return self.exports.get(service, {}).get((metric, *wanted))

    def take(self, headers: Mapping[str, str], body: bytes) -> None:
        self.asked.append({name.lower(): value for name, value in headers.items()})
        for resource in ExportMetricsServiceRequest.FromString(body).resource_metrics:
            about = {each.key: each.value.string_value for each in resource.resource.attributes}
            self.resources[about["service.name"]] = about
            found: dict[tuple[Any, ...], float] = {}
            for metric in (metric for scope in resource.scope_metrics for metric in scope.metrics):
                self.units[metric.name] = metric.unit
                kind = metric.WhichOneof("data")
                assert kind == "gauge" or (metric.sum.is_monotonic and metric.sum.aggregation_temporality == 2)
                for point in getattr(metric, kind).data_points:
                    pairs = sorted((each.key, each.value.string_value) for each in point.attributes)
                    found[metric.name, *pairs] = getattr(point, point.WhichOneof("value"))
            self.exports[about["service.name"]] = found


@contextmanager
def collecting() -> Iterator[Collector]:
    collector = Collector()
    collector.gate.set()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            collector.gate.wait(30)
            if collector.status == 200:
                collector.take(dict(self.headers), body)
            self.send_response(collector.status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    collector.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield collector
    collector.gate.set()
    server.shutdown()
    thread.join()
    server.server_close()
