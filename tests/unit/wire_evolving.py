"""Random older and newer versions of a schema: what another writer may have written, and still be read.

Schemas here are JSON trees in which every named type stands where it is used, once."""

from __future__ import annotations

import json
from copy import deepcopy
from random import Random
from typing import Any

from heddle.contracts.parser import parse_schema
from heddle.contracts.schema import Array, Enum, Fixed, Logical, Map, Node, Primitive, Record, Union, min_size

_NARROWER = {
    "long": ["int"],
    "float": ["int", "long"],
    "double": ["int", "long", "float"],
    "string": ["bytes"],
    "bytes": ["string"],
}
_LOGICAL: dict[str, list[Any]] = {
    "int": [{"type": "int", "logicalType": "date"}, {"type": "int", "logicalType": "time-millis"}],
    "long": [{"type": "long", "logicalType": "timestamp-micros"}, {"type": "long", "logicalType": "timestamp-millis"}],
    "string": [{"type": "string", "logicalType": "uuid"}],
    "bytes": [{"type": "bytes", "logicalType": "decimal", "precision": 5, "scale": 1}],
}


def readied(schema: dict[str, Any], dice: Random) -> dict[str, Any]:
    """A reader that older writers can differ from: with defaults and aliases."""
    ready = deepcopy(schema)
    _ready(ready, dice)
    return ready


def _ready(node: Any, dice: Random) -> None:
    if isinstance(node, list):
        for branch in node:
            _ready(branch, dice)
        return
    if not isinstance(node, dict):
        return
    for inner in ("items", "values"):
        _ready(node.get(inner), dice)
    if node["type"] == "enum" and dice.random() < 0.6:
        node["default"] = node["symbols"][-1]
    if node["type"] in ("record", "enum", "fixed") and dice.random() < 0.3:
        node["aliases"] = [f"Old{node['name']}"]
    for field in node.get("fields", ()):
        _ready(field["type"], dice)
        if field["name"] != "id" and dice.random() < 0.5:
            field["default"] = default_of(parse_schema(field["type"]))
        if dice.random() < 0.4:
            field["aliases"] = [f"unused_{field['name']}", f"old_{field['name']}"]


def _says(node: Any, *names: str) -> bool:
    said = json.dumps(node)
    return any(f'"{name}"' in said for name in names)


def default_of(node: Node) -> Any:
    """A default as a schema says it; a union's is of its first branch."""
    match node:
        case Primitive(kind="string", logical=Logical()):
            return "12345678-1234-5678-1234-567812345678"
        case Primitive(kind=kind):
            known: dict[str, Any] = {"null": None, "boolean": True, "string": "ü", "bytes": "\u0001ÿ"}
            known |= {"float": 7.5, "double": 7.5}
            return known.get(kind, 7) if node.logical is None or kind in ("int", "long") else "\u0001"
        case Fixed(size=size):
            return "\u0000" * (size - 1) + "\u0001"
        case Enum(symbols=symbols):
            return symbols[0]
        case Array(items=items):
            return [default_of(items)]
        case Map(values=values):
            return {"k": default_of(values)}
        case Union(branches=branches):
            return default_of(branches[0])
        case Record(fields=fields):
            return {field.name: default_of(field.type) for field in fields}


