"""What `make check` runs: lint, format, types, import layers, stale generated types. Stops at the first that fails."""

import subprocess
import sys
import time

STEPS = (
    ("lint", ["ruff", "check", "--quiet", "."]),
    ("format", ["ruff", "format", "--check", "--quiet", "."]),
    ("types", ["mypy", "--no-error-summary"]),
    ("layers", ["lint-imports", "--no-cache"]),
    ("declarations", ["heddle", "check"]),
    ("benchmark", ["heddle", "check"], "benchmarks/app"),
)


def main() -> int:
    print(f"Python {sys.version.split()[0]}")
    for name, command, *folder in STEPS:
        started = time.monotonic()
        program = [f"{sys.prefix}/bin/{command[0]}", *command[1:]]
        result = subprocess.run(program, cwd=folder[0] if folder else ".", capture_output=True, text=True, check=False)
        print(
            f"check: {name:<13} {'ok' if result.returncode == 0 else 'FAILED'}  {time.monotonic() - started:.1f} s",
            flush=True,
        )
        if result.returncode:
            print(result.stdout + result.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
