"""Build the native engine and install it into ./.venv: `make native`. Standard library only.

Where it cannot be built (no cargo, no linker, crates out of reach) this says so and ends well: Heddle runs without it.
Crates are pinned in native/crates.lock: name, version, SHA-256, then the crates that it needs. Cargo's own lock is made
from it here, so that cargo checks every hash; the registry's address is what cargo itself writes.

    native.py             build and install
    native.py checked     build with every check on, into native/target/checked, for the tests
    native.py pin         crates.lock anew, from what native/Cargo.toml asks for
"""

from __future__ import annotations

import base64
import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
import tomllib
import zipfile
from hashlib import sha256
from pathlib import Path
from typing import Any, NoReturn

ROOT = Path(__file__).resolve().parent.parent
NATIVE = ROOT / "native"
PINS = NATIVE / "crates.lock"
LOCK = NATIVE / "Cargo.lock"
MANIFEST = tomllib.loads((NATIVE / "Cargo.toml").read_text())["package"]
LIBRARY = "libheddle_native." + ("dylib" if sys.platform == "darwin" else "so")
MODULE = "heddle_native.abi3.so"
OURS = "-"
"""Stands for the hash of our own crate, which has none."""


class NotHereError(Exception):
    """What this machine lacks."""


def main() -> None:
    if sys.argv[1:] == ["pin"]:
        pin()
        return
    started = time.monotonic()
    try:
        look_for_tools()
        write_lock()
        fetch()
    except NotHereError as lack:
        kept = "; the one installed before stays" if importlib.util.find_spec("heddle_native") else ""
        say(f"not built here ({lack}){kept}")
        return
    if sys.argv[1:] == ["checked"]:
        library = build("checked")
        shutil.copy(library, library.parent / MODULE)
        return
    library = build("release")
    installed = Path(sysconfig.get_path("platlib"), MODULE)
    if installed.exists() and installed.read_bytes() == library.read_bytes():
        say("built, up to date")
        return
    install(wheel(library))
    say(f"built and installed into ./.venv ({time.monotonic() - started:.0f} s)")


def look_for_tools() -> None:
    asked = cargo("--version")  # as `cargo 1.88.0 (…)`: the compiler's version too
    if asked.returncode:
        raise NotHereError("no cargo")
    version = asked.stdout.split()[1]
    if numbers(version) < numbers(MANIFEST["rust-version"]):
        raise NotHereError(f"cargo {version} is older than {MANIFEST['rust-version']}")
    if not shutil.which(os.environ.get("CC", "cc")):
        raise NotHereError("no linker")


def numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in version.split("-")[0].split("."))


def write_lock() -> None:
    """Cargo.lock from crates.lock, and only where it differs, so that nothing is built in vain."""
    source = f'source = "{registry()}"\n'
    lines = ["version = 4\n"]
    for name, version, hashed, needs in pins():
        lines.append(f'\n[[package]]\nname = "{name}"\nversion = "{version}"\n')
        lines.append("" if hashed == OURS else f'{source}checksum = "{hashed}"\n')
        lines.append("dependencies = [\n" + "".join(f' "{need}",\n' for need in needs) + "]\n" if needs else "")
    text = "".join(lines)
    if not LOCK.exists() or LOCK.read_text() != text:
        LOCK.write_text(text)


def pins() -> list[tuple[str, str, str, list[str]]]:
    rows = (line.split() for line in PINS.read_text().splitlines() if not line.startswith("#"))
    return [
        (name, version, hashed, [need.replace("@", " ") for need in needs]) for name, version, hashed, *needs in rows
    ]


def registry() -> str:
    """The address that cargo writes into a lock for its registry: in the lock of the last time, or else in one that it
    makes for the first of our crates that needs no other."""
    if LOCK.exists():
        return next(str(package["source"]) for package in packages(LOCK) if "source" in package)
    name, version = next((name, version) for name, version, hashed, needs in pins() if hashed != OURS and not needs)
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "src").mkdir()
        Path(folder, "src", "lib.rs").touch()
        manifest = f'[package]\nname = "asks"\n[dependencies]\n{name} = "={version}"\n'
        Path(folder, "Cargo.toml").write_text(manifest)
        asked = cargo("generate-lockfile", folder=Path(folder))
        if asked.returncode:
            raise NotHereError("crates out of reach")
        locked = packages(Path(folder, "Cargo.lock"))
        return next(str(package["source"]) for package in locked if package["name"] == name)


