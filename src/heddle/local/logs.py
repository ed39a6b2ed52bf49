"""The servers' logs, their ends and what is added to them."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, TextIO

from heddle.local.server import Server

_POLL_S = 0.2


class Line(NamedTuple):
    server: str
    text: str


def last_lines(server: Server, count: int) -> list[Line]:
    """The newest `count` lines, over rotated files as well. What a server printed before it had a log comes first."""
    lines: deque[str] = deque(maxlen=count)
    for path in (server.output, *server.log_files()):
        try:
            with path.open(encoding="utf-8", errors="replace") as file:
                lines.extend(line.rstrip("\n") for line in file)
        except FileNotFoundError:
            continue
    return [Line(server.name, text) for text in lines]


def follow(servers: Sequence[Server]) -> Iterator[Line | None]:
    """New lines as they come, over rotation and restarts; None whenever nothing is new. Never ends."""
    tails = [_Tail(server) for server in servers]
    while True:
        idle = True
        for tail in tails:
            for line in tail.read():
                idle = False
                yield line
        if idle:
            yield None
            time.sleep(_POLL_S)


class _Tail:
    """The place in one server's newest log up to which lines were given out."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._file: TextIO | None = None
        self._open_newest(at_end=True)

    def read(self) -> Iterator[Line]:
        yield from self._rest()
        if self._was_replaced():
            self._open_newest(at_end=False)
            yield from self._rest()

    def _rest(self) -> Iterator[Line]:
        while self._file is not None and (text := self._file.readline()):
            yield Line(self._server.name, text.rstrip("\n"))

    def _was_replaced(self) -> bool:
        newest = self._newest()
        if newest is None:
            return False
        return self._file is None or not os.path.samestat(newest.stat(), os.fstat(self._file.fileno()))

    def _open_newest(self, *, at_end: bool) -> None:
        if self._file is not None:
            self._file.close()
        newest = self._newest()
        self._file = None if newest is None else newest.open(encoding="utf-8", errors="replace")
        if self._file is not None and at_end:
            self._file.seek(0, os.SEEK_END)

    def _newest(self) -> Path | None:
        files = self._server.log_files()
        return files[-1] if files else None
