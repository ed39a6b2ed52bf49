"""Every plan that is written by hand, for every engine to run."""

from __future__ import annotations

from typing import Final

from wire_calls import CALLS, KEYS, LIMITS
from wire_case import Case
from wire_conditions import CONDITIONS
from wire_lists import LISTS
from wire_numbers import NUMBERS
from wire_orders import ORDERS
from wire_texts import TEXTS
from wire_walks import WALKS

CASES: Final[tuple[Case, ...]] = (*WALKS, *NUMBERS, *TEXTS, *CONDITIONS, *LISTS, *CALLS, *KEYS, *LIMITS, ORDERS)
