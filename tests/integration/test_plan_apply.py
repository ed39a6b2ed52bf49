"""`plan` and `apply`: on memory and on the real broker and registry, and as commands on the real stack."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "contracts"))

from building import record, types_of, write_contract
from cli_server import cli_server

from heddle.audit.record import MAX_BYTES
from heddle.broker.kafka import KafkaBroker
from heddle.broker.log import Admin, Broker, Outgoing, Record, TopicSpec
from heddle.broker.memory import MemoryBroker
from heddle.contracts import ConfluentRegistry, Contract, MemoryRegistry, Registry, load_contracts
from heddle.contracts.types import write
from heddle.delivery.command import MAX_SLICE_BYTES
from heddle.delivery.envelope import Envelope
from heddle.delivery.envelope import State as EntryState
from heddle.delivery.subscription import subscription_of
from heddle.errors import Failure, FailureClass, UsageError
from heddle.event import Draft
from heddle.integration import Component, Flow, Sink, SinkWriter, Source
from heddle.operations.dead_letter_topics import DeadLetterTopics
from heddle.operations.declared import ENVELOPE_BYTES, declared_topics
from heddle.operations.plan import Plan, PlanChangedError, PlanRefusedError, State, apply, make_plan
from heddle.project import Project, load_project
from heddle.settings import Settings

LOCAL = Settings(local=True)


@dataclass
class World:
    """What a plan is compared with."""

    broker: Broker
    admin: Admin
    registry: Registry


def memory_world() -> World:
    broker = MemoryBroker()
    return World(broker, broker.admin(), MemoryRegistry())


@pytest.fixture(params=["memory", pytest.param("real", marks=pytest.mark.stack)])
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    if request.param == "memory":
        yield memory_world()
        return
    stack = request.getfixturevalue("stack")
    settings = Settings(bootstrap_servers=stack.bootstrap_servers, registry_url=stack.registry_url, local=True)
    kafka = KafkaBroker(settings)
    with closing(kafka.admin()) as admin, closing(ConfluentRegistry(settings)) as registry:
        yield World(kafka, admin, registry)


def _nothing(_: Any) -> None:
    return None


class Raw(Source):
    """A source of the smallest kind."""

    def __init__(self, name: str, emits: type) -> None:
        super().__init__(name, owner="testers")
        self.emits = (emits,)

    def convert_record(self, record: Record) -> Iterable[Draft[Any]]:
        return ()


@dataclass
class Tables:
    """A database as far as a plan sees it."""

    missing: list[str] = field(default_factory=lambda: ["create table t"])
    refusal: str = ""


class TableSink(Sink[Any]):
    def __init__(self, name: str, reads: type, tables: Tables) -> None:
        super().__init__(name, owner="testers")
        self.reads = reads
        self.tables = tables

    def open(self) -> SinkWriter[Any]:
        raise NotImplementedError

    def plan(self) -> list[str]:
        if self.tables.refusal:
            raise UsageError(self.tables.refusal, hint="drop it")
        return list(self.tables.missing)

    def apply_plan(self) -> None:
        self.tables.missing.clear()


@dataclass
class App:
    """A project with a source, a flow and a sink, whose names no other test has."""

    root: Path
    prefix: str
    tables: Tables = field(default_factory=Tables)

    @property
    def topic(self) -> str:
        return f"{self.prefix}.thing.v1"

    def write(self, *fields: Any, toml: str = "[topic]\npartitions = 3\n") -> None:
        schema = record([("id", "string"), *fields], namespace=f"{self.prefix}.v1")
        write_contract(self.root, schema, f"{self.prefix}/thing.v1", toml=toml)
        other = record([("id", "string")], "Other", f"{self.prefix}.v1")
        write_contract(self.root, other, f"{self.prefix}/other.v1", toml="[topic]\ncleanup = 'compact'\n")

    def project(self) -> Project:
        module = types_of(self.root, self.prefix)
        components: list[Component] = [
            Raw(f"{self.prefix}-hooks", module.Thing),
            Flow(
                f"{self.prefix}-flow", reads=module.Thing, writes=module.Other, do=lambda thing: None, owner="testers"
            ),
            TableSink(f"{self.prefix}-sink", module.Other, self.tables),
        ]
        return Project("test", self.root, {c.name: c for c in components})

    def topics(self) -> list[TopicSpec]:
        return declared_topics(self.project(), load_contracts(self.root), LOCAL)

    def plan(self, world: World, settings: Settings = LOCAL) -> Plan:
        project = self.project()
        contracts = load_contracts(self.root)
        topics = declared_topics(project, contracts, settings)
        subscriptions = [subscription_of(component) for component in project.components.values()]
        with closing(world.broker.reader()) as reader:
            dead_letters = DeadLetterTopics(world.admin, reader, subscriptions)
            return make_plan(topics, contracts, project.sinks, world.admin, world.registry, dead_letters)


@pytest.fixture
def app(tmp_path: Path) -> App:
    made = App(tmp_path, f"p{uuid4().hex[:10]}")
    made.write()
    return made


def park(world: World, topic: str, subscription: str) -> Outgoing:
    """One dead entry of a topic that exists, as a worker would write it."""
    envelope = Envelope(subscription, f"{subscription}.dlq", world.admin.topics([topic])[topic].topic_id, "0" * 64)
    failure = Failure(0, FailureClass.CONTRACT, "decode", "", "no")
    entry = envelope.failed(Record(topic, 0, 7, b"k", b"v", [], 1), failure, EntryState.DEAD)
    write_records(world, [entry])
    return entry


def write_records(world: World, records: list[Outgoing]) -> None:
    with closing(world.broker.producer(uuid4().hex)) as producer, closing(world.broker.reader()) as reader:
        producer.init(30)
        producer.begin()
        producer.produce(records)
        producer.commit(30)
        reader.tails(records[0].topic, [0], 30)


def states(plan: Plan) -> set[State]:
    return {item.state for item in plan.items}


def detail(plan: Plan, name: str) -> tuple[State, tuple[str, ...]]:
    (item,) = [item for item in plan.items if item.name == name]
    return item.state, item.details


def test_what_is_missing_is_made_once(world: World, app: App) -> None:
    plan = app.plan(world)
    assert states(plan) == {State.MISSING}
    names = {item.name.removeprefix(app.prefix) for item in plan.items}
    assert names == {
        ".thing.v1",
        ".other.v1",
        "-hooks.raw",
        *(f"-{name}.{own}" for name in ("hooks", "flow", "sink") for own in ("dlq", "commands", "audit")),
        ".thing.v1-value",
        ".other.v1-value",
        "-sink",
    }
    done: list[str] = []
    apply(plan, expected=plan.hash, done=lambda item: done.append(item.name))
    assert done == [item.name for item in plan.items]
    again = app.plan(world)
    assert states(again) == {State.IN_ORDER}
    assert again.in_order
    apply(again, done=lambda item: pytest.fail(item.name))
    assert world.registry.compatibility(f"{app.topic}-value") == "BACKWARD"


def test_topics_of_a_subscription_are_as_the_guarantees_say(world: World, app: App) -> None:
    apply(app.plan(world))
    flow, hooks = f"{app.prefix}-flow", f"{app.prefix}-hooks"
    own = {name: [f"{name}.{own}" for own in ("dlq", "commands", "audit")] for name in (flow, hooks)}
    topics = world.admin.topics([app.topic, f"{hooks}.raw", *own[flow], *own[hooks]])
    assert {topics[name].partitions for name in own[flow]} == {topics[app.topic].partitions} == {3}
    assert {topics[name].partitions for name in own[hooks]} == {topics[f"{hooks}.raw"].partitions} == {6}
    assert {topics[name].config["message.timestamp.type"] for name in own[flow]} == {"LogAppendTime"}
    assert topics[f"{hooks}.raw"].config["retention.ms"] == str(7 * 24 * 3_600_000)

    dead, commands, audit = (topics[name].config for name in own[flow])
    assert dead["cleanup.policy"] == "compact"
    assert dead["min.compaction.lag.ms"] == "3600000"
    assert dead["min.cleanable.dirty.ratio"] == "0.1"
    assert int(dead["segment.bytes"]) <= 2**24
    assert (commands["cleanup.policy"], commands["retention.ms"]) == ("delete", str(14 * 24 * 3_600_000))
    assert (audit["cleanup.policy"], audit["retention.ms"], audit["retention.bytes"]) == ("delete", "-1", "-1")


def test_what_may_come_in_may_be_parked_edited_and_commanded(app: App) -> None:
    """An edited entry holds two bodies, a command one as base64; the audit trail does not grow with events."""
    for kilobytes in (1, 5_000):
        app.write(toml=f"[topic]\npartitions = 3\nmax_message_bytes = {kilobytes * 1024}\n")
        largest = {topic.name: int(topic.config["max.message.bytes"]) for topic in app.topics()}
        flow, body = f"{app.prefix}-flow", largest[app.topic]
        assert largest[f"{flow}.dlq"] == 2 * body + ENVELOPE_BYTES
        assert largest[f"{flow}.commands"] >= max(body * 4 // 3 + ENVELOPE_BYTES, 2 * MAX_SLICE_BYTES)
        assert largest[f"{flow}.audit"] >= 2 * MAX_BYTES


def test_changed_settings_are_shown_field_by_field_and_altered(world: World, app: App) -> None:
    apply(app.plan(world))
    app.write(toml="[topic]\npartitions = 3\nretention_hours = 24\n")
    plan = app.plan(world)
    assert detail(plan, app.topic) == (State.DIFFERS, ("retention.ms: 604800000 → 86400000",))
    assert len(plan.pending) == 1
    apply(plan)
    assert app.plan(world).in_order


def test_partitions_of_a_topic_are_not_changed(world: World, app: App) -> None:
    apply(app.plan(world))
    app.write(toml="[topic]\npartitions = 12\n")
    plan = app.plan(world)
    state, details = detail(plan, app.topic)
    assert state is State.REFUSED
    assert details[0] == "partitions: 3 exist, 12 declared"
    assert "keys would move" in details[1]
    assert details[2:] == ()
    with pytest.raises(PlanRefusedError, match="keys would move"):
        apply(plan)
    assert world.admin.topics([app.topic])[app.topic].partitions == 3


def test_a_refused_growth_names_the_entries_that_depend_on_it(world: World, app: App) -> None:
    apply(app.plan(world))
    park(world, app.topic, f"{app.prefix}-flow")
    app.write(toml="[topic]\npartitions = 12\n")
    plan = app.plan(world)
    for name in (app.topic, f"{app.prefix}-flow.dlq"):
        assert detail(plan, name)[1][2:] == (f"{app.prefix}-flow.dlq holds 1 dead",)


def test_topics_of_a_subscription_follow_an_input_topic_that_somebody_made_larger(world: World, app: App) -> None:
    apply(app.plan(world))
    own = [spec.name for spec in app.topics() if spec.name.startswith(f"{app.prefix}-flow.")]
    assert f"{app.prefix}-flow.dlq" in own
    world.admin.grow_topic(app.topic, 5)
    assert detail(app.plan(world), app.topic)[0] is State.REFUSED
    app.write(toml="[topic]\npartitions = 5\nretention_hours = 24\n")
    plan = app.plan(world)
    for name in own:
        assert detail(plan, name) == (State.DIFFERS, ("partitions: 3 → 5",))
    apply(plan)
    assert app.plan(world).in_order
    assert {topic.partitions for topic in world.admin.topics(own).values()} == {5}


def test_topics_of_a_subscription_stay_as_they_are_while_entries_are_unresolved(world: World, app: App) -> None:
    apply(app.plan(world))
    dead_letters = f"{app.prefix}-flow.dlq"
    entry = park(world, app.topic, f"{app.prefix}-flow")
    world.admin.grow_topic(app.topic, 5)
    app.write(toml="[topic]\npartitions = 5\n")
    state, details = detail(app.plan(world), dead_letters)
    assert state is State.REFUSED
    assert details[:2] == ("partitions: 3 exist, 5 declared", f"{dead_letters} holds 1 dead")
    assert "heddle dlq export" in details[2]
    write_records(world, [entry._replace(value=None, headers=())])
    assert detail(app.plan(world), dead_letters)[0] is State.DIFFERS


def test_dead_letters_of_a_subscription_that_was_renamed_are_told(world: World, app: App) -> None:
    apply(app.plan(world))
    old = f"{app.prefix}-old-name"
    world.admin.create_topics([TopicSpec(f"{old}.dlq", 3, 1)])
    park(world, app.topic, old)
    plan = app.plan(world)
    (orphan,) = [orphan for orphan in plan.orphans if orphan.subscription.startswith(app.prefix)]
    assert (orphan.subscription, orphan.is_ours) == (old, True)
    assert plan.in_order
    (told,) = [orphan for orphan in plan.document()["orphans"] if orphan["subscription"] == old]
    assert told["unresolved"]["by_state"] == {"dead": 1}
    assert f"heddle dlq export {old}" in told["hint"]


def test_a_compatible_change_becomes_the_next_version(world: World, app: App) -> None:
    apply(app.plan(world))
    app.write({"name": "note", "type": ["null", "string"], "default": None})
    plan = app.plan(world)
    assert detail(plan, f"{app.topic}-value") == (State.DIFFERS, ("version 2", "adds note"))
    apply(plan)
    assert app.plan(world).in_order
    assert world.registry.versions(f"{app.topic}-value") == [1, 2]


def test_an_incompatible_change_stops_everything(world: World, app: App) -> None:
    apply(app.plan(world))
    app.write(("must", "int"), toml="[topic]\npartitions = 3\nretention_hours = 1\n")
    plan = app.plan(world)
    state, details = detail(plan, f"{app.topic}-value")
    assert state is State.INCOMPATIBLE
    assert "must" in details[0]
    with pytest.raises(PlanRefusedError):
        apply(plan)
    assert world.registry.versions(f"{app.topic}-value") == [1]
    assert world.admin.topics([app.topic])[app.topic].config["retention.ms"] == "604800000"


def test_a_level_that_somebody_loosened_is_set_again(world: World, app: App) -> None:
    apply(app.plan(world))
    subject = f"{app.topic}-value"
    world.registry.set_compatibility(subject, "NONE")
    plan = app.plan(world)
    assert detail(plan, subject) == (State.DIFFERS, ("compatibility: NONE → BACKWARD",))
    app.write(("must", "int"))
    assert detail(app.plan(world), subject)[0] is State.INCOMPATIBLE
    app.write()
    apply(app.plan(world))
    assert world.registry.compatibility(subject) == "BACKWARD"


def test_a_hash_holds_for_one_plan(world: World, app: App) -> None:
    looked_at = app.plan(world).hash
    app.write(toml="[topic]\npartitions = 4\n")
    plan = app.plan(world)
    with pytest.raises(PlanChangedError, match=plan.hash):
        apply(plan, expected=looked_at)
    assert world.admin.topics([app.topic]) == {}
    apply(plan, expected=plan.hash)


def test_a_run_that_broke_off_is_finished_by_the_next(world: World, app: App) -> None:
    def break_off(item: Any) -> None:
        if item.name.endswith(".dlq"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        apply(app.plan(world), done=break_off)
    plan = app.plan(world)
    assert states(plan) == {State.MISSING, State.IN_ORDER}
    apply(plan)
    assert app.plan(world).in_order


def test_tables_that_cannot_serve_are_refused(app: App) -> None:
    app.tables.refusal = "table t has no column id"
    plan = app.plan(memory_world())
    assert detail(plan, f"{app.prefix}-sink") == (State.REFUSED, ("table t has no column id", "drop it"))


def test_elsewhere_topics_have_three_replicas_of_which_two_must_hold(app: App) -> None:
    contracts: list[Contract] = load_contracts(app.root)
    topics = declared_topics(app.project(), contracts, Settings(local=False))
    assert len(topics) == 3 + 3 * len(app.project().components)
    assert {topic.replication for topic in topics} == {3}
    assert {topic.config["min.insync.replicas"] for topic in topics} == {"2"}
    assert {topic.replication for topic in declared_topics(app.project(), contracts, LOCAL)} == {1}


def test_more_replicas_than_brokers_are_refused_before_anything_is_made(app: App) -> None:
    plan = app.plan(memory_world(), Settings(local=False))
    assert detail(plan, app.topic) == (State.REFUSED, ("3 replicas need as many brokers; the cluster has 1",))
    with pytest.raises(PlanRefusedError):
        apply(plan)


def test_fewer_replicas_than_declared_are_noted(app: App) -> None:
    world = memory_world()
    contracts = load_contracts(app.root)
    config = declared_topics(app.project(), contracts, Settings())[0]
    world.admin.create_topics([TopicSpec(config.name, config.partitions, 1, config.config)])
    (item,) = [item for item in app.plan(world, Settings()).items if item.name == config.name]
    assert item.state is State.IN_ORDER
    assert "replicas: 1 exist, 3 declared" in item.notes[0]


def test_audits_of_secrets_have_topics_beside_those_of_subscriptions() -> None:
    """Of the reference integration: of each webhook source one for the gateway, of a captured database one."""
    root = Path(__file__).parents[2]
    topics = {each.name: each for each in declared_topics(load_project(root), load_contracts(root), LOCAL)}
    audits = {name.removesuffix(".audit"): each for name, each in topics.items() if name.endswith(".audit")}
    others = {"crm-deals.gateway", "payments.gateway", "erp.pull"}
    assert {name for name in audits if f"{name}.dlq" not in topics} == others
    assert {(audits[name].partitions, audits[name].config["retention.ms"]) for name in others} == {(1, "-1")}


def test_raw_topics_follow_the_projects_settings(app: App) -> None:
    project = app.project()
    contracts = load_contracts(app.root)
    raw = Project(project.name, project.root, project.components, {"raw": {"partitions": 2, "retention_hours": -1}})
    topics = {topic.name: topic for topic in declared_topics(raw, contracts, LOCAL)}
    assert topics[f"{app.prefix}-hooks.raw"].partitions == topics[f"{app.prefix}-hooks.dlq"].partitions == 2
    assert topics[f"{app.prefix}-hooks.raw"].config["retention.ms"] == "-1"
    for wrong in ({"partitons": 2}, {"partitions": 0}, {"partitions": "2"}):
        with pytest.raises(UsageError):
            declared_topics(Project("p", project.root, project.components, {"raw": wrong}), contracts, LOCAL)


FLOW = """
from heddle import Flow
from schemas.{prefix} import Other, Thing

