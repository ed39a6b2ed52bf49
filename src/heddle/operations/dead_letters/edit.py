"""New bodies for entries: decoded, changed, encoded again under the contract that they were written with.

A source's entries hold raw deliveries: those are edited as JSON, or as the text that they are.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

from heddle.broker.log import Record
from heddle.contracts import AvroCodec, Registry, contract_of
from heddle.contracts.codec import FRAME_BYTES
from heddle.contracts.encode_reference import encode_reference
from heddle.contracts.json_form import from_json, takes_text, to_json
from heddle.contracts.limits import DEFAULT_LIMITS
from heddle.contracts.refusals import IncompatibleWriterError, TooLargeError
from heddle.contracts.schema import Array, Map, Node, Union
from heddle.contracts.schema import Record as RecordNode
from heddle.contracts.shapes import DictShape
from heddle.errors import ContractError, DecodeError, ForeignBytesError
from heddle.integration import Component, Flow, Sink
from heddle.operations.dead_letters.documents import written_document
from heddle.operations.dead_letters.json_text import InvalidJsonError, parse, render
from heddle.operations.dead_letters.patching import Change, Step, parse_setting, set_value, value_of

_NEWEST = "`--newest` encodes it under the contract's newest version"
_BYTES = "export it, change the bytes, import it again; or discard it"


class Body(ABC):
    """One entry's body, opened for editing. `document` is what a person sees and what patches change."""

    document: Any
    suffix = ".json"

    @abstractmethod
    def encode(self, document: Any) -> bytes:
        """Raises `ContractError` with the field path for what does not pass."""

    def text(self, document: Any) -> str:
        """For a person's editor."""
        return render(document, indent=2) + "\n"

    def read(self, text: str) -> Any:
        """The document in a person's text. Raises `InvalidJsonError`."""
        return parse(text)

    def node_at(self, path: Sequence[Step]) -> Node | None:  # noqa: ARG002 - of bodies under a contract
        """The type of a field, where a contract tells it."""
        return None


class ContractBody(Body):
    """A framed value. `node` is what it is written as; `reader` the contract of the handler, which has to read it."""

    def __init__(self, document: Any, frame: bytes, node: Node, reader: AvroCodec[Any]) -> None:
        self.document = document
        self._frame = frame
        self._node = node
        self._reader = reader

    def encode(self, document: Any) -> bytes:
        data = self._frame + encode_reference(self._node, DictShape(), DEFAULT_LIMITS, from_json(self._node, document))
        limit = self._reader.contract.metadata.topic.max_message_bytes
        if len(data) > limit:
            raise TooLargeError(f"{self._reader.contract.name}: event of {len(data)} bytes, its topic takes {limit}")
        self._reader.decode_dict(data)
        return data

    def node_at(self, path: Sequence[Step]) -> Node | None:
        node: Node | None = self._node
        for step in path:
            node = _child(node, step)
        return node


class RawJson(Body):
    """A delivery whose body is JSON. Numbers keep their digits; the spaces between go."""

    def __init__(self, document: Any) -> None:
        self.document = document

    def encode(self, document: Any) -> bytes:
        return render(document).encode()


class RawText(Body):
    suffix = ".txt"

    def __init__(self, document: str) -> None:
        self.document = document

    def encode(self, document: Any) -> bytes:
        if not isinstance(document, str):
            raise _no_fields()
        return document.encode()

    def text(self, document: Any) -> str:
        return str(document)

    def read(self, text: str) -> Any:
        """Less the newline that most editors add at the end of a file."""
        return text if str(self.document).endswith("\n") else text.removesuffix("\n")


def open_body(record: Record, component: Component, registry: Registry, *, newest: bool = False) -> Body:
    """`record` is the entry's original. `newest`: written under the contract's newest version from now on.

    Raises `ContractError` for bytes that cannot be shown as a document."""
    if not isinstance(component, Flow | Sink):
        return _raw(record.value)
    reader: AvroCodec[Any] = AvroCodec(contract_of(component.reads), registry)
    if newest:
        return ContractBody(
            _newest_document(record.value, reader, registry), reader.frame, reader.contract.root, reader
        )
    if record.value is None:
        raise ContractError("the value is null, which no version of a contract is written in", hint=_NEWEST)
    try:
        node, document = _written(record.value, registry)
    except ForeignBytesError as error:
        error.hint = _NEWEST
        raise
    return ContractBody(document, record.value[:FRAME_BYTES], node, reader)


def settings_change(settings: Sequence[str]) -> Callable[[Body], Change]:
    """`--set path=value`, in order. The body's contract tells whether a bare word is text."""
    parsed = [parse_setting(text) for text in settings]

    def change_of(body: Body) -> Change:
        if isinstance(body, RawText):
            raise _no_fields()

        def change(document: Any) -> Any:
            for path, text in parsed:
                value = value_of(text, is_text=takes_text(body.node_at(path)))
                document = set_value(document, path, value)
            return document

        return change

    return change_of


def _no_fields() -> ContractError:
    return ContractError("the body is text that is no JSON, and has no fields", hint="edit it in your editor")


def _raw(value: bytes | None) -> Body:
    try:
        text = (value or b"").decode()
    except UnicodeDecodeError as error:
        raise ContractError(
            "the delivery's body is neither JSON nor text", hint="export it, change the bytes, import it again"
        ) from error
    try:
        return RawJson(parse(text))
    except InvalidJsonError:
        return RawText(text)


def _newest_document(value: bytes | None, reader: AvroCodec[Any], registry: Registry) -> Any:
    """As the handler's contract reads it; where it cannot, as it was written; without a frame, its JSON."""
    if value is None:
        return None
    try:
        return to_json(reader.contract.root, reader.decode_dict(value))
    except ForeignBytesError:
        body = _raw(value)
        if isinstance(body, RawJson):
            return body.document
        raise
    except (DecodeError, IncompatibleWriterError):
        return _written(value, registry)[1]


def _written(value: bytes, registry: Registry) -> tuple[Node, Any]:
    """Bytes that no version explains have no fields that could be set."""
    try:
        return written_document(value, registry)
    except ForeignBytesError:
        raise
    except DecodeError as error:
        raise ContractError(f"its bytes cannot be read: {error}", path=error.path, hint=_BYTES) from error


def _child(node: Node | None, step: Step) -> Node | None:
    """The type one step further down; None where there is none, or several."""
    match node:
        case RecordNode():
            return next((f.type for f in node.fields if f.name == step), None)
        case Array():
            return node.items
        case Map():
            return node.values
        case Union():
            found = [child for branch in node.branches if (child := _child(branch, step)) is not None]
            return found[0] if len(found) == 1 else None
        case _:
            return None
