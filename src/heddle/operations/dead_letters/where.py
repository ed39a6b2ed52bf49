"""`--where`: a small expression language over an entry's fields, headers and decoded payload.

    value.product == "GTXPro" and attempts >= 3
    class in ["contract", "poison"] or headers["x-tenant"] == "acme"
    value.lines[0].amount > 100.50 and not "timeout" in message

Python's expression syntax, parsed by Python and compiled by us against a strict list of what is allowed, never
evaluated by Python: no calls, no arithmetic, no attributes of objects. A name is one of `FIELDS`, `headers` (the
original record's) or `value` (its payload). What is missing equals `null`; nothing is less or greater than what cannot
be compared with it."""

from __future__ import annotations

import ast
import difflib
import io
import keyword
import tokenize
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final

from heddle.contracts.schema import MISSING
from heddle.errors import UsageError
from heddle.operations.dead_letters.compare import COMPARISONS, as_decimal, is_time
from heddle.operations.dead_letters.entries import EntryView, text_of

MAX_CHARS: Final = 2_000
MAX_NODES: Final = 200
MAX_DEPTH: Final = 20

ValueOf = Callable[[EntryView], Any]
"""The decoded payload of an entry, `MISSING` where there is none or it cannot be decoded."""

FIELDS: Final[dict[str, Callable[[EntryView], Any]]] = {
    "id": lambda view: view.name,
    "subscription": lambda view: view.subscription,
    "state": lambda view: str(view.state),
    "class": lambda view: view.failure_class,
    "code": lambda view: view.code,
    "path": lambda view: view.path,
    "fingerprint": lambda view: view.fingerprint,
    "exception": lambda view: view.exception,
    "message": lambda view: view.message,
    "key": lambda view: view.key_text,
    "contract": lambda view: view.contract,
    "handler": lambda view: view.handler,
    "root": lambda view: view.root,
    "trace": lambda view: view.trace,
    "attempts": lambda view: view.attempts,
    "edit": lambda view: view.edit,
    "partition": lambda view: view.partition,
    "offset": lambda view: view.offset,
    "size_bytes": lambda view: view.size_bytes,
    "first_failed_at": lambda view: view.first_failed,
    "last_failed_at": lambda view: view.last_failed,
    "appended_at": lambda view: view.appended,
}
_TIMES: Final = frozenset({"first_failed_at", "last_failed_at", "appended_at"})
_CONSTANTS: Final = {"null": None, "true": True, "false": False}
_KNOWN: Final = (*FIELDS, "headers", "value")
_REFUSED: Final = {
    ast.Call: "a call",
    ast.BinOp: "arithmetic",
    ast.Lambda: "a function",
    ast.IfExp: "if … else",
    ast.JoinedStr: "an f-string",
    ast.Slice: "a slice",
    ast.Dict: "a dictionary",
    ast.NamedExpr: "an assignment",
}


class WhereError(UsageError):
    """An expression that cannot be used; says where in it."""

    code = "where"


class Row:
    """One entry under test. Its payload is decoded when first asked for."""

    def __init__(self, view: EntryView, value_of: ValueOf | None) -> None:
        self.view = view
        self._value_of = value_of

    @cached_property
    def value(self) -> Any:
        return MISSING if self._value_of is None else self._value_of(self.view)

    @cached_property
    def headers(self) -> dict[str, str]:
        """Of a header that comes twice the last counts."""
        record = self.view.record
        return {} if record is None else {name: text_of(value) for name, value in record.headers}


Term = Callable[[Row], Any]


@dataclass(frozen=True)
class Where:
    """A parsed expression. Making one raises `WhereError`; `holds` never raises. `needs_record`: it reads headers or
    payload, so that views have to keep their records."""

    text: str
    needs_record: bool = field(init=False, compare=False)
    _term: Term = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        compiler = _Compiler(self.text)
        object.__setattr__(self, "_term", compiler.term(compiler.tree, 1))
        object.__setattr__(self, "needs_record", compiler.needs_record)

    def holds(self, view: EntryView, value_of: ValueOf | None = None) -> bool:
        found = self._term(Row(view, value_of))
        return found is not MISSING and bool(found)


