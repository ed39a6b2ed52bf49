"""With which versions of its secrets the gateway verifies stands in an audit trail, before it does; on a real Kafka."""

from __future__ import annotations

import contextlib
import threading
import uuid
from hashlib import blake2b
from pathlib import Path
from typing import Any

import pytest
from gateway_process import DEALS, META, sources
from gateway_support import NEW_SECRET, STANDARD_SECRET, Running, gateway, replace, status_of, wait_for

from heddle.audit import AuditRecord, first_break, read
from heddle.broker.kafka import KafkaBroker
from heddle.broker.log import TopicSpec
from heddle.delivery.gateway_audit import GatewayAudit, gateway_audit_topic
from heddle.errors import UsageError
from heddle.local import Stack
from heddle.secrets import Use
from heddle.settings import Settings
from heddle.sources.webhook import WebhookSource

pytestmark = pytest.mark.stack

KEY_TEXT = "of these tests"
TIMEOUT_S = 30.0


def broker_of(stack: Stack) -> KafkaBroker:
    return KafkaBroker(Settings(bootstrap_servers=stack.bootstrap_servers, registry_url="", local=True))


def named(prefix: str, name: str) -> WebhookSource:
    return next(source for source in sources(prefix) if source.name == f"{prefix}-{name}")


def create(broker: KafkaBroker, *topics: str) -> None:
    with contextlib.closing(broker.admin()) as admin:
        admin.create_topics([TopicSpec(topic, 1, 1) for topic in topics])


def trail(broker: KafkaBroker, source: WebhookSource) -> list[AuditRecord]:
    with contextlib.closing(broker.reader()) as reader:
        return list(read(reader, gateway_audit_topic(source), 0, TIMEOUT_S))


def versions(records: list[AuditRecord], secret_name: str) -> list[str]:
    return [use["version"] for record in records for use in record.body["in_use"] if use["name"] == secret_name]


def version_of(value: str) -> str:
    """As docs/how-to/secrets.md says of files: a hash that is keyed with `audit/key`."""
    key = blake2b(KEY_TEXT.encode(), digest_size=32).digest()
    return "hash:" + blake2b(value.encode(), key=key, digest_size=8).hexdigest()


def told(running: Running, name: str) -> list[dict[str, Any]]:
    return [line for line in running.log() if line["event"] == name]


def test_a_version_is_on_record_before_it_counts(stack: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEDDLE_SECRET_AUDIT_KEY", KEY_TEXT)
    broker = broker_of(stack)
    with gateway(stack.bootstrap_servers, tmp_path, audited=True, gateway_renew_s=0.05) as running:
        deals, meta = named(running.prefix, DEALS), named(running.prefix, META)
        closed = wait_for(lambda: told(running, "gateway.source_closed"))
        assert (closed[0]["hint"], gateway_audit_topic(deals) in closed[0]["error"]) == ("run `heddle apply`", True)
        assert status_of(running, STANDARD_SECRET) == 503
        create(broker, *(gateway_audit_topic(source) for source in sources(running.prefix)))
        wait_for(lambda: status_of(running, STANDARD_SECRET) == 200)
        assert versions(trail(broker, deals), "test/standard") == [version_of(STANDARD_SECRET)]
        (of_meta,) = wait_for(lambda: trail(broker, meta))
        assert {use["name"] for use in of_meta.body["in_use"]} == {"audit/key", "test/text", "test/token"}
        assert (of_meta.kind, of_meta.actor) == ("secrets", "gateway:0")

        replace(running.secrets / "standard", f"{NEW_SECRET}\n")
        wait_for(lambda: status_of(running, NEW_SECRET) == 200)
        assert [status_of(running, NEW_SECRET) for _ in range(20)] == [200] * 20
        of_deals = trail(broker, deals)
        assert versions(of_deals, "test/standard") == [version_of(STANDARD_SECRET), version_of(NEW_SECRET)]
        assert first_break(of_deals) is None
        assert len(trail(broker, meta)) == 1, "nothing of it has changed"
        everything = str((of_deals, of_meta)) + running.log_file.read_text(encoding="utf-8")
        assert NEW_SECRET not in everything
        assert STANDARD_SECRET not in everything


def test_many_gateways_write_one_chain(stack: Stack) -> None:
    """All at once, each a version of its own three times: every record continues the one before it."""
    broker, source = broker_of(stack), named(f"g{uuid.uuid4().hex[:8]}", DEALS)
    create(broker, gateway_audit_topic(source))
    failures: list[BaseException] = []

    def run(instance: int) -> None:
        uses: list[Use] = []
        audit = GatewayAudit([source], broker, str(instance), b"key", lambda: tuple(uses))
        try:
            for version in range(3):
                uses[:] = [Use("test/standard", "vault", f"{instance}.{version}")]
                audit.tell(source)
                audit.tell(source)  # known already
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run, args=(instance,)) for instance in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    records = trail(broker, source)
    assert first_break(records) is None
    found = versions(records, "test/standard")
    for instance in range(3):
        mine = [version for version in found if version.startswith(f"{instance}.")]
        assert list(dict.fromkeys(mine)) == [f"{instance}.{version}" for version in range(3)]


def test_a_topic_that_is_not_there_is_told(stack: Stack) -> None:
    source = named(f"g{uuid.uuid4().hex[:8]}", DEALS)
    audit = GatewayAudit([source], broker_of(stack), "0", b"key", lambda: (Use("test/standard", "vault", "1"),))
    with pytest.raises(UsageError, match="no topic"):
        audit.tell(source)
