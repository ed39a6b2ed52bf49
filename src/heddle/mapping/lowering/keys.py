"""The record key, made of the rules that make the target's key fields."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from heddle.contracts.metadata import Metadata
from heddle.mapping.lowering.rules import stepped
from heddle.mapping.lowering.slots import Unlowered
from heddle.mapping.lowering.texts import said
from heddle.mapping.lowering.values import Refused, Tree, leaves
from heddle.mapping.rules import Build, Rule
from heddle.wire import plan as wire


def key_of(metadata: Metadata, record: Build, tree: Callable[[Rule], Tree]) -> wire.Key:
    """Raises `Unlowered` where a part of the key is not one text of parts."""
    entities = tuple(_parts(path.split("."), record, tree) for path in metadata.key)
    tenant = None if metadata.tenant is None else _parts(metadata.tenant.split("."), record, tree)
    return wire.Key(entities, tenant)


def _parts(names: Sequence[str], record: Build, tree: Callable[[Rule], Tree]) -> tuple[wire.Part, ...]:
    rule: Rule = record
    rest = list(names)
    while rest and isinstance(rule, Build):
        rule = dict(rule.fields)[rest.pop(0)]
    found = tree(rule)
    for name in rest:
        found = stepped(found, name)
    # Where the field itself refuses the record, no key is made.
    possible = [leaf for leaf in leaves(found) if not isinstance(leaf, Refused)]
    if len(possible) != 1:
        raise Unlowered("what the key is made of must be decided for each record")
    return said(possible[0])


def key_fields(metadata: Metadata, record: Build) -> Build:
    """The record with only those fields that its key is made of."""
    paths = [path.split(".") for path in (*metadata.key, *([metadata.tenant] if metadata.tenant else []))]
    return _pruned(record, paths)


def _pruned(record: Build, paths: Sequence[Sequence[str]]) -> Build:
    kept = []
    for name, rule in record.fields:
        below = [path[1:] for path in paths if path[0] == name]
        if below:
            kept.append((name, _pruned(rule, below) if isinstance(rule, Build) and all(below) else rule))
    return Build(tuple(kept), type=record.type)
