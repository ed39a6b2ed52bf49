"""What Heddle asks of a contract file beyond valid Avro."""

from __future__ import annotations

from heddle.contracts.keys import KEY_KINDS
from heddle.contracts.metadata import Metadata
from heddle.contracts.naming import record_name
from heddle.contracts.schema import MISSING, Array, Enum, Node, Primitive, Record, children, min_size, named_types
from heddle.contracts.values import check_default
from heddle.errors import ContractError


def check_rules(name: str, root: Node, metadata: Metadata) -> None:
    """Raises `ContractError` for the first rule that contract `name` breaks."""
    domain, short, major = name.split(".")
    expected = f"{domain}.{major}.{record_name(short)}"
    if not isinstance(root, Record) or root.name != expected:
        found = getattr(root, "name", str(root))
        raise ContractError(
            f"declares {found}, its file name asks for record {expected}",
            hint=f'set "namespace": "{domain}.{major}" and "name": "{record_name(short)}"',
        )
    for named in named_types(root).values():
        if isinstance(named, Record):
            _check_record(named)
    for path in (*metadata.key, *([metadata.tenant] if metadata.tenant else [])):
        _check_key(root, path)
    for path in metadata.classified:
        _check_classified(root, path)


def _check_record(record: Record) -> None:
    if not record.doc.strip():
        raise ContractError(f"record {record.name} has no doc", hint="say in one sentence what one record stands for")
    for field in record.fields:
        where = f"{record.name}.{field.name}"
        if not field.doc.strip():
            raise ContractError(f"field {where} has no doc", hint='add "doc": what it means, its unit, when it is null')
        if _has_empty_items(field.type):
            raise ContractError(f"field {where} is an array of items without content", hint="store their number")
        if field.default is not MISSING:
            check_default(field.type, field.default, where)


def _has_empty_items(node: Node) -> bool:
    """Items of no bytes let a tiny message claim billions of them. Records are looked at on their own."""
    if isinstance(node, Record):
        return False
    return (isinstance(node, Array) and min_size(node.items) == 0) or any(map(_has_empty_items, children(node)))


def _check_classified(root: Record, path: str) -> None:
    """A name that is wrong would leave shown what is meant to be masked."""
    nodes: list[Node] = [root]
    for part in path.split("."):
        nodes = [f.type for node in nodes for record in _records_in(node) for f in record.fields if f.name == part]
        if not nodes:
            raise ContractError(
                f"classified field {path} is not in the schema",
                path=path,
                hint="write its path as in the schema; lists, maps and unions are passed through",
            )


def _records_in(node: Node) -> list[Record]:
    """The record that a field holds, or those of a list, a map or a union."""
    if isinstance(node, Record):
        return [node]
    return [record for child in children(node) for record in _records_in(child)]


def _check_key(root: Record, path: str) -> None:
    node: Node = root
    for part in path.split("."):
        fields = {f.name: f.type for f in node.fields} if isinstance(node, Record) else {}
        if part not in fields:
            raise ContractError(f"key field {path} is not in the schema", path=path)
        node = fields[part]
    keyable = isinstance(node, Enum) or (
        isinstance(node, Primitive)
        and node.kind in ("string", "int", "long")
        and (node.logical is None or node.logical.name in ("date", "uuid"))
    )
    if not keyable:
        raise ContractError(
            f"key field {path} is {node}, not {KEY_KINDS}",
            path=path,
            hint="a key field is never null and never a float",
        )
