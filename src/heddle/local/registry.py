"""Apicurio 3.3, a registry with the Confluent API, on the stack's PostgreSQL."""

from __future__ import annotations

import http.client
import subprocess
from pathlib import Path

from heddle.local import process
from heddle.local.jvm import JavaServer, Runtime
from heddle.local.ports import HOST, require_free
from heddle.local.postgres import Postgres

_API = "/apis/ccompat/v7"
_DATABASE = "registry"


class Registry(JavaServer):
    name = "registry"
    heap_mb = 128
    program_type = "tar.gz"

    def __init__(self, data_dir: Path, port: int, management_port: int, runtime: Runtime, postgres: Postgres) -> None:
        super().__init__(data_dir, port, runtime)
        self.management_port = management_port
        self._postgres = postgres

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}{_API}"

    def prepare(self) -> None:
        require_free("registry's management", self.management_port)
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._postgres.create_database(_DATABASE)

    def spawn(self) -> subprocess.Popen[bytes]:
        jar = self.runtime.programs.registry_dir / "quarkus-run.jar"
        command = self.java(self._properties(), ["-jar", str(jar)], record=True)
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
        mark, _, folder = process.token(self.folder).partition("=")
        return {
            mark: folder,
            "quarkus.http.host": HOST,
            "quarkus.http.port": str(self.port),
            "quarkus.management.host": HOST,
            "quarkus.management.port": str(self.management_port),
            "quarkus.banner.enabled": "false",
            "quarkus.http.access-log.enabled": "false",
            "quarkus.log.console.enabled": "false",
            "quarkus.log.file.json.enabled": "false",
            "quarkus.log.file.enabled": "true",
            "quarkus.log.file.path": str(self.log),
            "quarkus.log.file.rotation.max-file-size": "10M",
            "quarkus.log.file.rotation.max-backup-index": "3",
            "apicurio.storage.kind": "sql",
            "apicurio.storage.sql.kind": "postgresql",
            "apicurio.datasource.url": f"jdbc:postgresql://{HOST}:{self._postgres.port}/{_DATABASE}",
            "apicurio.datasource.username": self._postgres.user,
            # Its own defaults are 20 connections at once and up to 100, which is all that PostgreSQL gives out.
            "apicurio.datasource.jdbc.initial-size": "1",
            "apicurio.datasource.jdbc.min-size": "1",
            "apicurio.datasource.jdbc.max-size": "10",
            # After a restart of PostgreSQL the pool's connections are dead, and would fail one request each.
            "quarkus.datasource.postgresql.jdbc.validate-on-borrow": "true",
            "apicurio.rules.global.compatibility": "BACKWARD",
        }
