"""How the native engine is built: from pinned crates, and only where it can be."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
PINS = {
    row[0]: row[1:]
    for row in map(str.split, (ROOT / "native" / "crates.lock").read_text().splitlines())
    if not row[0].startswith("#")
}
MANIFEST = tomllib.loads((ROOT / "native" / "Cargo.toml").read_text())


def test_every_crate_is_pinned_by_version_and_hash() -> None:
    ours = MANIFEST["package"]["name"]
    assert PINS[ours][:2] == [MANIFEST["package"]["version"], "-"]
    for name, (version, hashed, *needs) in PINS.items():
        assert re.fullmatch(r"\d+\.\d+\.\d+", version)
        assert name == ours or re.fullmatch(r"[0-9a-f]{64}", hashed)
        assert set(needs) <= PINS.keys()
    asked = MANIFEST["dependencies"] | MANIFEST["build-dependencies"]
    assert {name: PINS[name][0] for name in asked} == {
        name: told if isinstance(told, str) else told["version"] for name, told in asked.items()
    }
    assert sorted(PINS[ours][2:]) == sorted(asked)


def test_where_there_is_no_cargo_that_is_said_and_nothing_fails() -> None:
    command = [sys.executable, ROOT / "deploy" / "native.py"]
    built = subprocess.run(command, env={"PATH": "/nowhere"}, capture_output=True, text=True, check=True)
    assert built.stdout.startswith("native engine: not built here (no cargo)")