def convert(thing: Thing) -> Other:
    return Other(id=thing.id)

flow = Flow("{prefix}-flow", reads=Thing, writes=Other, do=convert, owner="testers")
"""


@dataclass
class Shell:
    """The `heddle` command inside a project."""

    root: Path
    env: dict[str, str]

    def __call__(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return cli_server().run(self.root, os.environ | self.env, *arguments)


@pytest.fixture
def shell(app: App) -> Shell:
    (app.root / "pyproject.toml").write_text('[tool.heddle]\nproject = "test"\n')
    (app.root / "topologies").mkdir()
    (app.root / "topologies/convert.py").write_text(FLOW.format(prefix=app.prefix))
    env = {
        "HEDDLE_BOOTSTRAP_SERVERS": "127.0.0.1:1",
        "HEDDLE_REGISTRY_URL": "http://127.0.0.1:1",
        "HEDDLE_LOCAL": "true",
    }
    return Shell(app.root, env)


@pytest.mark.stack
def test_the_commands_on_the_real_stack(stack: Any, app: App, shell: Shell) -> None:
    shell.env |= {"HEDDLE_BOOTSTRAP_SERVERS": stack.bootstrap_servers, "HEDDLE_REGISTRY_URL": stack.registry_url}
    stale = shell("types", "--check")
    assert (stale.returncode, "stale" in stale.stdout) == (1, True)
    assert shell("types").returncode == 0
    assert shell("types", "--check").returncode == 0
    checked = shell("check")
    assert (checked.returncode, checked.stdout) == (0, "all is well\n"), checked.stderr
    planned = shell("plan", "--json")
    assert planned.returncode == 1, planned.stderr
    document = json.loads(planned.stdout)
    assert {item["state"] for item in document["items"]} == {"missing"}
    wrong = shell("apply", "000000000000")
    assert wrong.returncode == 1
    assert document["hash"] in wrong.stderr
    applied = shell("apply", document["hash"])
    assert applied.returncode == 0, applied.stderr
    assert f"topic  {app.topic}" in applied.stdout
    assert shell("apply").stdout == "nothing to do\n"
    table = shell("plan")
    assert (table.returncode, "nothing to do" in table.stdout) == (0, True)


@pytest.mark.stack
def test_a_registry_that_is_down_is_exit_code_5(stack: Any, shell: Shell) -> None:
    write(shell.root)
    shell.env |= {"HEDDLE_BOOTSTRAP_SERVERS": stack.bootstrap_servers}
    result = shell("plan")
    assert result.returncode == 5
    assert result.stdout == ""
    assert "127.0.0.1:1" in result.stderr
    assert "Traceback" not in result.stderr


LOOP = """
from heddle import Flow
from schemas.{prefix} import Other, Thing
loop = Flow("loop", reads=Thing, writes=Thing, do=lambda t: t, owner="x")
"""
FOREIGN = LOOP.replace('"loop", reads=Thing, writes=Thing', '"foreign", reads=Thing, writes=str')


@pytest.mark.parametrize(
    "files",
    [
        {
            "schemas/{prefix}/thing.v1.toml": ("owner = 1", "key"),
            "schemas/{prefix}/lost.v1.toml": ("owner = 1", "no lost.v1.avsc beside it"),
        },
        {"schemas/{prefix}/__init__.py": ("", "the generated types are stale")},
        {
            "topologies/broken.py": ("1 / 0", "ZeroDivisionError"),
            "topologies/misspelt.py": ("from schemas.{prefix} import Thin", "cannot import name 'Thin'"),
        },
        {"topologies/loop.py": (LOOP, "loop writes into the topic that it reads")},
        {"topologies/foreign.py": (FOREIGN, "foreign: str is not a contract type")},
        {"topologies/twice.py": (FLOW + "\n", "the name {prefix}-flow is declared twice")},
    ],
    ids=["contracts", "types", "imports", "loop", "foreign", "names"],
)
def test_check_names_the_file_of_every_problem(app: App, shell: Shell, files: dict[str, tuple[str, str]]) -> None:
    write(app.root)
    for file, (text, _) in files.items():
        (app.root / file.format(prefix=app.prefix)).write_text(text.format(prefix=app.prefix))
    result = shell("check", "--json")
    assert result.returncode == 1, result.stderr
    problems = [f"{p['file']}: {p['message']}" for p in json.loads(result.stdout)["problems"]]
    for file, (_, says) in files.items():
        place, words = file.format(prefix=app.prefix).removesuffix(".toml"), says.format(prefix=app.prefix)
        assert any(place in problem and words in problem for problem in problems), problems