class _Compiler:
    def __init__(self, text: str) -> None:
        if len(text) > MAX_CHARS:
            raise WhereError(f"--where has {len(text)} characters; at most {MAX_CHARS} are read")
        self.text = " ".join(text.split("\n")).strip()
        self.needs_record = False
        self._parsed, self._words = _without_keywords(self.text)
        self.tree = self._parse()
        self._nodes = 0

    def term(self, node: ast.expr, depth: int) -> Term:
        self._nodes += 1
        if self._nodes > MAX_NODES or depth > MAX_DEPTH:
            raise self._error(node, f"too large: at most {MAX_NODES} parts and {MAX_DEPTH} levels")
        match node:
            case ast.BoolOp():
                return _all_or_any(isinstance(node.op, ast.And), [self.term(each, depth + 1) for each in node.values])
            case ast.UnaryOp(op=ast.Not()):
                return _negated(self.term(node.operand, depth + 1))
            case ast.Compare():
                return self._comparison(node, depth)
            case ast.Name() | ast.Attribute() | ast.Subscript():
                return self._path(node)
            case _:
                value = self._literal(node)
                return _constant(value)

    def _parse(self) -> ast.expr:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return ast.parse(self._parsed, mode="eval").body
        except SyntaxError as error:
            raise WhereError(
                f"--where, character {error.offset or len(self.text) + 1}: {error.msg}",
                hint="for example: --where 'value.product == \"GTXPro\" and attempts >= 3'",
            ) from None
        except (ValueError, RecursionError, MemoryError):
            raise WhereError("--where: nested too deeply, or a character that no expression has") from None

    def _comparison(self, node: ast.Compare, depth: int) -> Term:
        terms = [self.term(each, depth + 1) for each in (node.left, *node.comparators)]
        self._check_times([node.left, *node.comparators])
        tests = []
        for operator, left, right in zip(node.ops, terms, terms[1:], strict=False):
            test = COMPARISONS.get(type(operator))
            if test is None:
                raise self._error(node, "`is` is not an operator here", "write == null or != null")
            tests.append(_compared(test, left, right))
        return tests[0] if len(tests) == 1 else _all_or_any(True, tests)

    def _check_times(self, sides: list[ast.expr]) -> None:
        """A time that is none would silently select nothing."""
        if not any(isinstance(side, ast.Name) and side.id in _TIMES for side in sides):
            return
        for side in sides:
            if isinstance(side, ast.Constant) and side.value is not None and not is_time(side.value):
                raise self._error(side, "no time", 'write it as "2026-03-01T09:30:00Z"')

    def _path(self, node: ast.expr) -> Term:
        steps: list[str | int] = []
        while not isinstance(node, ast.Name):
            match node:
                case ast.Attribute():
                    steps.append(self._word(node.attr, (node.end_col_offset or 0) - len(node.attr.encode())))
                    node = node.value
                case ast.Subscript(slice=ast.Constant(value=str() | int() as step)) if not isinstance(step, bool):
                    steps.append(step)
                    node = node.value
                case ast.Subscript(slice=ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() as back))):
                    steps.append(-back)
                    node = node.value
                case ast.Subscript():
                    raise self._error(node, "only a position or a quoted name stands in brackets")
                case _:
                    raise self._error(node, "a path begins with a name", f"names: {', '.join(_KNOWN)}")
        return self._root(node, tuple(reversed(steps)))

    def _root(self, node: ast.Name, steps: tuple[str | int, ...]) -> Term:
        name = self._word(node.id, node.col_offset)
        if name in ("value", "headers"):
            self.needs_record = True
            return _walk((lambda row: row.value) if name == "value" else (lambda row: row.headers), steps)
        if steps and (name in FIELDS or name in _CONSTANTS):
            raise self._error(node, f"{name} has no parts", f"paths begin with value: value.{name}")
        if name in FIELDS:
            read = FIELDS[name]
            return lambda row: read(row.view)
        if name in _CONSTANTS:
            return _constant(_CONSTANTS[name])
        close = difflib.get_close_matches(name, _KNOWN, 1)
        meant = f"did you mean {close[0]}? " if close else f"a field of the payload is value.{name}; "
        raise self._error(node, f"no field {name}", f"{meant}fields: {', '.join(_KNOWN)}")

    def _literal(self, node: ast.expr) -> Any:
        match node:
            case ast.Constant(value=str() | int() | float() | None as value):
                return as_decimal(value) if isinstance(value, float) else value
            case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float())):
                return -self._literal(node.operand)
            case ast.List() | ast.Tuple() | ast.Set():
                self._nodes += len(node.elts)
                return [self._item(item) for item in node.elts]
        raise self._error(node, f"{_REFUSED.get(type(node), 'this')} is not allowed in an expression")

    def _item(self, node: ast.expr) -> Any:
        if isinstance(node, ast.Name) and node.id in _CONSTANTS:
            return _CONSTANTS[node.id]
        if isinstance(node, ast.Constant | ast.UnaryOp):
            return self._literal(node)
        raise self._error(node, "a list holds literals only")

    def _word(self, name: str, byte: int) -> str:
        return self._words.get(self._characters(byte), name)

    def _characters(self, byte: int) -> int:
        return len(self._parsed.encode()[:byte].decode(errors="ignore"))

    def _error(self, node: ast.expr, message: str, hint: str = "") -> WhereError:
        start, end = self._characters(node.col_offset), self._characters(node.end_col_offset or 0)
        part = self.text[start:end]
        shown = part if len(part) <= 40 else f"{part[:39]}…"
        return WhereError(f"--where, character {start + 1}, {shown!r}: {message}", hint=hint)


def _without_keywords(text: str) -> tuple[str, dict[int, str]]:
    """Python's keywords may be names of ours (`class`) and of payload fields (`value.from`): underscores of the same
    length stand in for them, so that positions stay. Which word stood where, by character."""
    words: dict[int, str] = {}
    try:
        previous = ""
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            is_field = previous == "." and keyword.iskeyword(token.string)
            if token.type == tokenize.NAME and (is_field or token.string == "class"):
                words[token.start[1]] = token.string
            previous = token.string
    except (tokenize.TokenError, SyntaxError):
        return text, {}  # the parser will say what is wrong
    for start, word in words.items():
        text = text[:start] + "_" * len(word) + text[start + len(word) :]
    return text, words


def _constant(value: Any) -> Term:
    return lambda _: value


def _all_or_any(every: bool, terms: list[Term]) -> Term:
    def test(row: Row) -> bool:
        return (all if every else any)(_true(term(row)) for term in terms)

    return test


def _negated(term: Term) -> Term:
    return lambda row: not _true(term(row))


def _compared(test: Callable[[Any, Any], bool], left: Term, right: Term) -> Term:
    return lambda row: test(left(row), right(row))


def _walk(root: Term, steps: tuple[str | int, ...]) -> Term:
    def read(row: Row) -> Any:
        found = root(row)
        for step in steps:
            found = _part(found, step)
        return found

    return read


def _part(container: Any, step: str | int) -> Any:
    if isinstance(container, dict):
        return container.get(step, MISSING)
    if isinstance(container, list) and isinstance(step, int) and -len(container) <= step < len(container):
        return container[step]
    return MISSING


def _true(value: Any) -> bool:
    return value is not MISSING and bool(value)
