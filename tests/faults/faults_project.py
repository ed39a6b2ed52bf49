"""A small application of two contracts, made in a folder of its own, and the `heddle` command inside of it."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "contracts"))

import psutil
from building import record, types_of, write_contract
from faults_app import _HEDDLE, STOP_TIMEOUT_S

from heddle.broker.log import Broker, Outgoing
from heddle.contracts import AvroCodec, Registry, contract_of
from heddle.contracts.types import write
from heddle.local import Stack
from heddle.operators import OperatorKey, Operators, entry_of, make_key

PARTITIONS = 6
TIMEOUT_S = 30.0
_TOPIC = f"[topic]\npartitions = {PARTITIONS}\n"


class SmallProject:
    """Orders and bills of accounts, in `domain`; flows and sinks are what a test writes into `topologies` and
    `consumers`. Ada and Grace have keys."""

    def __init__(self, root: Path, domain: str = "shop") -> None:
        self.root = root
        self.domain = domain
        self.log = root / "run.log"
        self.mended = root / "mended"
        for folder in ("topologies", "consumers", ".heddle"):
            (root / folder).mkdir(parents=True)
        (root / "pyproject.toml").write_text('[tool.heddle]\nproject = "faults"\n')
        self.mended.write_text("")
        self.log.write_text("")
        bill = [("account", "string"), ("seq", "long"), ("cents", "long")]
        for name, fields in (("order", [*bill, ("product", "string")]), ("bill", bill)):
            schema = record(fields, name.capitalize(), f"{domain}.v1")
            write_contract(root, schema, f"{domain}/{name}.v1", key=("account",), toml=_TOPIC)
        write(root)
        self.keys = {name: make_key(root / ".heddle", name) for name in ("ada", "grace")}
        (root / "operators.toml").write_text("".join(entry_of(key) for key in self.keys.values()))

    @cached_property
    def types(self) -> ModuleType:
        """The generated types, imported into this process under a name of their own."""
        return types_of(self.root, self.domain)

    @property
    def operators(self) -> Operators:
        return Operators.load(self.root, local=False)

    def key_of(self, dice: random.Random) -> OperatorKey:
        return self.keys[dice.choice(sorted(self.keys))]

    def codec(self, registry: Registry) -> AvroCodec[Any]:
        return AvroCodec(contract_of(self.types.Order), registry)

    def mend(self, *products: str) -> None:
        scratch = self.root / ".heddle" / "mended"
        scratch.write_text(" ".join([*self.mended.read_text().split(), *products]))
        scratch.replace(self.mended)  # whole, or not yet: it is read meanwhile

    def last_lines(self, count: int = 80) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-count:])


class Shell:
    """Runs `heddle` in the folder of a project, against a stack."""

    def __init__(self, project: SmallProject, stack: Stack, **environment: str) -> None:
        self.project = project
        self.stack = stack
        given = {name: value for name, value in os.environ.items() if not name.startswith("HEDDLE_")}
        self.environment = given | {
            "HEDDLE_BOOTSTRAP_SERVERS": stack.bootstrap_servers,
            "HEDDLE_REGISTRY_URL": stack.registry_url,
            "HEDDLE_LOCAL": "true",
            "HEDDLE_SECRET_STORE_DSN": stack.dsn,
            "HEDDLE_SECRET_AUDIT_KEY": "of these tests",
            "HEDDLE_OPERATOR": "ada",
            **environment,
        }

    def apply(self) -> None:
        assert self.done(self.begun("apply")) == 0, self.project.last_lines()

    def start(self, *words: str, **environment: str) -> subprocess.Popen[bytes]:
        """In the background, its output in the project's log. It ends when the test's process does."""
        with self.project.log.open("a") as log:
            return subprocess.Popen(
                [sys.executable, "-c", _HEDDLE, *words],
                cwd=self.project.root, env=self.environment | environment, stdin=subprocess.DEVNULL,
                stdout=log, stderr=log,
            )  # fmt: skip

    def begun(self, *words: str, **environment: str) -> subprocess.Popen[str]:
        """In the background, to be read from."""
        return subprocess.Popen(
            [sys.executable, "-c", _HEDDLE, *words],
            cwd=self.project.root, env=self.environment | environment, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def done(self, process: subprocess.Popen[str], timeout_s: float = 120.0) -> int:
        """Its exit code; what it said goes into the project's log."""
        self.output(process, timeout_s)
        return process.returncode

    def output(self, process: subprocess.Popen[str], timeout_s: float = 120.0) -> str:
        out, err = process.communicate(timeout=timeout_s)
        with self.project.log.open("a") as log:
            log.write(out + err)
        return out

    @contextmanager
    def running(self, *names: str) -> Iterator[subprocess.Popen[bytes]]:
        """`heddle run` of these components, which has to end well by itself."""
        supervisor = self.start("run", *names)
        try:
            yield supervisor
        finally:
            code = stopped(supervisor)
        assert code == 0, f"`heddle run` ended with {code}\n{self.project.last_lines()}"

    def worker(self, supervisor: subprocess.Popen[bytes], name: str) -> psutil.Process | None:
        """The component's live process under its supervisor, if there is one now."""
        for child in psutil.Process(supervisor.pid).children():
            try:
                if name in child.cmdline() and child.status() != psutil.STATUS_ZOMBIE:
                    return child
            except psutil.Error:
                continue
        return None


def stopped(process: subprocess.Popen[bytes]) -> int:
    """SIGTERM, as an operator stops it; killed only when it does not end."""
    process.send_signal(signal.SIGTERM)
    try:
        return process.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        for child in psutil.Process(process.pid).children(recursive=True):
            child.kill()
        process.kill()
        return process.wait()


def feed(broker: Broker, topic: str, records: Iterable[tuple[bytes, bytes]], name: str) -> None:
    """(key, value) pairs, as one transaction."""
    producer = broker.producer(f"feeder-{name}")
    try:
        producer.init(TIMEOUT_S)
        producer.begin()
        producer.produce(Outgoing(topic, key, value) for key, value in records)
        producer.commit(TIMEOUT_S)
    finally:
        producer.close()


def totals(numbers: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """Summed up by name."""
    found: Counter[str] = Counter()
    for each in numbers:
        found.update(each)
    return dict(found)
