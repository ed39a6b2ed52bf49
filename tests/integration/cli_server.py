"""The `heddle` command many times over: one process loads it, and forks for each call. A start costs a second of CPU,
most of it imports; a fork costs none."""

from __future__ import annotations

import atexit
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path

_SERVER = """
import importlib, json, os, sys
from heddle.cli.main import COMMAND_MODULES, main

for name in COMMAND_MODULES:
    importlib.import_module(f"heddle.cli.{name}")

for line in sys.stdin:
    words, root, env, out, err = json.loads(line)
    pid = os.fork()
    if pid == 0:
        os.chdir(root)
        os.environ.clear()
        os.environ.update(env)
        sys.argv = ["heddle", *words]
        for path, number in ((os.devnull, 0), (out, 1), (err, 2)):
            os.dup2(os.open(path, os.O_RDWR), number)
        code = 0
        try:
            main()
        except SystemExit as end:
            code = end.code or 0
        except BaseException:
            import traceback
            traceback.print_exc()
            code = 70
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""


@cache
def cli_server() -> CliServer:
    """The one of this process; it ends with it."""
    server = CliServer()
    atexit.register(server.close)
    return server


class CliServer:
    """One call at a time."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", _SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def run(self, root: Path, env: Mapping[str, str], *words: str) -> subprocess.CompletedProcess[str]:
        """Inside of the project at `root`, in exactly this environment."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with tempfile.NamedTemporaryFile() as out, tempfile.NamedTemporaryFile() as err:
            self._process.stdin.write(json.dumps([words, str(root), dict(env), out.name, err.name]) + os.linesep)
            self._process.stdin.flush()
            code = int(self._process.stdout.readline())
            texts = [Path(file.name).read_text(encoding="utf-8") for file in (out, err)]
        return subprocess.CompletedProcess(words, code, *texts)

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(30)
        self._process.stdout.close()
