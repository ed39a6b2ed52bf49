"""Engine and object path together: what comes out is what the object path alone would give."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pytest
from structlog.testing import capture_logs

from heddle.contracts import AvroCodec, MemoryRegistry, contract_of
from heddle.errors import DependencyDownError, UsageError
from heddle.mapping import Mapping, call, constant, equals
from heddle.mapping.batch import DictTranscoder
from heddle.mapping.transcoder import Transcoder
from heddle.wire import choice
from heddle.wire.engine import Engine, Function, Outputs
from heddle.wire.plan import WirePlan
from heddle.wire.python_engine import PythonEngine
from heddle.wire.shadow_engine import ShadowEngine
from schemas.billing import Invoice
from schemas.crm import Deal
from topologies.deal_to_invoice import invoice_of

REGISTRY = MemoryRegistry([contract_of(Deal), contract_of(Invoice)])


def codec_of(kind: type[Any], registry: MemoryRegistry = REGISTRY) -> AvroCodec[Any]:
    return AvroCodec(contract_of(kind), registry)


def deal(deal_id: str, **changes: Any) -> bytes:
    values: dict[str, Any] = {
        "deal_id": deal_id, "stage": "WON", "sales_agent": "Änne", "product": "GTX Basic", "account": "Acme",
        "closed_on": date(2017, 3, 1), "close_value": Decimal("500.00"), "changed_at": datetime(2017, 3, 1, tzinfo=UTC),
    }  # fmt: skip
    return codec_of(Deal).encode(Deal(**{**values, **changes}))


class Counted(PythonEngine):
    """Counts what it did itself."""

    def __init__(self) -> None:
        super().__init__()
        self.done = 0

    def transcode(self, values: Sequence[bytes | None]) -> tuple[Outputs, list[int]]:
        outputs, refused = super().transcode(values)
        self.done += len(outputs) - len(refused)
        return outputs, refused


def both(mapping: Mapping[Any, Any], engine: Engine | None) -> tuple[Transcoder, Transcoder]:
    on_engine = mapping.transcoder(codec_of(Deal), codec_of(Invoice), engine)
    objects = mapping.transcoder(codec_of(Deal), codec_of(Invoice))
    assert isinstance(objects, DictTranscoder)
    return on_engine, objects


def test_a_batch_with_everything_in_it_is_as_on_the_object_path() -> None:
    good = deal("D-1")
    values: list[bytes | None] = [
        good, None, b"", b"\x00\x00", deal("D 2/ä"), deal("D-3", product="GTXPro"), deal("D-4", stage="LOST"),
        good[:-1], good + b"\x00", b"\x00\x00\x00\x00\x63" + good[5:], deal("D-5"), good[:9] + b"\xff" + good[10:],
    ]  # fmt: skip
    engine = Counted()
    on_engine, objects = both(invoice_of, engine)
    outputs, failures = on_engine.transcode(values)
    expected, expected_failures = objects.transcode(values)
    assert [output and tuple(output) for output in outputs] == [output and tuple(output) for output in expected]
    assert [failure[:5] for failure in failures] == [failure[:5] for failure in expected_failures]
    assert [type(failure.error) for failure in failures] == [type(failure.error) for failure in expected_failures]
    assert len(failures) == 8
    assert engine.done == 4


def test_a_registry_that_is_down_settles_nothing_and_is_asked_again() -> None:
    class Flaky(MemoryRegistry):
        down = True

        def schema(self, schema_id: int) -> dict[str, Any]:
            if self.down:
                raise DependencyDownError("registry down")
            return super().schema(schema_id)

    registry, engine = Flaky([contract_of(Deal)]), Counted()
    transcoder = invoice_of.transcoder(codec_of(Deal, registry), codec_of(Invoice), engine)
    with pytest.raises(DependencyDownError):
        transcoder.transcode([deal("D-1")])
    registry.down = False
    outputs, failures = transcoder.transcode([deal("D-1"), deal("D-2")])
    assert (len(outputs), failures, engine.done) == (2, [], 2)


def shout(value: str) -> str:
    return value.upper()


def test_a_mapping_that_calls_python_stays_on_the_engine() -> None:
    fields: dict[str, Any] = {
        "invoice_id": "deal_id", "deal_id": "deal_id", "customer": call(shout, "sales_agent"),
        "sales_agent": "sales_agent", "issued_on": constant(date(2017, 1, 1)), "product": "product",
        "list_price": constant(1), "discount": constant(1), "total": constant(1), "currency": "currency",
        "status": constant("OPEN"), "changed_at": "changed_at",
    }  # fmt: skip
    mapping: Mapping[Any, Any] = Mapping(Deal, Invoice, when=equals("stage", "WON"), **fields)
    engine = Counted()
    on_engine, objects = both(mapping, engine)
    values = [deal("D-1"), deal("D-2", stage="LOST")]
    outputs, failures = on_engine.transcode(values)
    assert [output and tuple(output) for output in outputs] == [o and tuple(o) for o in objects.transcode(values)[0]]
    assert outputs[1] is None
    assert (failures, engine.done) == ([], 2)


class Wrong(PythonEngine):
    """Makes something else of every second record."""

    name = "wrong"

    def transcode(self, values: Sequence[bytes | None]) -> tuple[Outputs, list[int]]:
        outputs, refused = super().transcode(values)
        odd = [(output[0], b"?") if output and n % 2 else output for n, output in enumerate(outputs)]
        return Outputs.of(odd), refused


def test_where_two_engines_differ_the_object_path_decides_and_it_is_said() -> None:
    engine = ShadowEngine(PythonEngine(), Wrong())
    on_engine, objects = both(invoice_of, engine)
    values = [deal(f"D-{n}") for n in range(5)]
    with capture_logs() as logs:
        outputs, failures = on_engine.transcode(values)
    assert [output and tuple(output) for output in outputs] == [o and tuple(o) for o in objects.transcode(values)[0]]
    assert (failures, engine.disagreements) == ([], 2)
    (line,) = [line for line in logs if line["log_level"] == "error"]
    assert (line["records"], line["first"]) == (2, 1)


class Refusing(PythonEngine):
    """A plan that fits none of its data."""

    def transcode(self, values: Sequence[bytes | None]) -> tuple[Outputs, list[int]]:
        return Outputs.of([None] * len(values)), list(range(len(values)))


def test_fine_records_on_the_slow_path_are_told_of() -> None:
    on_engine, _ = both(invoice_of, Refusing())
    with capture_logs() as logs:
        outputs, failures = on_engine.transcode([deal(f"D-{n}") for n in range(150)])
    assert (sum(output is not None for output in outputs), failures) == (150, [])
    assert [line["records"] for line in logs if line["log_level"] == "warning"] == [150]


class Small(PythonEngine):
    """An engine for which every plan is too large."""

    def add(self, writer: bytes, plan: WirePlan, functions: Sequence[Function], frame: bytes) -> None:
        raise ValueError("this plan is too large")


def test_a_plan_that_an_engine_cannot_run_is_told_once_and_its_records_are_done() -> None:
    on_engine, _ = both(invoice_of, Small())
    with capture_logs() as logs:
        first, second = on_engine.transcode([deal("D-1")]), on_engine.transcode([deal("D-2")])
    assert all(output is not None for output in (*first[0], *second[0]))
    assert [line["reason"] for line in logs if line["log_level"] == "info"] == ["this plan is too large"]


def test_the_engine_is_chosen_by_one_word(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "native_engine", lambda: None)
    assert isinstance(choice.chosen_engine("auto"), PythonEngine)
    assert isinstance(choice.chosen_engine("python"), PythonEngine)
    assert choice.chosen_engine("objects") is None
    for word in ("native", "both"):
        with pytest.raises(UsageError, match="not installed"):
            choice.chosen_engine(word)
    monkeypatch.setattr(choice, "native_engine", PythonEngine)
    assert isinstance(choice.chosen_engine("both"), ShadowEngine)
