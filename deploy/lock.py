"""Write requirements.lock: every dependency of every extra and of the build, pinned with hashes, for 3.11 to 3.13.

Names no package host. Needs the network; the resolver is installed for this run only."""

import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RESOLVER = "uv==0.13.9"
FLAGS = (
    "--all-extras --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --no-annotate"
    " --no-sources -q -o requirements.lock"
)


def main() -> None:
    build = tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]["requires"]
    with tempfile.TemporaryDirectory() as folder:
        extra = Path(folder, "build.in")
        extra.write_text("\n".join(build) + "\n")
        tool = Path(folder, "resolver")
        subprocess.run([sys.executable, "-m", "pip", "install", "-q", "--target", tool, RESOLVER], check=True)
        subprocess.run(
            [tool / "bin" / "uv", "pip", "compile", "pyproject.toml", extra, *FLAGS.split()],
            check=True,
            cwd=ROOT,
        )


if __name__ == "__main__":
    main()
