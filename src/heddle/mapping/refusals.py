"""How a mapping refuses a record at run time. Codes are short stable words; reasons never hold content."""

from __future__ import annotations

from heddle.errors import HeddleError, MappingError, UsageError


class MappingDeclarationError(UsageError):
    """A mapping that cannot be right, with every problem found, found at import before anything runs."""

    code = "mapping-declaration"

    def __init__(self, title: str, problems: list[str]) -> None:
        self.problems = tuple(problems)
        super().__init__(
            "\n  ".join((f"{title}: {len(problems)} problem{'s' if len(problems) > 1 else ''}", *problems)),
            hint="`heddle mapping show NAME` prints a mapping once it is right",
        )


class Refused(Exception):
    """Raised by a built-in operation that cannot work on this value; the mapping adds where."""

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


class RuleError(MappingError):
    """A rule that the data does not satisfy. `code` names the kind of rule, `path` the target field."""

    def __init__(self, code: str, path: str, reason: str) -> None:
        super().__init__(f"{path or 'when'}: {reason}", path=path)
        self.code = code  # type: ignore[misc]  # codes are the rules', and authors add their own with fail()


class CallError(HeddleError):
    """A Python function of the mapping raised. Nothing is known of why, so the class is unknown; `error` is its."""

    code = "call"

    def __init__(self, path: str, function: str, error: Exception) -> None:
        super().__init__(f"{path or 'when'}: {function} raised {type(error).__name__}")
        self.path = path
        self.error = error
