"""The Python code of a page of the documentation, as it stands there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

HOW_TO = Path(__file__).parents[2] / "docs" / "how-to"


def code_of(page: Path) -> dict[str, Any]:
    """All of a page's code as one module; blanks keep its line numbers."""
    text = page.read_text(encoding="utf-8")
    code = re.sub(r"^```python\n(.*?)^```$", lambda block: "\0" + block[0], text, flags=re.DOTALL | re.MULTILINE)
    lines, inside = [], False
    for line in code.splitlines():
        if line.startswith("\0"):
            inside, line = True, ""
        elif line == "```":
            inside = False
        lines.append(line if inside else "")
    module: dict[str, Any] = {"__name__": page.stem}
    exec(compile("\n".join(lines), str(page), "exec", dont_inherit=True), module)
    return module
