"""`heddle dlq list` and `show` as on-call meets them: on the real stack, as text and as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest
from cli_project import CliProject

from building import record as schema_of  # isort: skip
from building import write_contract  # isort: skip

from heddle.broker.kafka import KafkaBroker
from heddle.broker.log import Outgoing, Record
from heddle.contracts import AvroCodec, ConfluentRegistry, load_contract
from heddle.contracts.types import write
from heddle.delivery.command import Action, Command
from heddle.delivery.envelope import Envelope, State
from heddle.errors import ContractError, Failure, FailureClass
from heddle.operators import Operators
from heddle.settings import Settings

if TYPE_CHECKING:
    from heddle.local import Stack

pytestmark = pytest.mark.stack

LOOKUP = Failure(0, FailureClass.CONTRACT, "lookup", "product", "no price for it", ContractError("no price for it"))
ESCAPES = Failure(0, FailureClass.UNKNOWN, "ValueError", "", "of ada@example.org: \x1b[2Jcleared\r\n", ValueError("x"))


class DlqProject(CliProject):
    """Things with a classified field, of which version 2 has another form; and a flow that reads them."""

    def prepare(self) -> None:
        self.name = self.flow("flow")
        self.write_thing(("id", "string"), ("product", "string"), ("email", "string"), ("colour", "string"))
        self.apply()
        self.settings = Settings(
            bootstrap_servers=self.stack.bootstrap_servers, registry_url=self.stack.registry_url, local=True
        )
        self.broker = KafkaBroker(self.settings)
        with closing(ConfluentRegistry(self.settings)) as registry:
            codec: AvroCodec[Any] = AvroCodec(load_contract(self.file), registry)
            self.old = [codec.encode_dict(self.thing(number)) for number in range(6)]
        note = {"name": "note", "type": "string", "default": "-"}
        self.write_thing(("id", "string"), ("product", "string"), ("email", "string"), note)
        self.apply()

    def apply(self) -> None:
        applied = self.heddle("apply")
        assert applied.returncode == 0, applied.stderr

    def write_thing(self, *fields: Any) -> None:
        toml = 'classified = ["email"]\n[topic]\npartitions = 2\n'
        schema = schema_of(list(fields), namespace=f"{self.prefix}.v1")
        self.file = write_contract(self.root, schema, f"{self.prefix}/thing.v1", toml=toml)
        write(self.root)

    def thing(self, number: int) -> dict[str, str]:
        return {"id": f"T-{number}", "product": "tee", "email": f"ada{number}@example.org", "colour": "red"}

    def park(self) -> None:
        """Four under one cause, of which one waits; one of another; one that is no Avro."""
        with closing(self.broker.admin()) as admin:
            topic_id = admin.topics([self.topic])[self.topic].topic_id
        envelope = Envelope(self.name, f"{self.name}.dlq", topic_id, "5f" * 32)
        records = [
            Record(self.topic, n % 2, n, b"default/T-%d" % (n % 4), self.old[n], [("x-tenant", b"acme")], 0)
            for n in range(6)
        ]
        entries = [envelope.failed(record, LOOKUP, State.DEAD) for record in records[:3]]
        entries += [envelope.waiting(records[4], "0-0"), envelope.failed(records[3], ESCAPES, State.UNKNOWN)]
        entries += [envelope.failed(records[5]._replace(value=b"\xff\x00 odd"), LOOKUP, State.DEAD)]
        self.write(*entries)

    def write(self, *records: Outgoing) -> None:
        with closing(self.broker.producer(f"{self.prefix}-test")) as producer:
            producer.init(30)
            producer.begin()
            producer.produce(records)
            producer.commit(30)
        with closing(self.broker.reader()) as reader:
            for partition in range(2):
                reader.read_range(f"{self.name}.dlq", partition, 30, settled=True)

    def says(self, *arguments: str, code: int = 0) -> str:
        result = self.heddle("dlq", *arguments)
        assert result.returncode == code, result.stdout + result.stderr
        return result.stdout if code == 0 else result.stderr

    def document(self, *arguments: str) -> Any:
        return json.loads(self.says(*arguments, "--json"))


@pytest.fixture(scope="module")
def project(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DlqProject]:
    made = DlqProject(tmp_path_factory.mktemp("dlq"), stack)
    made.prepare()
    made.park()
    return made


def test_an_overview_and_the_newest_entries(project: DlqProject) -> None:
    text = project.says("list")
    overview, entries = text.split("\n\n")[:2]
    assert overview.splitlines()[0].split() == ["subscription", "dead", "waiting", "unknown", "oldest"]
    assert overview.splitlines()[1].split()[:4] == [project.name, "4", "1", "1"]
    for offset in range(6):
        assert f"{project.name}/{offset % 2}-{offset}" in entries
    assert "behind 0-0" in entries
    assert "contract lookup product" in entries
    assert max(len(line) for line in text.splitlines()) <= 120
    document = project.document("list", project.name, "--limit", "2")
    assert (len(document["entries"]), document["complete"]) == (2, True)
    assert document["subscriptions"][0]["by_state"] == {"dead": 4, "unknown": 1, "waiting": 1}


def test_groups_count_what_waits_with_its_cause_and_name_an_example_and_the_runbook(project: DlqProject) -> None:
    text = project.says("list", "--group-by", "fingerprint")
    assert text.splitlines()[0].startswith(f"5  {project.name}  fingerprint ")
    assert "4 dead, 1 waiting" in text
    assert "contract lookup product: no price for it" in text
    assert f"runbook {project.name}" in text
    assert "6 entries in 2 groups" in text
    groups = project.document("list", "--group-by", "class")["groups"]
    assert [(g["value"], g["count"]) for g in groups] == [("contract", 5), ("unknown", 1)]
    fingerprint = groups[0]["example"]["fingerprint"]
    assert len(project.document("list", "--fingerprint", fingerprint[:6])["entries"]) == 4


def test_no_text_of_a_record_reaches_the_terminal_unescaped(project: DlqProject) -> None:
    shown = project.says("show", f"{project.name}/1-3", "--reveal", "--reason", "look")
    assert "\x1b" not in shown
    assert "\\x1b[2Jcleared\\r\\n" in shown


def test_what_a_handler_says_may_hold_content_and_is_masked_where_fields_are_classified(project: DlqProject) -> None:
    for arguments in (["list", "--group-by", "fingerprint"], ["list", "--json"], ["show", "1-3"]):
        assert "ada@example.org" not in project.says(*arguments)
    assert "unknown ValueError: ••••" in project.says("list", "--group-by", "fingerprint")


def test_options_select(project: DlqProject) -> None:
    def offsets(*arguments: str) -> list[int]:
        return sorted(entry["offset"] for entry in project.document("list", *arguments)["entries"])

    assert offsets("--where", "value.id in ['T-1', 'T-4'] and headers['x-tenant'] == 'acme'") == [1, 4]
    assert offsets("--key", "T-0") == [0, 4]
    assert offsets("--state", "waiting", "--state", "unknown") == [3, 4]
    assert offsets("--since", "1h", "--class", "unknown") == [3]
    assert offsets("--since", "2100-01-01") == []
    assert offsets(f"{project.name}/0-2", "1-1") == [1, 2]
    assert "no dead letters match" in project.says("list", "--code", "nothing")
    assert "character 11, 'foo': no field foo" in project.says("list", "--where", "1 == 1 or foo", code=2)
    assert "no subscription named nothing" in project.says("list", "nothing", code=2)
    assert "no state 'gone'" in project.says("list", "--state", "gone", code=2)


def test_one_entry_stands_beside_both_versions_of_its_contract(project: DlqProject) -> None:
    text = project.says("show", f"{project.name}/0-0")
    name = f"{project.prefix}.thing.v1"
    assert f"written as {name} version 1 (schema " in text
    assert f"the handler expects {name} version 2" in text
    for line in (["product", '"tee"', "string", "←", "failed"], ["note", '"-"', "string", "default"]):
        assert line in [row.split() for row in text.splitlines()]
    assert "ada0@" not in text
    assert "colour" in text
    assert "1 of its key (0-4) wait behind it" in text
    assert "heddle.errors.ContractError" in text
    assert "x-tenant  acme" in text
    assert max(len(line) for line in text.splitlines() if not line.startswith("  ")) <= 120
    document = project.document("show", "0-0")
    fields = {field["path"]: field for field in document["body"]["fields"]}
    assert (fields["colour"]["mark"], fields["note"]["mark"], fields["product"]["mark"]) == ("extra", "default", None)
    assert document["behind"] == {"count": 1, "first": ["0-4"]}
    assert (document["masked"], document["history"], document["history_missing"]) == (True, [], None)
    assert "waits behind 1 of its key (0-0)" in project.says("show", "0-4")


def test_bytes_that_nothing_explains_are_shown_only_when_revealed(project: DlqProject) -> None:
    assert "6 bytes, masked" in project.says("show", "1-5")
    assert project.document("show", "1-5")["body"]["hex"] is None


def test_what_is_not_there_is_exit_code_1(project: DlqProject) -> None:
    assert "it is resolved, or never was" in project.says("show", f"{project.name}/0-99", code=1)
    assert "is no entry" in project.says("show", "what", code=2)


def test_to_reveal_takes_a_reason_and_a_key_and_leaves_a_signed_command(
    project: DlqProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = f"{project.name}/0-0"
    assert "a reason is missing" in project.says("show", entry, "--reveal", code=2)
    assert "--reason goes with --reveal" in project.says("show", entry, "--reason", "x", code=2)
    monkeypatch.setitem(project.env, "HEDDLE_OPERATOR", "nobody")
    assert "no operator key of 'nobody'" in project.says("show", entry, "--reveal", "--reason", "asked", code=2)
    monkeypatch.setitem(project.env, "HEDDLE_OPERATOR", "ada")
    text = project.says("show", entry, "--reveal", "--reason", "the customer asked")
    assert "ada0@example.org" in text
    assert "masked" not in text
    revealed = project.document("show", f"{project.name}/1-5", "--reveal", "--reason", "look")
    assert revealed["body"]["hex"] == b"\xff\x00 odd".hex()
    operators = Operators.load(project.root, local=True)
    with closing(project.broker.reader()) as reader:
        (record,) = reader.read_range(f"{project.name}.commands", 0, 30, settled=True)
    command = Command.unpack(record.value or b"")
    assert (command.header.action, command.reason) == (Action.REVEAL, "the customer asked")
    assert command.slice is not None
    assert [target.offset for target in command.slice.targets] == [0]
    (signature,) = command.signatures
    assert operators.verify(signature.actor, signature.signature, command.statement)
