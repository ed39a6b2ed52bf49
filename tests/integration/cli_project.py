"""A small project on the real stack, and the `heddle` command inside of it."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

sys.path.insert(0, str(Path(__file__).parents[1] / "contracts"))
sys.path.insert(0, str(Path(__file__).parents[1] / "conformance"))

from building import record, write_contract
from cli_server import cli_server

from heddle.contracts.types import write
from heddle.operators import prepare_local

if TYPE_CHECKING:
    from heddle.local import Stack

FLOW = """
from heddle import Flow
from schemas.{prefix} import Other, Thing


def convert(thing: Thing) -> Other:
    return Other(id=thing.id)


{name} = Flow("{prefix}-{name}", reads=Thing, writes=Other, do=convert, owner="testers")
"""
SINK = """
from heddle import SqlSink, secret
from schemas.{prefix} import Thing

{name} = SqlSink(
    "{prefix}-{name}", reads=Thing, table="{prefix}.{name}", key="id", version="at", dsn=secret("store/dsn"),
    owner="testers",
)
"""
RUN = (sys.executable, "-c", "from heddle.cli.main import main; main()")


@dataclass
class CliProject:
    """Names that no other test has. `topic` is what its flows read."""

    root: Path
    stack: Stack
    prefix: str = field(default_factory=lambda: f"p{uuid4().hex[:10]}")
    env: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        (self.root / "pyproject.toml").write_text('[tool.heddle]\nproject = "test"\n')
        (self.root / "topologies").mkdir()
        (self.root / "consumers").mkdir()
        schema = record([("id", "string"), ("at", "long")], namespace=f"{self.prefix}.v1")
        write_contract(self.root, schema, f"{self.prefix}/thing.v1", toml="[topic]\npartitions = 2\n")
        other = record([("id", "string")], "Other", f"{self.prefix}.v1")
        write_contract(self.root, other, f"{self.prefix}/other.v1", toml="[topic]\npartitions = 2\n")
        write(self.root)
        self.env |= {
            "HEDDLE_BOOTSTRAP_SERVERS": self.stack.bootstrap_servers,
            "HEDDLE_REGISTRY_URL": self.stack.registry_url,
            "HEDDLE_LOCAL": "true",
            "HEDDLE_SECRET_STORE_DSN": self.stack.dsn,
            "HEDDLE_SECRET_AUDIT_KEY": "of these tests",
            "HEDDLE_OPERATOR": "ada",
        }
        prepare_local(self.root / ".heddle", "ada")

    @property
    def topic(self) -> str:
        return f"{self.prefix}.thing.v1"

    def flow(self, name: str) -> str:
        """Declares one; its name."""
        (self.root / f"topologies/{name}.py").write_text(FLOW.format(prefix=self.prefix, name=name))
        return f"{self.prefix}-{name}"

    def sink(self, name: str) -> str:
        """Declares one that writes `{prefix}.{name}`; its name."""
        (self.root / f"consumers/{name}.py").write_text(SINK.format(prefix=self.prefix, name=name))
        return f"{self.prefix}-{name}"

    def heddle(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return cli_server().run(self.root, self._env(), *arguments)

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        """In the background; whoever starts it ends it."""
        return subprocess.Popen([*RUN, *arguments], cwd=self.root, env=self._env(), stderr=subprocess.DEVNULL)

    def _env(self) -> dict[str, Any]:
        return {name: value for name, value in (os.environ | self.env).items() if value}
