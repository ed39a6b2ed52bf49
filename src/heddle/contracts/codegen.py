"""Python source in the making: lines, fresh names, and the constants that the source refers to."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Final


class Refused(Exception):
    """Raised by generated code for data that it will not take; the reference codec then says why."""


# Everything that generated code raises on bad data. Anything else is a mistake of ours and must surface.
REFUSALS: Final = (Refused, ArithmeticError, AttributeError, LookupError, TypeError, ValueError, struct.error)

# Deeper code goes into functions of its own: Python allows 20 nested blocks, and small functions read better.
INLINE_DEPTH: Final = 6


@dataclass(slots=True)
class Source:
    """One module of generated code. `names` become its globals."""

    names: dict[str, Any]
    functions: list[list[str]] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    indent: int = 0
    numbers: Iterator[int] = field(default_factory=count)

    def fresh(self, prefix: str) -> str:
        return f"{prefix}{next(self.numbers)}"

    def constant(self, prefix: str, value: Any) -> str:
        name = self.fresh(prefix)
        self.names[name] = value
        return name

    def add(self, *lines: str) -> None:
        self.lines.extend("    " * self.indent + line for line in lines)

    @contextmanager
    def block(self, head: str) -> Iterator[None]:
        self.add(head)
        self.indent += 1
        yield
        self.indent -= 1

    @contextmanager
    def function(self, head: str) -> Iterator[None]:
        """A function of its own, however deep the code is that calls for it."""
        outer = self.lines, self.indent
        self.lines, self.indent = [head], 1
        self.functions.append(self.lines)
        yield
        self.lines, self.indent = outer

    def compile(self, label: str) -> dict[str, Any]:
        """Run the source; returns its globals."""
        text = self.text()
        exec(compile(text, f"<heddle {label}>", "exec"), self.names)  # noqa: S102 - names come from parsed schemas only
        return self.names

    def text(self) -> str:
        return "\n\n".join("\n".join(lines) for lines in self.functions) + "\n"
