"""Kafka 4.3, one node that is broker and controller (KRaft)."""

from __future__ import annotations

import base64
import os
import subprocess
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import psutil

from heddle.local import kafka_probe, process
from heddle.local.jvm import JavaServer, Runtime
from heddle.local.ports import HOST, require_free
from heddle.local.problems import LocalStackError, explain_death

_COORDINATORS_TIMEOUT_S = 30.0
_POLL_S = 0.05

_FENCED_WITHIN_S = 3.0  # where it was fenced already when it was killed, nobody says so

_NODE = """\
node.id=1
controller.quorum.voters=1@{host}:{controller}
controller.listener.names=CONTROLLER
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT
log.dirs={data}
"""

# One replica of everything; coordinators of four partitions make and load quickly. Two network and I/O threads and a
# small cleaner buffer save 170 MB.
_PROPERTIES = (
    _NODE
    + """\
process.roles=broker,controller
listeners=PLAINTEXT://{host}:{port},CONTROLLER://{host}:{controller}
advertised.listeners=PLAINTEXT://{host}:{port},CONTROLLER://{host}:{controller}
inter.broker.listener.name=PLAINTEXT
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
"""
)

_CONTROLLER_PROPERTIES = (
    _NODE
    + """\
process.roles=controller
listeners=CONTROLLER://{host}:{controller}
broker.session.timeout.ms=250
metadata.max.idle.interval.ms=100
"""
)

_CONTROLLER_LOG4J = """\
status = error
appender.out.type = Console
appender.out.name = out
rootLogger.level = warn
rootLogger.appenderRef.out.ref = out
logger.controller.name = org.apache.kafka.controller
logger.controller.level = info
"""
_ACTIVE, _FENCED = "Becoming the active controller", "Fencing broker 1 "

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
        self._settings.write_text(self._filled_in(_PROPERTIES), encoding="utf-8")
        self._log4j.write_text(_LOG4J.format(log=self.log), encoding="utf-8")
        if not (self._log_dir / "meta.properties").exists():
            self._format()
        elif self._was_killed:
            self._end_old_session()

    def spawn(self) -> subprocess.Popen[bytes]:
        command = self._kafka(["kafka.Kafka", str(self._settings)], self._mark, record=True)
        return process.spawn(command, output=self.output, cwd=self.folder)

    def is_ready(self) -> bool:
        return kafka_probe.answers(self.port)

    def finish_start(self) -> None:
        """Coordinators load after the first answer: wait for all of them."""
        deadline = time.monotonic() + _COORDINATORS_TIMEOUT_S
        while not kafka_probe.coordinators_are_loaded(self.port):
            if self.process() is None or time.monotonic() > deadline:
                raise LocalStackError("kafka answers but its coordinators do not load", hint="see `heddle logs kafka`")
            time.sleep(_POLL_S)

    def _format(self) -> None:
        tool = ["kafka.tools.StorageTool", "format", "-t", new_cluster_id(), "-c", str(self._settings)]
        child = process.spawn(self._kafka(tool, {}, record=False), output=self.output, cwd=self.folder)
        if child.wait(self.start_timeout_s):
            raise explain_death(self.name, child.returncode, [self.output])

    def _filled_in(self, properties: str) -> str:
        return properties.format(host=HOST, port=self.port, controller=self.controller_port, data=self._log_dir)

    @property
    def _mark(self) -> dict[str, str]:
        name, _, folder = process.token(self.folder).partition("=")
        return {name: folder}

    @property
    def _was_killed(self) -> bool:
        """A broker marks its folder where it ended cleanly, and takes the mark away where it starts."""
        has_run = (self._log_dir / "__cluster_metadata-0").exists()
        return has_run and not (self._log_dir / ".kafka_cleanshutdown").exists()

    def _end_old_session(self) -> None:
        """Run the controller alone until the session of the killed broker has ended.

        A broker that starts while it lasts leads all its partitions by what the metadata still say, and loses them a
        moment later. What its transaction coordinator finishes in between is done for partitions without a leader:
        Kafka 4.3 takes these for deleted, writes no marker, and holds the transaction for complete. Its records are
        never read then (seen under load, once in some twenty restarts). And the session of the broker need not be
        short any more, which under load ended sessions of brokers that were alive, to the same effect.

        What goes wrong here is told when the broker itself starts."""
        log4j, output = self._controller.with_suffix(".log4j2.properties"), self._controller.with_suffix(".out")
        self._controller.write_text(self._filled_in(_CONTROLLER_PROPERTIES), encoding="utf-8")
        log4j.write_text(_CONTROLLER_LOG4J, encoding="utf-8")
        properties = {**self._mark, "log4j2.configurationFile": str(log4j)}
        command = self._kafka(["kafka.Kafka", str(self._controller)], properties, record=False)
        child = process.spawn(command, output=output, cwd=self.folder)

        def says(text: str) -> bool:
            return text in output.read_text(encoding="utf-8", errors="replace")

        try:
            if _until(child, lambda: says(_ACTIVE), self.start_timeout_s):
                _until(child, lambda: says(_FENCED), _FENCED_WITHIN_S)
                for _ in range(2):  # it is said before it is written; one older write may be on its way, and idle ones
                    size = self._metadata_size()  # come after it
                    _until(child, lambda size=size: self._metadata_size() > size, _FENCED_WITHIN_S)  # type: ignore[misc]
        finally:
            process.end(psutil.Process(child.pid), self.stop_signal, self.stop_timeout_s)
            child.wait()

    def _metadata_size(self) -> int:
        return sum(path.stat().st_size for path in (self._log_dir / "__cluster_metadata-0").glob("*.log"))

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
    def _controller(self) -> Path:
        return self.folder / "controller.properties"

    @property
    def _log4j(self) -> Path:
        return self.folder / "log4j2.properties"


def _until(child: subprocess.Popen[bytes], holds: Callable[[], bool], timeout_s: float) -> bool:
    """Whether it held before the child ended and the time was over."""
    deadline = time.monotonic() + timeout_s
    while not holds():
        if child.poll() is not None or time.monotonic() > deadline:
            return False
        time.sleep(_POLL_S)
    return True
