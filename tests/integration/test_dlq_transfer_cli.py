"""Export, import and adopt as on-call types them: on the real stack, with workers of `heddle run`."""

from __future__ import annotations

import json
import re
import shlex
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "contracts"))

from building import record, write_contract
from cli_project import CliProject

from heddle.broker.kafka import KafkaBroker
from heddle.broker.log import Headers, Outgoing, TopicSpec
from heddle.settings import Settings

if TYPE_CHECKING:
    from heddle.local import Stack

pytestmark = pytest.mark.stack

BACK = """
from heddle import Flow
from schemas.{prefix} import Other, Thing


def convert(other: Other) -> Thing:
    return Thing(id=other.id, at=0)


back = Flow("{prefix}-back", reads=Other, writes=Thing, do=convert, owner="testers")
"""
SPRING: Headers = [("kafka_dlt-exception-fqcn", b"org.x.Odd"), ("kafka_dlt-original-offset", b"41")]


@dataclass
class OnCall:
    """Two flows, each from the topic of its own; neither can read what is fed."""

    project: CliProject
    flow: str
    other: str

    def __call__(self, *words: str, code: int = 0) -> str:
        result = self.project.heddle("dlq", *words)
        assert result.returncode == code, result.stdout + result.stderr
        return result.stdout

    def type_applied(self, text: str) -> str:
        """The command line that a plan ends with, with a reason in its place."""
        line = re.search(r"^  heddle dlq (.+)$", text, re.MULTILINE)
        assert line is not None, text
        return self(*(word.replace("…", "because") for word in shlex.split(line[1])))

    def entries(self, name: str) -> list[Any]:
        return list(json.loads(self("list", name, "--json"))["entries"])

    def feed(self, topic: str, *records: tuple[bytes | None, bytes, Headers]) -> None:
        with closing(KafkaBroker(self.settings).producer(f"feed-{time.time_ns()}")) as producer:
            producer.init(30)
            producer.begin()
            producer.produce(Outgoing(topic, key, value, headers, 0) for key, value, headers in records)
            producer.commit(30)

    @property
    def settings(self) -> Settings:
        return Settings(bootstrap_servers=self.project.stack.bootstrap_servers, local=True)


@pytest.fixture(scope="module")
def on_call(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OnCall]:
    project = CliProject(tmp_path_factory.mktemp("project"), stack)
    (project.root / "topologies/back.py").write_text(BACK.format(prefix=project.prefix))
    other = record([("id", "string")], "Other", f"{project.prefix}.v1")
    classified = 'classified = ["id"]\n[topic]\npartitions = 2\n'
    write_contract(project.root, other, f"{project.prefix}/other.v1", toml=classified)
    found = OnCall(project, project.flow("there"), f"{project.prefix}-back")
    applied = project.heddle("apply")
    assert applied.returncode == 0, applied.stderr
    worker = project.start("run")
    yield found
    worker.send_signal(signal.SIGTERM)
    worker.wait(60)


def test_entries_travel_in_a_file(on_call: OnCall) -> None:
    on_call.feed(on_call.project.topic, (b"\xff", b"\x07no frame", [("a", b"1"), ("a", None)]))
    deadline = time.monotonic() + 120
    while not any(entry["code"] == "foreign-bytes" for entry in on_call.entries(on_call.flow)):
        assert time.monotonic() < deadline, "not in time"
    file = on_call.project.root / "entries.jsonl"
    file.write_text(on_call("export", on_call.flow, "--code", "foreign-bytes"))
    assert json.loads(file.read_text())["headers"] == [["a", "MQ=="], ["a", None]]
    text = on_call("import", on_call.other, str(file))
    assert "1 entry of" in text
    assert "where they come from they are 1 dead" in text
    assert "1 carry no event id" in text
    assert "1  imported" in on_call.type_applied(text)
    (entry,) = (entry for entry in on_call.entries(on_call.other) if "@" in entry["id"])
    assert (entry["code"], "\\xff" in text) == ("foreign-bytes", False), "the key is made of a classified field"
    refused = on_call.project.heddle("dlq", "export", on_call.other)
    assert (refused.returncode, "classifies fields" in refused.stderr) == (2, True)
    again = json.loads(on_call("export", on_call.other, entry["id"], "--reason", "a customer asks"))
    assert (again["entry"], again["value"]) == (entry["id"], json.loads(file.read_text())["value"])
    while "a customer asks" not in on_call("show", entry["id"]):
        assert time.monotonic() < deadline, "no trace of the export"
    file.write_text(file.read_text() + "?\n")
    refused = on_call.project.heddle("dlq", "import", on_call.other, str(file))
    assert refused.returncode == 2
    assert "1 of 2 lines cannot be read" in refused.stderr
    assert "line 2: no JSON" in refused.stderr


def test_a_topic_of_spring_kafka_is_adopted(on_call: OnCall) -> None:
    topic = f"{on_call.project.prefix}-dlt"
    with closing(KafkaBroker(on_call.settings).admin()) as admin:
        admin.create_topics([TopicSpec(topic, 1)])
    on_call.feed(topic, (b"k", b"1", SPRING), (b"k", b"2", ()))
    text = on_call("adopt", on_call.flow, topic)
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert {"1 spring-kafka", "1 none that is known"} <= set(lines)
    assert "1 kafka_dlt-original-offset 2 bytes, not 8" in lines
    assert f"{topic}/0-0 kafka_dlt-original-offset (2 bytes, not 8)" in lines
    assert "1 come after another of their key" in text
    document = json.loads(on_call("adopt", on_call.flow, topic, "--json"))
    assert document["unreadable"] == [
        {"format": "spring-kafka", "header": "kafka_dlt-original-offset", "why": "2 bytes, not 8", "records": 1}
    ]
    assert "2  imported" in on_call.type_applied(text)
    codes = {entry["code"] for entry in on_call.entries(on_call.flow) if topic in entry["id"]}
    assert codes == {"Odd", "adopted"}
    refused = on_call.project.heddle("dlq", "adopt", on_call.flow, f"{on_call.flow}.dlq")
    assert (refused.returncode, "was written by Heddle" in refused.stderr) == (2, True)
