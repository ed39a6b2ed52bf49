"""What every benchmark says beside its figures: where, with what, and when."""

from __future__ import annotations

import json
import os
import platform
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

OUT = Path(__file__).resolve().parent / "out"
PACKAGES = ("heddle", "heddle-native", "confluent-kafka", "fastavro", "psycopg", "orjson")


def machine() -> str:
    """One line: processor, cores, Python, client."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        model = platform.processor() or platform.machine()
    return (
        f"{model}, {os.cpu_count()} cores, {platform.system()} {platform.release().split('-')[0]}, "
        f"Python {platform.python_version()}, confluent-kafka {version('confluent-kafka')}"
    )


def versions() -> dict[str, str]:
    """Of Python and of the packages that the figures depend on, as far as they are installed."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def write_result(name: str, figures: dict[str, Any]) -> None:
    """As JSON under benchmarks/out, dated. `load`: runnable processes of the last minute; above 1 or 2 the machine was
    not ours alone."""
    OUT.mkdir(exist_ok=True)
    path = OUT / f"{name}.json"
    about = {
        "benchmark": name,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "versions": versions(),
        "load": round(os.getloadavg()[0], 1),
    }
    assert not about.keys() & figures.keys()
    path.write_text(json.dumps(about | figures, indent=2) + "\n", encoding="utf-8")
    print(f"written to {path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path}")
