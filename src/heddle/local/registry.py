"""Apicurio 3.3, a registry with the Confluent API, on the stack's PostgreSQL."""

from __future__ import annotations

import http.client
import subprocess
from pathlib import Path

from heddle.local import process
from heddle.local.artifacts import Programs
from heddle.local.jvm import Jvm
from heddle.local.ports import HOST
from heddle.local.postgres import Postgres
from heddle.local.server import Server

_HEAP_MB = 128
_API = "/apis/ccompat/v7"
_DATABASE = "registry"


class Registry(Server):
    name = "registry"

    def __init__(
        self, data_dir: Path, port: int, management_port: int, postgres: Postgres, programs: Programs, jvm: Jvm
    ) -> None:
        super().__init__(data_dir, port)
        self.management_port = management_port
        self._postgres = postgres
        self._programs = programs
        self._jvm = jvm

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}{_API}"

    def log_files(self) -> list[Path]:
        newest = self.data_dir / "logs" / "registry.log"
        rotated = [newest.with_name(f"registry.log.{index}") for index in (3, 2, 1)]
        return [path for path in (*rotated, newest) if path.exists()]

    def prepare(self) -> None:
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._postgres.create_database(_DATABASE)

    def spawn(self) -> subprocess.Popen[bytes]:
        command = self._jvm.command(
            "registry",
            heap_mb=_HEAP_MB,
            digest=self._programs.digest,
            options=[f"-D{name}={value}" for name, value in self._properties().items()],
            program=["-jar", str(self._programs.registry_dir / "quarkus-run.jar")],
        )
        # By environment, not by argument: every user of the machine can read arguments.
        env = {"APICURIO_DATASOURCE_PASSWORD": self._postgres.password}
        return process.spawn(command, output=self.output, cwd=self.folder, env=env)

    def is_ready(self) -> bool:
        connection = http.client.HTTPConnection(HOST, self.port, timeout=2.0)
        try:
            connection.request("GET", f"{_API}/subjects")
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def _properties(self) -> dict[str, str]:
        return {
            process.token(self.folder).partition("=")[0]: str(self.folder),
            "java.io.tmpdir": str(self.data_dir / "tmp"),
            "quarkus.http.host": HOST,
            "quarkus.http.port": str(self.port),
            "quarkus.management.host": HOST,
            "quarkus.management.port": str(self.management_port),
            "quarkus.banner.enabled": "false",
            "quarkus.log.console.enabled": "false",
            "quarkus.log.file.enabled": "true",
            "quarkus.log.file.path": str(self.data_dir / "logs" / "registry.log"),
            "quarkus.log.file.rotation.max-file-size": "10M",
            "quarkus.log.file.rotation.max-backup-index": "3",
            "apicurio.storage.kind": "sql",
            "apicurio.storage.sql.kind": "postgresql",
            "apicurio.datasource.url": f"jdbc:postgresql://{HOST}:{self._postgres.port}/{_DATABASE}",
            "apicurio.datasource.username": self._postgres.user,
            "apicurio.rules.global.compatibility": "BACKWARD",
        }
