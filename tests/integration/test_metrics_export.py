"""Metrics as a collector gets them: from the processes that `heddle run` starts, and when it does not answer."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from cli_project import CliProject
from otlp_collector import Collector, collecting
from postgres_source_harness import eventually
from rest_server import Api, RestServer
from structlog.testing import capture_logs

from heddle.errors import UsageError
from heddle.secrets import redact
from heddle.telemetry import export
from heddle.telemetry.catalogue import CATALOGUE, SOURCE_SUNSET
from heddle.telemetry.export import exported_metrics
from heddle.telemetry.metrics import observe

if TYPE_CHECKING:
    from heddle.local import Stack

ROWS = 50
POLLED = """
from datetime import UTC, datetime
from heddle import Draft, Resource, RestSource
from heddle.sources.rest import Cursor, HighWater
from schemas.{prefix} import Thing


def told(row):
    yield Draft(Thing(id=str(row.id), at=0), row.event_id, row.changed_at)


crm = RestSource(
    "{prefix}-crm", base_url="{url}/v1", version=None, emits=Thing, owner="testers",
    resources=[
        Resource(
            "deals", path="deals", rows="data", paging=Cursor("cursor", at="next", more="has_more"), every_s=0.2,
            follow=HighWater(changed="updatedAt", since="updated_since", overlap_s=60), convert=told,
        )
    ],
)
"""


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as started:
        yield started


@pytest.fixture
def environment(collector: Collector, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.setenv("OTEL_METRICS_EXPORTER", "otlp")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
    monkeypatch.setenv("OTEL_METRIC_EXPORT_INTERVAL", "200")
    return monkeypatch


@contextmanager
def running(project: CliProject, *names: str) -> Iterator[None]:
    process = project.start("run", *names)
    try:
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0


@pytest.mark.stack
def test_the_end_of_a_polled_api_and_what_settled_reach_a_collector(
    tmp_path: Path, stack: Stack, collector: Collector
) -> None:
    api = Api()
    for number in range(ROWS):
        api.put(number, f"n{number}")
    server = RestServer(api)
    project = CliProject(tmp_path, stack)
    (tmp_path / "producers").mkdir()
    (tmp_path / "producers" / "crm.py").write_text(POLLED.format(prefix=project.prefix, url=server.url))
    source, flow = f"{project.prefix}-crm", project.flow("copy")
    project.env |= {
        "OTEL_METRICS_EXPORTER": "otlp",
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
        "OTEL_EXPORTER_OTLP_HEADERS": "authorization=Bearer%20of-the-collector",
        "OTEL_METRIC_EXPORT_INTERVAL": "300",
    }
    applied = project.heddle("apply")
    assert applied.returncode == 0, applied.stdout + applied.stderr
    pulled, about = f"{source}.pull", {"heddle_source": source, "server_address": "127.0.0.1"}

    def sunset() -> float | None:
        return collector.value(pulled, "heddle.source.sunset.timestamp", **about)

    def settled(service: str) -> float | None:
        return collector.value(service, "heddle.records.settled", heddle_subscription=service, heddle_outcome="emitted")

    with running(project, source, flow):
        eventually(lambda: settled(flow) == ROWS == settled(pulled), "all rows settled, twice")
        assert sunset() is None, "nothing is announced yet"
        api.headers = {"Deprecation": "@1767225601", "Sunset": "Wed, 01 Jul 2026 12:00:00 GMT"}
        eventually(lambda: sunset() == 1782907200, "the sunset is told")
        assert collector.value(pulled, "heddle.source.deprecation.timestamp", **about) == 1767225601
        api.headers = {}
        eventually(lambda: sunset() is None, "and taken back")
    server.close()
    assert settled(source) == 0, "nothing had to be converted again"
    assert collector.units == {metric.name: metric.unit for metric in CATALOGUE}
    assert {asked["authorization"] for asked in collector.asked} == {"Bearer of-the-collector"}
    resource = collector.resources[flow]
    assert (resource["service.namespace"], resource["service.instance.id"]) == ("test", f"{flow}.0")


def test_what_came_since_the_last_export_is_exported_at_the_end(
    environment: pytest.MonkeyPatch, collector: Collector
) -> None:
    environment.setenv("OTEL_METRIC_EXPORT_INTERVAL", "3600000")
    environment.setenv("OTEL_SERVICE_NAME", "ours")
    observe(SOURCE_SUNSET, "a test", lambda: [(7, {"heddle.source": "a test"})])
    with exported_metrics("project", "component", "3"):
        assert collector.exports == {}
    observe(SOURCE_SUNSET, "a test", list)
    assert collector.value("ours", SOURCE_SUNSET.name, heddle_source="a test") == 7
    assert collector.resources["ours"]["service.instance.id"] == "component.3"


def test_a_collector_that_hangs_holds_up_nothing_for_long(
    environment: pytest.MonkeyPatch, collector: Collector
) -> None:
    environment.setattr(export, "LAST_EXPORT_S", 0.5)
    collector.gate.clear()
    observe(SOURCE_SUNSET, "a test", lambda: [(7, {})])
    with exported_metrics("project", "component", "0"):
        began = time.monotonic()
    assert time.monotonic() - began < 2
    observe(SOURCE_SUNSET, "a test", list)


def test_a_collector_that_refuses_is_told_of_and_what_we_show_it_is_not(
    environment: pytest.MonkeyPatch, collector: Collector
) -> None:
    environment.setenv("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20a-token-of-the-collector")
    collector.status = 401
    observe(SOURCE_SUNSET, "a test", lambda: [(7, {})])
    with capture_logs() as logs, exported_metrics("project", "component", "0"):
        eventually(lambda: bool(logs), "it is told")
    observe(SOURCE_SUNSET, "a test", list)
    assert {log["event"] for log in logs} == {"metrics are not exported"}
    assert "401" in logs[0]["error"]
    assert "a-token-of-the-collector" not in redact("sent Bearer a-token-of-the-collector")


@pytest.mark.parametrize(
    ("variable", "value"),
    [("OTEL_METRICS_EXPORTER", "prometheus"), ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")],
)
def test_what_is_not_spoken_here_is_refused(environment: pytest.MonkeyPatch, variable: str, value: str) -> None:
    environment.setenv(variable, value)
    with pytest.raises(UsageError, match=variable), exported_metrics("project", "component", "0"):
        pass
