"""Everything about one entry that helps a person to decide what to do with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from heddle.broker.log import Record
from heddle.contracts import Contract, NotRegisteredError, Registry, contract_of
from heddle.contracts.codec import FRAME_BYTES, schema_id_of
from heddle.contracts.decode_reference import decode_reference
from heddle.contracts.limits import DEFAULT_LIMITS
from heddle.contracts.parser import parse_schema
from heddle.contracts.resolution import as_written
from heddle.contracts.schema import Node
from heddle.contracts.shapes import ChosenShape
from heddle.delivery.envelope import ORIGINAL, ORIGINAL_NULL, original_of
from heddle.errors import ContractError
from heddle.integration import Component, Flow, Sink
from heddle.operations.dead_letters.differences import Difference, differences
from heddle.operations.dead_letters.documents import shown_document
from heddle.operations.dead_letters.entries import EntryView, text_of
from heddle.operations.dead_letters.fields import FieldRow, compare
from heddle.operations.dead_letters.finding import FoundEntry
from heddle.operations.dead_letters.json_text import InvalidJsonError, parse
from heddle.operations.dead_letters.masking import MASK, Masking, contracts_of

_NAMED: Final = 5


@dataclass(frozen=True, slots=True)
class Body:
    """What stands in it. A framed one has `rows`; `claims` is the schema that its frame names, `expects` the contract
    of the handler. A raw one has a `document`. `undecoded`: why there is neither; then `data` is shown as it is."""

    claims: str = ""
    expects: str = ""
    rows: tuple[FieldRow, ...] = ()
    document: Any = None
    undecoded: str = ""
    data: bytes = b""
    is_null: bool = False


@dataclass(frozen=True, slots=True)
class Explanation:
    """`view` with masked texts, without its record. `before` and `behind` name entries of the same key: how many and
    the first of them. `edits`: the original body beside the edited one. `masked`: classified fields are hidden."""

    view: EntryView
    owner: str
    runbook: str
    key: str | None
    headers: tuple[tuple[str, str], ...]
    message: str
    stack: str
    body: Body
    before: tuple[int, tuple[str, ...]]
    behind: tuple[int, tuple[str, ...]]
    edits: tuple[Difference, ...] = field(default=())
    masked: bool = False


def explain(found: FoundEntry, component: Component | None, registry: Registry, *, reveal: bool = False) -> Explanation:
    """`component` None: the subscription is declared no more, and nothing is known to be classified.

    Raises what the registry raises when it does not answer."""
    view = found.view
    assert view.record is not None
    contracts = contracts_of(component)
    masking = Masking() if reveal else Masking.of(contracts)
    original = original_of(view.record)
    reader = contract_of(component.reads) if isinstance(component, Flow | Sink) else None
    body = _body(original.value, reader, registry, masking)
    edits = _edits(view.record, original, registry) if view.edit else []
    key = MASK if view.key is not None and masking.hides_key(contracts) else view.key_text
    return Explanation(
        view,
        component.owner if component else "",
        component.runbook if component else "",
        key,
        tuple((name, masking.text(text_of(value))) for name, value in original.headers),
        masking.message(view),
        masking.stack(view),
        body,
        _named(found.before),
        _named(found.behind),
        tuple(masking.differences(edits, of_raw=reader is None)),
        bool(masking),
    )


def _body(value: bytes | None, reader: Contract | None, registry: Registry, masking: Masking) -> Body:
    if value is None:
        return Body(is_null=True)
    if value[:1] != b"\0":
        return _raw(value, reader, masking)
    expects = "" if reader is None else _version_text(reader, registry, reader.source, "")
    try:
        schema_id = schema_id_of(value)
        source = registry.schema(schema_id)
        writer = parse_schema(source)
    except ContractError as error:
        return Body("", expects, undecoded=str(error), data=_shown(value, masking))
    claims = _claim(reader, registry, source, writer, schema_id)
    try:
        decoded = decode_reference(as_written(writer), ChosenShape(), DEFAULT_LIMITS, value, FRAME_BYTES)
    except ContractError as error:
        where = f" at {error.path}" if error.path else ""
        return Body(claims, expects, undecoded=f"{error}{where}", data=_shown(value, masking))
    rows = compare(writer, None if reader is None else reader.root, decoded)
    return Body(claims, expects, tuple(masking.rows(rows)))


def _raw(value: bytes, reader: Contract | None, masking: Masking) -> Body:
    why = "no schema id at its beginning" if reader is not None else "no JSON that can be shown by field"
    try:
        document = parse(value.decode())
    except (InvalidJsonError, UnicodeDecodeError):
        return Body(undecoded=why, data=_shown(value, masking))
    return Body(document=masking.whole(document), undecoded=why if reader is not None else "")


def _shown(value: bytes, masking: Masking) -> bytes:
    """Bytes that nothing explains may hold anything."""
    return b"" if masking else value


def _claim(reader: Contract | None, registry: Registry, source: dict[str, Any], writer: Node, schema_id: int) -> str:
    name = getattr(writer, "name", str(writer))
    if reader is None or name not in (reader.root.name, *reader.root.aliases):
        return f"{name} (schema {schema_id})"
    return _version_text(reader, registry, source, f" (schema {schema_id})")


def _version_text(contract: Contract, registry: Registry, source: dict[str, Any], more: str) -> str:
    try:
        for version in reversed(registry.versions(contract.subject)):
            if registry.schema_of(contract.subject, version) == source:
                return f"{contract.name} version {version}{more}"
    except NotRegisteredError:
        pass
    return f"{contract.name}, a version that is not registered{more}"


def _edits(record: Record, original: Record, registry: Registry) -> Sequence[Difference]:
    headers = dict(record.headers)
    if ORIGINAL not in headers:
        return []
    was = None if ORIGINAL_NULL in headers else headers[ORIGINAL] or b""
    return differences(shown_document(was, registry), shown_document(original.value, registry))


def _named(views: Sequence[EntryView]) -> tuple[int, tuple[str, ...]]:
    return len(views), tuple(view.entry_id for view in views[:_NAMED])
