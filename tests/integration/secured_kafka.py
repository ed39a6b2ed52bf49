"""A real broker that admits nobody unknown: TLS with SCRAM on one port, TLS with client certificates on another, ACLs.

It is the local stack's Kafka with other listeners. Its inner listener stays plain: there the broker talks to itself,
the start-up probe asks whether it is ready, and `SecuredKafka.administer` makes users and access rules, as whoever
runs a company's cluster would.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from certificates import Authority
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)

from heddle.local import Runtime, cache_dir, warden
from heddle.local.kafka import Kafka
from heddle.local.ports import HOST, free_port

__all__ = ["AclOperation", "ResourceType", "Rule", "SecuredKafka", "secured_kafka"]

_TIMEOUT_S = 20.0

# Appended to the local stack's properties: in a properties file the last line about a name counts.
_PROPERTIES = """\
listeners=INTERNAL://{host}:{port},CONTROLLER://{host}:{controller},SASL_SSL://{host}:{sasl},MTLS://{host}:{mtls}
advertised.listeners=INTERNAL://{host}:{port},CONTROLLER://{host}:{controller},SASL_SSL://{host}:{sasl},MTLS://{host}:{mtls}
listener.security.protocol.map=CONTROLLER:PLAINTEXT,INTERNAL:PLAINTEXT,SASL_SSL:SASL_SSL,MTLS:SSL
inter.broker.listener.name=INTERNAL
sasl.enabled.mechanisms=SCRAM-SHA-512
listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
ssl.keystore.type=PEM
ssl.keystore.location={identity}
ssl.truststore.type=PEM
ssl.truststore.location={authority}
listener.name.mtls.ssl.client.auth=required
ssl.principal.mapping.rules=RULE:^.*CN=([a-zA-Z0-9._-]+).*$/$1/,DEFAULT
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
super.users=User:ANONYMOUS
"""


class Rule(NamedTuple):
    """That a user may do `operation` to the thing of this kind and exactly this name, or to all that begin so."""

    kind: ResourceType
    name: str
    operation: AclOperation
    is_prefix: bool = False

    def __str__(self) -> str:
        return f"{self.operation.name} {self.kind.name} {self.name}"


class SecuredKafka(Kafka):
    """`port` is the inner listener; clients under test come by `sasl_port` or `mtls_port`."""

    def __init__(self, data_dir: Path, runtime: Runtime) -> None:
        ports: list[int] = []
        while len(ports) < 4:
            ports.append(free_port(taken=frozenset(ports)))
        port, controller_port, self.sasl_port, self.mtls_port = ports
        super().__init__(data_dir, port, controller_port, runtime)
        self.authority = Authority.make("the cluster's authority")
        self._admin: AdminClient | None = None

    def prepare(self) -> None:
        super().prepare()
        secured = _PROPERTIES.format(
            host=HOST,
            port=self.port,
            controller=self.controller_port,
            sasl=self.sasl_port,
            mtls=self.mtls_port,
            identity=self.authority.issue(self.folder, "broker").with_key,
            authority=self.authority.write(self.folder),
        )
        with self._settings.open("a", encoding="utf-8") as properties:
            properties.write(secured)

    @property
    def administer(self) -> AdminClient:
        if self._admin is None:
            self._admin = AdminClient({"bootstrap.servers": self.bootstrap_servers, "log_level": 0})
        return self._admin

    def add_user(self, name: str, password: str, rules: Iterable[Rule]) -> None:
        """Returns when the user can log in: the broker learns of users a moment after the controller took them."""
        self._allow(name, rules)
        credentials = ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, 4096)
        change = UserScramCredentialUpsertion(name, credentials, password.encode())
        for future in self.administer.alter_user_scram_credentials([change]).values():
            future.result(_TIMEOUT_S)
        AdminClient(
            {
                "bootstrap.servers": f"{HOST}:{self.sasl_port}",
                "security.protocol": "SASL_SSL",
                "sasl.mechanisms": "SCRAM-SHA-512",
                "sasl.username": name,
                "sasl.password": password,
                "ssl.ca.location": str(self.authority.write(self.folder)),
                "reconnect.backoff.max.ms": 100,
                "log_level": 0,
            }
        ).list_topics(timeout=_TIMEOUT_S)

    def _allow(self, user: str, rules: Iterable[Rule]) -> None:
        bindings = [_binding(user, rule) for rule in rules]
        for future in self.administer.create_acls(bindings).values():
            future.result(_TIMEOUT_S)


def _binding(user: str, rule: Rule) -> AclBinding:
    pattern = ResourcePatternType.PREFIXED if rule.is_prefix else ResourcePatternType.LITERAL
    return AclBinding(rule.kind, rule.name, pattern, f"User:{user}", "*", rule.operation, AclPermissionType.ALLOW)


@contextmanager
def secured_kafka() -> Iterator[SecuredKafka]:
    """A started broker that stops with the block, and dies with this process even when that is killed."""
    folder = Path(tempfile.mkdtemp(prefix="heddle-secured-"))
    (folder / "tmp").mkdir()
    kafka = SecuredKafka(folder, Runtime(cache_dir()))
    guard = warden.watch(folder, remove=True)
    try:
        kafka.start()
        yield kafka
    finally:
        kafka.stop()
        shutil.rmtree(folder, ignore_errors=True)
        warden.release(guard)
