"""Kafka 4.3, one node that is broker and controller (KRaft)."""

from __future__ import annotations

import base64
import os
import subprocess
import time
import uuid
from pathlib import Path

from heddle.local import kafka_probe, process
from heddle.local.jvm import JavaServer, Runtime
from heddle.local.ports import HOST, require_free
from heddle.local.problems import LocalStackError, explain_death

_COORDINATORS_TIMEOUT_S = 30.0

# One replica of everything; coordinators of four partitions make and load quickly. Two network and I/O threads and a
# small cleaner buffer save 170 MB. After a kill -9 a lone broker waits for its own old session: 2 s instead of 9.
_PROPERTIES = """\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@{host}:{controller}
listeners=PLAINTEXT://{host}:{port},CONTROLLER://{host}:{controller}
advertised.listeners=PLAINTEXT://{host}:{port},CONTROLLER://{host}:{controller}
controller.listener.names=CONTROLLER
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT
inter.broker.listener.name=PLAINTEXT
log.dirs={data}
auto.create.topics.enable=false
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
share.coordinator.state.topic.num.partitions=4
group.initial.rebalance.delay.ms=0
log.cleaner.dedupe.buffer.size=2097152
num.network.threads=2
num.io.threads=2
broker.session.timeout.ms=2000
broker.heartbeat.interval.ms=500
"""

_LOG4J = """\
status = error
appender.file.type = RollingFile
appender.file.name = file
appender.file.fileName = {log}
appender.file.filePattern = {log}.%i
appender.file.layout.type = PatternLayout
appender.file.layout.pattern = %d{{ISO8601}} %-5p %m (%c{{1}})%n
appender.file.policies.type = Policies
appender.file.policies.size.type = SizeBasedTriggeringPolicy
appender.file.policies.size.size = 10 MB
appender.file.strategy.type = DefaultRolloverStrategy
appender.file.strategy.max = 3
appender.file.strategy.fileIndex = min
rootLogger.level = warn
rootLogger.appenderRef.file.ref = file
logger.server.name = kafka.server
logger.server.level = info
logger.config.name = org.apache.kafka.common.config
logger.config.level = warn
"""


def new_cluster_id() -> str:
    """16 random bytes as Kafka writes them. One id in 64 would begin with a hyphen, which its tools take for an
    option: the first bit is kept clear, so that none does."""
    data = uuid.uuid4().bytes
    return base64.urlsafe_b64encode(bytes([data[0] & 0x7F]) + data[1:]).decode().rstrip("=")


class Kafka(JavaServer):
    name = "kafka"
    heap_mb = 256
    program_type = "jar"

    def __init__(self, data_dir: Path, port: int, controller_port: int, runtime: Runtime) -> None:
        super().__init__(data_dir, port, runtime)
        self.controller_port = controller_port

    @property
    def bootstrap_servers(self) -> str:
        return f"{HOST}:{self.port}"

    def prepare(self) -> None:
        require_free("controller", self.controller_port)
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        properties = _PROPERTIES.format(host=HOST, port=self.port, controller=self.controller_port, data=self._log_dir)
        self._settings.write_text(properties, encoding="utf-8")
        self._log4j.write_text(_LOG4J.format(log=self.log), encoding="utf-8")
        if not (self._log_dir / "meta.properties").exists():
            self._format()

    def spawn(self) -> subprocess.Popen[bytes]:
        mark, _, folder = process.token(self.folder).partition("=")
        command = self._kafka(["kafka.Kafka", str(self._settings)], {mark: folder}, record=True)
        return process.spawn(command, output=self.output, cwd=self.folder)

    def is_ready(self) -> bool:
        return kafka_probe.answers(self.port)

    def finish_start(self) -> None:
        """Coordinators load after the first answer: wait for all of them."""
        deadline = time.monotonic() + _COORDINATORS_TIMEOUT_S
        while not kafka_probe.coordinators_are_loaded(self.port):
            if self.process() is None or time.monotonic() > deadline:
                raise LocalStackError("kafka answers but its coordinators do not load", hint="see `heddle logs kafka`")
            time.sleep(0.05)

    def _format(self) -> None:
        tool = ["kafka.tools.StorageTool", "format", "-t", new_cluster_id(), "-c", str(self._settings)]
        child = process.spawn(self._kafka(tool, {}, record=False), output=self.output, cwd=self.folder)
        if child.wait(self.start_timeout_s):
            raise explain_death(self.name, child.returncode, [self.output])

    def _kafka(self, program: list[str], properties: dict[str, str], *, record: bool) -> list[str]:
        class_path = os.pathsep.join(str(jar) for jar in self.runtime.programs.kafka_jars)
        properties = {"log4j2.configurationFile": str(self._log4j), **properties}
        return self.java(properties, ["-cp", class_path, *program], record=record)

    @property
    def _log_dir(self) -> Path:
        return self.folder / "log"

    @property
    def _settings(self) -> Path:
        return self.folder / "server.properties"

    @property
    def _log4j(self) -> Path:
        return self.folder / "log4j2.properties"
