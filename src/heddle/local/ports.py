"""Loopback ports: free ones, kept over restarts, or fixed ones."""

from __future__ import annotations

import json
import random
import socket
import time
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

from heddle.local.problems import LocalStackError

HOST = "127.0.0.1"

# Below the range from which systems give ports to outgoing connections: a client that retries a stopped server in
# that range can be given the server's own port and connect to itself.
_RANGE = range(15_000, 32_000)
# How long a port may stay taken before it counts as another program's.
_PATIENCE_S = 2.0
_random = random.SystemRandom()


@dataclass(frozen=True, slots=True)
class Ports:
    """0 = any free port."""

    kafka: int = 0
    controller: int = 0
    registry: int = 0
    management: int = 0
    postgres: int = 0


ANY_PORTS = Ports()


def choose(wanted: Ports, remembered: Ports, in_use: frozenset[str] = frozenset()) -> Ports:
    """A port for every name: the wanted one, else the remembered one where it is still free, else a free one.

    Names in `in_use` belong to servers of ours that run already: they keep the remembered port.
    Raises `LocalStackError` naming a wanted port that is taken."""
    chosen: dict[str, int] = {}
    for field in fields(Ports):
        name = field.name
        fixed, before = getattr(wanted, name), getattr(remembered, name)
        if name in in_use and before and fixed in (0, before):
            chosen[name] = before
        elif fixed:
            require_free(name, fixed)
            chosen[name] = fixed
        elif before and before not in chosen.values() and _becomes_free(before):
            chosen[name] = before
        else:
            chosen[name] = free_port(taken=frozenset(chosen.values()))
    return Ports(**chosen)


def free_port(taken: frozenset[int] = frozenset()) -> int:
    """A loopback port that nobody listens on now."""
    for _ in range(1000):
        port = _random.choice(_RANGE)
        if port not in taken and is_free(port):
            return port
    raise LocalStackError("no free loopback port found", hint="stop programs that listen, or fix ports by option")


def is_free(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def _becomes_free(port: int) -> bool:
    """A killed server gives its port back when the last of its threads has ended, a moment after it looks dead."""
    deadline = time.monotonic() + _PATIENCE_S
    while not is_free(port):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def require_free(name: str, port: int) -> None:
    """Raises `LocalStackError` naming the port when somebody listens on it."""
    if not _becomes_free(port):
        raise LocalStackError(
            f"port {port}, which {name} wants, is taken by another program",
            hint=f"stop that program, or choose another port (--{name}-port), or none for a free one",
        )


def load(path: Path) -> Ports:
    """The ports of the last start; none when there was none or the file is damaged."""
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        known = {field.name for field in fields(Ports)}
        return replace(Ports(), **{k: v for k, v in stored.items() if k in known and isinstance(v, int)})
    except (OSError, ValueError, AttributeError):
        return Ports()


def save(path: Path, ports: Ports) -> None:
    path.write_text(json.dumps(asdict(ports)), encoding="utf-8")