class Older:
    """Draws writers of one reader. `odd` fills with what was drawn that fastavro resolves otherwise than Heddle: it
    reads a logical type that only one side names by the writer's, leaves defaults as the JSON says them, and takes the
    first branch that can read a text, be it bytes."""

    def __init__(self, dice: Random, change: float = 0.35) -> None:
        self.dice, self.change = dice, change
        self.odd: set[str] = set()
        self._added = 0

    def record(self, node: dict[str, Any]) -> dict[str, Any]:
        """A writer of a whole contract."""
        return self._record(node)

    def of(self, node: Any) -> Any:
        """A writer's type that the reader's `node` can read whatever it holds."""
        if isinstance(node, list):
            return self._union(node)
        changed = self._changed(node)
        if self._happens() and not isinstance(changed, list):
            return [changed]
        return changed

    def _happens(self) -> bool:
        return self.dice.random() < self.change

    def _changed(self, node: Any) -> Any:
        kind = node if isinstance(node, str) else node["type"]
        match kind:
            case "record":
                return self._record(node)
            case "enum":
                return self._enum(node)
            case "array":
                # Items of no bytes are what no engine runs: tests of their own show that.
                items = self.of(node["items"])
                return node | {"items": items if min_size(parse_schema(items)) else node["items"]}
            case "map":
                return node | {"values": self.of(node["values"])}
            case _ if isinstance(node, dict) and node.get("logicalType") == "decimal":
                return self._renamed(self._decimal(node))
            case "fixed":
                return self._renamed(node)
            case _ if isinstance(node, dict):
                return self._plain(node)
        return self._scalar(kind)

    def _scalar(self, kind: str) -> Any:
        if self._happens() and kind in _NARROWER:
            return self.dice.choice(_NARROWER[kind])
        if self._happens() and kind in _LOGICAL:
            self.odd.add("logical")
            return self.dice.choice(_LOGICAL[kind])
        return kind

    def _plain(self, node: dict[str, Any]) -> Any:
        """A logical type's base: the reader alone knows what the numbers mean."""
        if node["type"] in ("int", "long") and self._happens():
            self.odd.add("logical")
            return self.dice.choice(["int", node["type"]])
        return node

    def _decimal(self, node: dict[str, Any]) -> dict[str, Any]:
        if not self._happens():
            return node
        return node | {"precision": self.dice.randint(max(node["scale"], 1), node["precision"])}

    def _enum(self, node: dict[str, Any]) -> dict[str, Any]:
        symbols = list(node["symbols"])
        if self._happens():
            self.dice.shuffle(symbols)
        if self._happens() and "default" in node:
            symbols.insert(self.dice.randrange(len(symbols) + 1), "GONE")
        if self._happens() and len(symbols) > 1:
            symbols.pop()
        return self._renamed({**node, "symbols": symbols, "default": symbols[0]})

    def _renamed(self, node: dict[str, Any]) -> dict[str, Any]:
        if "aliases" in node and self._happens():
            return {key: value for key, value in node.items() if key != "aliases"} | {"name": node["aliases"][0]}
        return node

    def _union(self, node: list[Any]) -> Any:
        branches = list(node)
        if "bytes" in node and "string" in node:
            self.odd.add("bytes beside string")
        if self._happens():
            self.dice.shuffle(branches)
        if self._happens() and len(branches) > 1:
            branches.pop()
        if len(branches) == 1 and self._happens():
            return self._inside(branches[0])
        return [self._inside(branch) for branch in branches]

    def _inside(self, branch: Any) -> Any:
        """A branch keeps its kind, so that no two become alike and the reader finds its own."""
        return self._changed(branch) if isinstance(branch, dict) and "logicalType" not in branch else branch

    def _record(self, node: dict[str, Any]) -> dict[str, Any]:
        gone = [field for field in node["fields"] if "default" in field and self._happens()]
        if any(_says(field["type"], "bytes", "fixed", "logicalType") for field in gone):
            self.odd.add("default")
        fields = [self._field(field) for field in node["fields"] if field not in gone]
        while self._happens():
            self._added += 1
            kinds: list[Any] = ["string", "long", ["null", "double"], {"type": "array", "items": "string"}]
            fields.append({"name": f"gone{self._added}", "type": self.dice.choice(kinds), "doc": "."})
        if self._happens():
            self.dice.shuffle(fields)
        return self._renamed({**node, "fields": fields})

    def _field(self, field: dict[str, Any]) -> dict[str, Any]:
        name = field["aliases"][-1] if "aliases" in field and self._happens() else field["name"]
        return {"name": name, "type": self.of(field["type"]), "doc": "."}
