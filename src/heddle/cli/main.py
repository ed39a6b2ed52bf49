"""The `heddle` command. Each module of this package adds its commands to `app`.

Exit codes: 0 done · 1 the thing asked about is not so (a check failed, a signature is invalid) · 2 usage ·
3 already running · 4 fenced by another owner · 5 a dependency does not answer · 6 stopped until a person decides
(credentials refused, offsets lost).
"""

from __future__ import annotations

import errno
import importlib
import sys
import traceback

import typer
from rich.console import Console

from heddle.cli.printable import plain_lines
from heddle.errors import HeddleError
from heddle.secrets import redact

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Integrations as code on Kafka.",
)

COMMAND_MODULES = (
    "stack",
    "operators",
    "contracts",
    "run",
    "watch",
    "mapping",
    "webhook",
    "dlq",
    "dlq_list",
    "dlq_show",
    "dlq_act",
    "dlq_jobs",
    "dlq_transfer",
    "rewind",
    "snapshot",
)

WIDE = 120

out = Console(highlight=False, width=None if sys.stdout.isatty() else WIDE)
errors = Console(stderr=True, highlight=False, soft_wrap=True)
"""Results and everything else. A pipe has no width of its own: tables must not be cut for it."""


def main() -> None:
    """Entry point: every expected error is one or two lines on standard error, never a traceback."""
    try:
        for name in COMMAND_MODULES:
            importlib.import_module(f"heddle.cli.{name}")
        app(prog_name="heddle")
    except HeddleError as error:
        errors.print(plain_lines(redact(f"heddle: {error}")), style="red", markup=False)
        for note in getattr(error, "__notes__", ()):
            errors.print(f"  {plain_lines(redact(str(note)))}", markup=False)
        if error.hint:
            errors.print(f"  {plain_lines(redact(error.hint))}", markup=False)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            errors.print("heddle: no space is left where this is written; it is not whole", style="red")
        else:  # what nobody expected, as Python would print it, without secrets
            sys.stderr.write(redact(traceback.format_exc()))
        sys.exit(1)
