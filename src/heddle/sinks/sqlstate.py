"""PostgreSQL's SQLSTATE codes, by what they say about the next try (PostgreSQL manual, appendix A).

Prefixes: two characters are a class of codes, five are one code. No client library is imported here: what a handler
raises of one is classed by the same table as what the SQL sink meets."""

from __future__ import annotations

import re

from heddle.errors import FailureClass

AUTH = ("28", "42501")
DATA = ("22", "23", "44", "54")
DECLARATION = ("0A", "26", "3D", "3F", "42")
DOWN = ("08", "53", "57", "58", "F0", "XX")
RETRY = ("40001", "40P01")
FOREIGN_KEY = "23503"
# What the server gave up for a moment: a rolled-back transaction, a lock, a statement's time-out. A row that a foreign
# key misses may come later.
_PASSING = ("40", "55P03", "57014", FOREIGN_KEY)
# The answer to a commit is lost.
_UNDECIDED = ("08007", "40003")

# A failed connect carries no SQLSTATE, only the server's text. In a language that is not English it counts as down.
REFUSED = re.compile(
    r"authentication failed|no password supplied|no pg_hba\.conf entry|pg_hba\.conf rejects"
    r"|role .* does not exist|not permitted to log in|permission denied"
)
NO_DATABASE = re.compile(r"database .* does not exist")


def failure_class_of(state: str) -> FailureClass:
    """The class of a failed statement that a handler ran. What is wrong with the statement itself is `unknown`: it
    may be this record's doing, or a migration that is still to come."""
    if state.startswith(_PASSING):
        return FailureClass.TRANSIENT
    if state.startswith(AUTH):
        return FailureClass.AUTH
    if state.startswith(DATA):
        return FailureClass.CONTRACT
    return FailureClass.DEPENDENCY_DOWN if state.startswith(DOWN) else FailureClass.UNKNOWN


def is_undecided(state: str) -> bool:
    """Whether the transaction may have committed."""
    return state.startswith(_UNDECIDED)


def condition_of(error: BaseException, state: str) -> str:
    """`23514` as `check-violation`; a code that PostgreSQL's client does not know as `sqlstate-XXXXX`."""
    kind = type(error)
    return kebab(kind.__name__) if getattr(kind, "sqlstate", None) == state else f"sqlstate-{state.lower()}"


def kebab(name: str) -> str:
    """`CheckViolation` as `check-violation`, `InvalidURL` as `invalid-url`."""
    return _WORD_ENDS.sub("-", name).lower()


_WORD_ENDS = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
