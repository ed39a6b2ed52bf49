"""Every plan that is written by hand, for every engine to run."""

from __future__ import annotations

from typing import Final

from wire_case import Case
from wire_emits import EMITS
from wire_walks import WALKS

CASES: Final[tuple[Case, ...]] = (*WALKS, *EMITS)
