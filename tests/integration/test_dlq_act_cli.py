"""Acting on dead letters as on-call types it: on the real stack, with a worker of `heddle run`."""

from __future__ import annotations

import json
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "contracts"))

from building import record, write_contract
from cli_project import RUN, CliProject

from heddle.broker.kafka import KafkaBroker
from heddle.broker.log import Outgoing
from heddle.contracts import AvroCodec, ConfluentRegistry, load_contracts
from heddle.contracts.types import write
from heddle.operators import entry_of, make_key
from heddle.settings import Settings

if TYPE_CHECKING:
    from heddle.local import Stack

pytestmark = pytest.mark.stack

FLOW = """
from pathlib import Path

from heddle import ContractError, Flow
from schemas.{prefix} import Other, Thing


def convert(thing: Thing) -> Other:
    if thing.id.startswith("bad") and thing.id not in Path("mended").read_text().split():
        raise ContractError("no such thing", path="id")
    return Other(id=thing.id)


flow = Flow("{prefix}-flow", reads=Thing, writes=Other, do=convert, owner="testers")
"""
EDITOR = """
import sys
from pathlib import Path

path = Path(sys.argv[1])
assert path.stat().st_mode & 0o777 == 0o600
path.write_text(path.read_text().replace("bad", "good"))
"""
APPROVALS = "\n[tool.heddle.approvals]\ndiscard = 2\n"


def until(look: Callable[[], Any], holds: Callable[[Any], bool]) -> Any:
    deadline = time.monotonic() + 90
    while not holds(found := look()):
        assert time.monotonic() < deadline, f"not in time: {found}"
    return found


@dataclass
class OnCall:
    """A project with a worker that runs. Things whose id begins with `bad` fail until they are mended."""

    project: CliProject
    name: str
    folder: Path

    def __call__(self, *words: str, code: int = 0) -> str:
        result = self.project.heddle("dlq", *words)
        assert result.returncode == code, result.stdout + result.stderr
        return result.stdout + result.stderr

    def json(self, *words: str, code: int = 0) -> Any:
        result = self.project.heddle("dlq", *words, "--json")
        assert result.returncode == code, result.stdout + result.stderr
        return json.loads(result.stdout)

    def fail(self, *ids: str) -> list[str]:
        """Feed these, each with its id as key; the entries' names once they are there."""
        self._feed(ids)
        keys = dict.fromkeys(ids)
        found = until(
            lambda: {e["key"]: e["id"] for e in self.entries() if e["key"] in keys},
            lambda found: len(found) == len(ids),
        )
        return [found[key] for key in ids]

    def mend(self, *ids: str) -> None:
        file = self.folder / "mended"
        file.write_text(" ".join([file.read_text(), *ids]))

    def state_of(self, entry: str) -> str | None:
        return next((e["state"] for e in self.entries() if e["id"] == entry), None)

    def plan(self, *words: str, code: int = 0) -> tuple[str, str]:
        """Hash and command line of a plan."""
        text = self(*words, code=code)
        line = re.search(r"^  (heddle dlq .+)$", text, re.MULTILINE)
        plan = re.search(r"^plan ([0-9a-f]{32})$", text, re.MULTILINE)
        assert line is not None, text
        assert plan is not None, text
        return plan[1], line[1]

    def type(self, line: str, *more: str, code: int = 0) -> str:
        """A printed command line, with a reason in its place."""
        words = [word.replace("…", "because") for word in shlex.split(line)]
        assert words[:2] == ["heddle", "dlq"]
        return self(*words[2:], *more, code=code)

    def entries(self) -> list[Any]:
        return list(self.json("list", self.name)["entries"])

    def _feed(self, ids: tuple[str, ...]) -> None:
        stack = self.project.stack
        settings = Settings(bootstrap_servers=stack.bootstrap_servers, registry_url=stack.registry_url, local=True)
        contract = next(c for c in load_contracts(self.folder) if c.name == self.project.topic)
        with closing(ConfluentRegistry(settings)) as registry:
            codec: AvroCodec[Any] = AvroCodec(contract, registry)
            with closing(KafkaBroker(settings).producer(f"feed-{time.time_ns()}")) as producer:
                producer.init(30)
                producer.begin()
                bodies = {each: codec.encode_dict({"id": each}) for each in ids}
                producer.produce(Outgoing(contract.topic, id_.encode(), bodies[id_], partition=0) for id_ in ids)
                producer.commit(30)


@pytest.fixture(scope="module")
def on_call(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OnCall]:
    folder = tmp_path_factory.mktemp("project")
    project = CliProject(folder, stack)
    with (folder / "pyproject.toml").open("a") as file:
        file.write(APPROVALS)
    (folder / "mended").write_text("")
    thing = record([("id", "string")], namespace=f"{project.prefix}.v1")
    write_contract(folder, thing, f"{project.prefix}/thing.v1", toml="[topic]\npartitions = 2\n")
    write(folder)
    (folder / "topologies/flow.py").write_text(FLOW.format(prefix=project.prefix))
    (folder / "operators.toml").write_text(entry_of(make_key(folder / ".heddle", "grace")))  # Ada has a key already
    applied = project.heddle("apply")
    assert applied.returncode == 0, applied.stderr
    worker = project.start("run")
    yield OnCall(project, f"{project.prefix}-flow", folder)
    worker.send_signal(signal.SIGTERM)
    worker.wait(60)


