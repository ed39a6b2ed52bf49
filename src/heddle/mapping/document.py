"""The field-level mapping document: which field comes of which, by which rule, and what is lost on the way."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

from heddle.contracts import Contract
from heddle.contracts.schema import Array, Record
from heddle.mapping.numbers import COUNT
from heddle.mapping.plan import digest_of, inner_rules
from heddle.mapping.rules import (
    Apply,
    Build,
    Call,
    Constant,
    Default,
    Each,
    Fail,
    Filter,
    First,
    Items,
    Join,
    Plan,
    Rule,
    Table,
    Take,
    Total,
    typed,
)
from heddle.mapping.types import Type, type_of
from heddle.mapping.wording import asked, in_words

_COLUMNS = ("Target field", "Type", "Source fields", "Source types", "Rule", "Null", "Lossy")


@dataclass(frozen=True, slots=True)
class Row:
    """One target field. `lossy` says what is lost, or is empty; `null` what happens where the source is null."""

    target: str
    type: str
    sources: tuple[str, ...]
    source_types: tuple[str, ...]
    rule: str
    null: str
    lossy: str


def rows_of(plan: Plan) -> list[Row]:
    """Every leaf of the target, nested records and lists opened (`lines[].account`)."""
    return list(_rows("", plan.record, typed(plan.record)))


def document_json(name: str, plan: Plan, source: Contract) -> dict[str, Any]:
    """The document as data, for other tools."""
    return {
        "flow": name,
        "source": plan.source,
        "target": plan.target,
        "digest": digest_of(plan),
        "when": asked(plan.when) if plan.when else None,
        "fields": [asdict(row) for row in rows_of(plan)],
        "unused": unused_fields(plan, source),
    }


def document(name: str, plan: Plan, source: Contract, target: Contract) -> str:
    """The document in Markdown."""
    condition = f"Only where {asked(plan.when)}." if plan.when else "Every record."
    unused = ", ".join(f"`{field}`" for field in unused_fields(plan, source)) or "none"
    table = [_line(_COLUMNS), _line("---" for _ in _COLUMNS), *(_line(_cells(row)) for row in rows_of(plan))]
    return "\n".join(
        (
            f"# Mapping {name}",
            "",
            f"`{plan.source}` ({source.metadata.owner}) → `{plan.target}` ({target.metadata.owner})",
            "",
            condition,
            "",
            *table,
            "",
            f"Source fields that nothing reads: {unused}.",
            "",
            f"Plan SHA-256: `{digest_of(plan)}`",
            "",
        )
    )


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _cells(row: Row) -> tuple[str, ...]:
    fields = ", ".join(f"`{source}`" for source in row.sources) or "–"
    return (
        f"`{row.target}`",
        row.type,
        fields,
        ", ".join(row.source_types) or "–",
        row.rule,
        row.null,
        row.lossy or "no",
    )


def unused_fields(plan: Plan, source: Contract) -> list[str]:
    """Source fields that no rule and no condition reads, in schema order."""
    rules = [*inner_rules(plan.record), *inner_rules(plan.when)]
    walked = {id(take) for rule in rules for take in _walked(rule)}
    used = {rule.source for rule in rules if isinstance(rule, Take) and id(rule) not in walked}
    return [path for path in _leaves(source.root, "", ()) if not any(_reads(read, path) for read in used)]


def _walked(rule: Rule) -> Iterator[Take]:
    """The list whose items a rule visits: being visited, an item is not read yet."""
    of = rule.of if isinstance(rule, Each | Total | First) else None
    if isinstance(rule, Apply) and rule.operation is COUNT:
        of = rule.args[0]
    while isinstance(of, Filter):
        of = of.of
    if isinstance(of, Take):
        yield of


def _reads(read: str, path: str) -> bool:
    """A field is read when it, what holds it, or a part of it is taken."""
    return (
        read in (".", path) or path.startswith((f"{read}.", f"{read}[]")) or read.startswith((f"{path}.", f"{path}[]"))
    )


def _leaves(record: Record, prefix: str, inside: tuple[Record, ...]) -> Iterator[str]:
    for field in record.fields:
        path, inner = f"{prefix}{field.name}", type_of(field.type).node
        if isinstance(inner, Array):
            path, inner = f"{path}[]", type_of(inner.items).node
        if isinstance(inner, Record) and not any(inner is outer for outer in (*inside, record)):
            yield from _leaves(inner, f"{path}.", (*inside, record))
        else:
            yield path.removesuffix("[]")


def _rows(path: str, rule: Rule, target: Type) -> Iterator[Row]:
    match rule:
        case Build(fields, omitted) if isinstance(target.node, Record):
            types = {field.name: type_of(field.type) for field in target.node.fields}
            for name, inner in fields:
                inner_path = f"{path}.{name}" if path else name
                if name in omitted:
                    words = f"schema default: {in_words(inner)}"
                    yield Row(inner_path, str(types[name]), (), (), words, "–", "")
                else:
                    yield from _rows(inner_path, inner, types[name])
        case Items(rules) if isinstance(target.node, Array):
            for i, inner in enumerate(rules):
                yield from _rows(f"{path}[{i}]", inner, type_of(target.node.items))
        case Each(of, Build() as inner) if isinstance(target.node, Array):
            yield _row(path, target, of, f"one for each of {in_words(of)}")
            yield from _rows(f"{path}[]", inner, type_of(target.node.items))
        case _:
            yield _row(path, target, rule, in_words(rule))


def _row(path: str, target: Type, rule: Rule, words: str) -> Row:
    taken = {take.source: str(typed(take)) for take in inner_rules(rule) if isinstance(take, Take)}
    losses = dict.fromkeys(loss for inner in inner_rules(rule) for loss in _losses(inner))
    return Row(path, str(target), tuple(taken), tuple(taken.values()), words, _null(rule), "; ".join(losses))


def _null(rule: Rule) -> str:
    inner = list(inner_rules(rule))
    if not any(isinstance(part, Take | First | Call) and typed(part).nullable for part in inner):
        return "never null"
    told = []
    for part in inner:
        match part:
            case Default(_, Fail(code)):
                told.append(f"refused ({code})")
            case Default(_, fallback):
                told.append(f"becomes {in_words(fallback)}")
            case Join(skip_null=True):
                told.append("null parts are left out")
            case First():
                told.append("null for an empty list")
    if typed(rule).nullable and not isinstance(rule, First):
        told.append("stays null")
    return "; ".join(dict.fromkeys(told)) or "handled by the rule"


def _losses(rule: Rule) -> Iterator[str]:
    match rule:
        case Apply(operation, args, params):
            loss = operation.loss(tuple(typed(arg) for arg in args), dict(params))
            if loss:
                yield loss
        case Table(_, rows):
            values = [value.value for _, value in rows if isinstance(value, Constant)]
            if any(value in values[:i] for i, value in enumerate(values)) or not isinstance(
                rule.otherwise, Fail | None
            ):
                yield "several values become one"
        case Filter():
            yield "items that do not match"
        case First():
            yield "all items but the first"
        case Total():
            yield "the single items"
        case Call():
            yield "what the function leaves out"
