"""`make bench`: the short of it, in a few minutes: the codec, one worker, the SQL sink, the gateway.

Each by its own program with fewer and smaller runs, which replace what is in benchmarks/out; `make bench-worker` and
the others measure at length."""

from __future__ import annotations

import subprocess
import sys

from benchmarks.lab import ROOT

SHORT = {
    "codec": ["--rounds", "5"],
    "worker": ["--records", "20000", "--runs", "2", "--sides", "copy,fastavro,python,native"],
    "sql": ["--events", "20000", "--batches", "1000", "--runs", "2"],
    "gateway": ["--deliveries", "5000", "--runs", "2"],
}


def main() -> int:
    for name, options in SHORT.items():
        print(f"\n== {name}\n", flush=True)
        program = [sys.executable, "-m", f"benchmarks.{name}", *options]
        if failed := subprocess.run(program, cwd=ROOT, check=False).returncode:
            return failed
    return 0


if __name__ == "__main__":
    sys.exit(main())