def packages(lock: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = tomllib.loads(lock.read_text())["package"]
    return found


def fetch() -> None:
    """Raises `NotHereError` where no crate can be had; any other trouble, such as another hash, is a failure."""
    fetched = cargo("fetch", "--locked")
    if not fetched.returncode:
        return
    if "download" in fetched.stderr and "checksum" not in fetched.stderr:
        raise NotHereError("crates out of reach")
    fail(fetched.stderr)


def build(profile: str) -> Path:
    library = NATIVE / "target" / profile / LIBRARY
    if not library.exists():
        say("building, half a minute the first time")
    built = cargo("build", "--profile", profile, "--locked", "--offline", "--target-dir", "target")
    if built.returncode:
        fail(built.stderr)
    return library


def wheel(library: Path) -> Path:
    """The library as a wheel for every CPython from 3.11 on, in ./dist."""
    name, version = MANIFEST["name"], MANIFEST["version"]
    tag = f"cp311-abi3-{sysconfig.get_platform().replace('-', '_').replace('.', '_')}"
    told = f"{name}-{version}.dist-info"
    files = {
        MODULE: library.read_bytes(),
        f"{told}/METADATA": (
            f"Metadata-Version: 2.4\nName: {name.replace('_', '-')}\nVersion: {version}\n"
            f"Summary: {MANIFEST['description']}\nLicense-Expression: {MANIFEST['license']}\nLicense-File: LICENSE\n"
            "Requires-Python: >=3.11\n"
        ).encode(),
        f"{told}/WHEEL": f"Wheel-Version: 1.0\nGenerator: heddle\nRoot-Is-Purelib: false\nTag: {tag}\n".encode(),
        f"{told}/licenses/LICENSE": (ROOT / "LICENSE").read_bytes(),
    }
    record = "".join(f"{path},sha256={digest(data)},{len(data)}\n" for path, data in files.items())
    files[f"{told}/RECORD"] = f"{record}{told}/RECORD,,\n".encode()
    path = ROOT / "dist" / f"{name}-{version}-{tag}.whl"
    path.parent.mkdir(exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def digest(data: bytes) -> str:
    return base64.urlsafe_b64encode(sha256(data).digest()).rstrip(b"=").decode()


def install(path: Path) -> None:
    options = ["--quiet", "--disable-pip-version-check", "--no-index", "--no-deps", "--force-reinstall"]
    done = subprocess.run([sys.executable, "-m", "pip", "install", *options, path], check=False)
    if done.returncode:
        fail("pip could not install the wheel; the lines above say why")


def pin() -> None:
    """crates.lock from what cargo finds for Cargo.toml today."""
    LOCK.unlink(missing_ok=True)
    asked = cargo("generate-lockfile")
    if asked.returncode:
        fail(asked.stderr)
    rows = [
        " ".join(
            (
                package["name"],
                package["version"],
                package.get("checksum", OURS),
                *(need.replace(" ", "@") for need in package.get("dependencies", ())),
            )
        )
        for package in packages(LOCK)
    ]
    PINS.write_text(
        "# name version sha256 needs, by `python deploy/native.py pin`\n" + "".join(f"{row}\n" for row in rows)
    )


def cargo(*arguments: str, folder: Path = NATIVE) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(["cargo", *arguments], cwd=folder, capture_output=True, text=True, check=False)
    except OSError as error:
        return subprocess.CompletedProcess(arguments, 1, "", str(error))


def say(text: str) -> None:
    sys.stdout.write(f"native engine: {text}\n")
    sys.stdout.flush()


def fail(text: str) -> NoReturn:
    sys.exit(f"{text.strip()}\nnative engine: FAILED")


if __name__ == "__main__":
    main()
