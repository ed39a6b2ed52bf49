"""An entry's body in somebody's own editor."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import typer

from heddle.cli.main import errors
from heddle.errors import ContractError, UsageError
from heddle.operations.dead_letters.edit import Body
from heddle.operations.dead_letters.hiding import Hiding, body_hiding
from heddle.operations.dead_letters.json_text import InvalidJsonError
from heddle.operations.dead_letters.patching import Change
from heddle.operations.dead_letters.select import Selection
from heddle.operations.dead_letters.session import ChangeOf, Session


def editor_change(session: Session, selection: Selection) -> ChangeOf:
    """Raises `UsageError` for more than one entry: a patch says what to do with many."""
    chosen, _ = session.select(selection)
    if len(chosen) > 1:
        raise UsageError(
            f"{len(chosen)} entries are selected, and an editor takes one",
            hint="change many by --set PATH=VALUE or --patch FILE",
        )
    hiding = body_hiding(session.component)
    return lambda body: edited_by_hand(body, hiding)


def edited_by_hand(body: Body, hiding: Hiding) -> Change:
    """Classified values are masked; those that are left alone stay what they are."""

    def change(document: Any) -> Any:
        text = body.text(hiding.masked(document))
        while True:
            text = _in_editor(text, body.suffix)
            try:
                found = hiding.restored(body.read(text), document)
                if found != document:
                    body.encode(found)
            except (InvalidJsonError, ContractError) as error:
                if not _again(error):
                    raise
            else:
                return found

    return change


def _in_editor(text: str, suffix: str) -> str:
    """The file is this user's alone, and gone afterwards."""
    editor = os.environ.get("VISUAL") or os.environ.get("EDITOR") or "vi"
    with tempfile.TemporaryDirectory(prefix="heddle-edit-") as folder:  # mode 0700
        path = Path(folder, f"entry{suffix}")
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8", newline="") as file:
            file.write(text)
        try:
            with _interrupts_ignored():
                status = subprocess.run([*shlex.split(editor), str(path)], check=False).returncode
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) else error
            raise UsageError(
                f"the editor {editor!r} does not start: {why}", hint="set EDITOR, or use --set PATH=VALUE"
            ) from error
        if status != 0:
            raise UsageError(f"the editor ended with status {status}; nothing was changed")
        return _text(path.read_bytes())


@contextmanager
def _interrupts_ignored() -> Iterator[None]:
    """Ctrl-C is the editor's while it runs. A handler, not SIG_IGN, which the editor would inherit."""
    before = signal.signal(signal.SIGINT, lambda *_: None)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise UsageError("the editor wrote something that is not UTF-8; nothing was changed") from None


def _again(error: InvalidJsonError | ContractError) -> bool:
    """Ask a person; there is nobody to ask where input is no terminal."""
    if not sys.stdin.isatty():
        return False
    where = f"{error.path}: " if isinstance(error, ContractError) and error.path else ""
    errors.print(f"{where}{error}", style="red", markup=False)
    if error.hint:
        errors.print(f"  {error.hint}", markup=False)
    return typer.confirm("Edit it again?", default=True, err=True)
