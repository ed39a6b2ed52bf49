"""The batch-shaped seam between the worker and whatever turns input bytes into output bytes.

A worker knows only this; a compiled byte-to-byte plan can stand behind it without the worker changing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from heddle.errors import Failure
from heddle.wire.engine import Outputs


class Transcoder(Protocol):
    """Input values to output records, a batch at a time, on the worker's thread."""

    def transcode(self, values: Sequence[bytes | None]) -> tuple[Outputs, list[Failure]]:
        """Same length out. None where a failure names that index, or where the mapping's condition left the record
        out. Bad data never raises; `DependencyDownError` (registry) does, and nothing of the batch is settled."""