def test_a_replay_from_plan_to_receipt(on_call: OnCall) -> None:
    first, second = on_call.fail("bad-1", "bad-2")
    text = on_call("replay", first, second, "--dry-run", code=1)
    assert "2 entries" in text
    assert "2 would fail: contract contract id" in text
    on_call.mend("bad-1", "bad-2")
    text = on_call("replay", first, second, "--dry-run")
    assert "2 emitted" in text
    assert '+ id = "bad-1"' in text
    plan, line = on_call.plan("replay", first, second, "--rate", "50")
    assert line.endswith(f"--rate 50 --apply {plan} --reason '…'")
    assert "a reason is missing" in on_call("replay", "--apply", plan, code=2)
    assert "not to discard" in on_call("discard", "--apply", plan, "--reason", "x", code=2)
    text = on_call.type(line)
    assert "2  emitted" in text
    job = re.search(r"job ([0-9a-f]{12}) is complete", text)
    assert job is not None, text
    text = on_call.type(line, code=1)
    assert f"{first.partition('/')[2]}  dead → resolved" in text
    assert "plan again" in text
    shown = on_call.json("jobs", job[1])
    assert (shown["state"], shown["reason"], shown["signed_by"], shown["plan"]) == ("done", "because", ["ada"], plan)
    assert shown["receipt"]["counts"] == {"emitted": 2}
    assert job[1] in on_call("jobs")


def test_a_plan_is_applied_elsewhere_only_by_the_same_arguments(on_call: OnCall) -> None:
    (entry,) = on_call.fail("bad-3")
    on_call.mend("bad-3")
    plan, line = on_call.plan("replay", entry)
    for file in (on_call.folder / ".heddle/plans").iterdir():
        file.unlink()
    wrong = on_call("replay", entry, "--rate", "3", "--apply", plan, "--reason", "x", code=1)
    assert "the same arguments give the plan" in wrong
    assert "1  emitted" in on_call.type(line)
    assert on_call.state_of(entry) is None


def test_an_edit_in_an_editor_and_by_a_patch(on_call: OnCall) -> None:
    one, two, three = on_call.fail("bad-4", "bad-5", "bad-6")
    editor = on_call.folder / "editor.txt"  # a .py file of the project would make another handler
    editor.write_text(EDITOR)
    on_call.project.env["EDITOR"] = shlex.join([sys.executable, str(editor)])
    _, line = on_call.plan("edit", one, "--replay", "--dry-run")
    assert "1  emitted" in on_call.type(line)
    assert "an editor takes one" in on_call("edit", two, three, code=2)
    refused = on_call("edit", two, "--set", "id=null", code=1)
    assert "id is NoneType, the contract wants string" in refused
    patch = on_call.folder / "patch.json"
    patch.write_text('{"id": "good"}')
    document = on_call.json("edit", two, three, "--patch", str(patch), "--replay", "--dry-run")
    assert [edit["differences"] for edit in document["edits"]] == [
        [{"path": "id", "was": was, "now": "good"}] for was in ("bad-5", "bad-6")
    ]
    assert document["dry_run"]["outcomes"] == {"emitted": 2}
    receipt = on_call.json("edit", "--apply", document["hash"], "--reason", "typing errors")
    assert (receipt["complete"], receipt["counts"]) == (True, {"emitted": 2})
    assert not {entry["id"] for entry in on_call.entries()} & {one, two, three}


def test_a_discard_waits_for_a_second_person(on_call: OnCall) -> None:
    (entry,) = on_call.fail("bad-7")
    text = on_call.type(on_call.plan("discard", entry)[1])
    job = re.search(r"heddle dlq approve ([0-9a-f]{12})", text)
    assert job is not None, text
    assert "waiting for approval" in on_call("jobs", job[1])
    assert "ada has signed" in on_call("approve", job[1], code=2)
    assert on_call.state_of(entry) == "dead"
    on_call.project.env["HEDDLE_OPERATOR"] = "grace"
    try:
        assert "approved by grace" in on_call("discard", "--approve", job[1])
    finally:
        on_call.project.env["HEDDLE_OPERATOR"] = "ada"
    shown = until(lambda: on_call.json("jobs", job[1]), lambda found: found["state"] == "done")
    assert shown["signed_by"] == ["ada", "grace"]
    assert on_call.state_of(entry) is None


def test_ctrl_c_leaves_and_the_job_goes_on_until_it_is_cancelled(on_call: OnCall) -> None:
    entries = on_call.fail("bad-8", "bad-9", "bad-10")
    plan, _ = on_call.plan("replay", *entries, "--rate", "0.02")
    command = [*RUN, "dlq", "replay", "--apply", plan, "--reason", "slowly"]
    env = on_call.project._env()
    as_in_a_terminal = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # what runs behind a shell ignores it
    watcher = subprocess.Popen(
        command, cwd=on_call.folder, env=env, stderr=subprocess.PIPE, text=True, preexec_fn=as_in_a_terminal
    )
    jobs = until(lambda: [job for job in on_call.json("jobs") if job["plan"] == plan and job["failed"]], bool)
    watcher.send_signal(signal.SIGINT)
    _, told = watcher.communicate(timeout=60)
    assert watcher.returncode == 130, told
    assert "goes on without you" in told
    job = jobs[0]["job"]
    assert f"heddle dlq jobs {job}" in told
    assert jobs[0]["state"] == "running"
    on_call("cancel", job)
    shown = until(lambda: on_call.json("jobs", job, code=1), lambda found: found["state"] == "cancelled")
    counts = shown["receipt"]["counts"]
    assert counts["failed again"] + counts["cancelled"] == 3
    assert counts["cancelled"] >= 1


def test_what_cannot_be_meant_is_usage(on_call: OnCall) -> None:
    assert "no entry of" in on_call("replay", on_call.name, "--key", "nobody", code=2)
    assert "no component named nosuch" in on_call("replay", "nosuch", code=2)
    assert "--as is missing" in on_call("settle", on_call.name, code=2)
    assert "no job" in on_call("jobs", "ffffffffffff", code=2)
