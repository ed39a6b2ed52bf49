"""A mapping as transcoder: batches of framed bytes in, keys and framed bytes out, one failure row per bad record."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from mapping_support import plan_of, schema

from heddle.contracts import AvroCodec, MemoryRegistry, contract_of
from heddle.errors import AuthError, DependencyDownError, Failure, FailureClass
from heddle.mapping import Mapping, call, constant, equals
from heddle.mapping.plan import digest_of
from schemas.billing import Invoice
from schemas.crm import Deal
from topologies.deal_to_invoice import invoice_of
from topologies.payment_to_ledger import entry_of as entry_of_payment

ROOT = Path(__file__).parents[2]
REGISTRY = MemoryRegistry([contract_of(Deal), contract_of(Invoice)])
READER: AvroCodec[Deal] = AvroCodec(contract_of(Deal), REGISTRY)
WRITER: AvroCodec[Invoice] = AvroCodec(contract_of(Invoice), REGISTRY)


def deal(deal_id: str, **changes: Any) -> Deal:
    values: dict[str, Any] = {
        "deal_id": deal_id, "stage": "WON", "sales_agent": "A", "product": "GTX Basic", "account": "Acme",
        "closed_on": date(2017, 3, 1), "close_value": Decimal("500.00"), "changed_at": datetime(2017, 3, 1, tzinfo=UTC),
    }  # fmt: skip
    return Deal(**{**values, **changes})


def test_a_batch_keeps_its_length_and_order_and_names_each_failure() -> None:
    deals = [deal("D 1/ä"), deal("D-2", product="GTXPro"), deal("D-3", stage="LOST"), deal("D-4")]
    framed: list[bytes | None] = [READER.encode(d) for d in deals]
    values = [framed[0], b"\x00\x00\x00", framed[1], framed[2], None, framed[3]]
    emissions, failures = invoice_of.transcoder(READER, WRITER).transcode(values)
    assert [e and e[0] for e in emissions] == [
        b"default/INV-D%201%2F%C3%A4",
        None,
        None,
        None,
        None,
        b"default/INV-D-4",
    ]
    assert emissions[0] is not None
    assert WRITER.decode(emissions[0][1]) == invoice_of(deals[0])
    assert [(f.index, f.failure_class, f.code, f.path) for f in failures] == [
        (1, FailureClass.CONTRACT, failures[0].code, ""),
        (2, FailureClass.CONTRACT, "lookup", "list_price"),
        (4, FailureClass.CONTRACT, "tombstone", ""),
    ]
    assert "GTXPro" not in failures[1].message


def broken(value: str) -> str:
    raise ZeroDivisionError(value)


def refused_credentials(value: str) -> str:
    raise AuthError("no")


def invoice_with(**rules: Any) -> Mapping[Deal, Invoice]:
    fields: dict[str, Any] = {
        "invoice_id": "deal_id", "deal_id": "deal_id", "customer": constant("c"), "sales_agent": "sales_agent",
        "issued_on": constant(date(2017, 1, 1)), "product": "product", "list_price": constant(1),
        "discount": constant(1), "total": constant(1), "currency": "currency", "status": constant("OPEN"),
        "changed_at": "changed_at",
    }  # fmt: skip
    return Mapping(Deal, Invoice, **{**fields, **rules})


def failures_of(mapping: Mapping[Deal, Invoice]) -> list[Failure]:
    return mapping.transcoder(READER, WRITER).transcode([READER.encode(deal("D-1"))])[1]


def test_an_exception_of_a_function_is_unknown_with_the_exception_attached() -> None:
    (failure,) = failures_of(invoice_with(customer=call(broken, "deal_id")))
    assert failure[:4] == (0, FailureClass.UNKNOWN, "call", "customer")
    assert isinstance(failure.error, ZeroDivisionError)
    assert "D-1" not in failure.message


def bad_text(value: str) -> str:
    return "\ud800"


def test_what_only_the_codec_can_refuse_is_that_records_failure() -> None:
    (failure,) = failures_of(invoice_with(customer=call(bad_text, "deal_id")))
    assert failure[1:4] == (FailureClass.CONTRACT, "invalid-text", "customer")


def test_refused_credentials_and_a_registry_that_is_down_settle_nothing() -> None:
    with pytest.raises(AuthError):
        failures_of(invoice_with(customer=call(refused_credentials, "deal_id")))

    class Down(MemoryRegistry):
        def schema(self, schema_id: int) -> dict[str, Any]:
            raise DependencyDownError("registry down")

    reader: AvroCodec[Deal] = AvroCodec(contract_of(Deal), Down([contract_of(Deal)]))
    with pytest.raises(DependencyDownError):
        invoice_of.transcoder(reader, WRITER).transcode([READER.encode(deal("D-1"))])


class Wild(AvroCodec[Deal]):
    """A codec that hands out what its contract forbids."""

    def decode_dict_batch(self, values: Sequence[bytes | None]) -> tuple[list[dict[str, Any] | None], list[Failure]]:
        return [{"stage": "WON"}], []


def test_what_nobody_foresaw_is_one_unknown_failure() -> None:
    (failure,) = invoice_of.transcoder(Wild(contract_of(Deal), REGISTRY), WRITER).transcode([b""])[1]
    assert failure[1:3] == (FailureClass.UNKNOWN, "mapping")
    assert isinstance(failure.error, KeyError)


def test_a_record_without_output_is_neither_emitted_nor_failed() -> None:
    lost_only = invoice_with(when=equals("stage", "LOST"))
    outputs, failures = lost_only.transcoder(READER, WRITER).transcode([READER.encode(deal("D-1"))])
    assert (list(outputs), failures) == ([None], [])


def test_digest_is_the_same_in_every_process_and_changes_with_a_rule() -> None:
    program = "from topologies.deal_to_invoice import invoice_of; print(invoice_of.digest)"
    digests = {
        subprocess.run(
            [sys.executable, "-c", program], cwd=ROOT, env={**os.environ, "PYTHONHASHSEED": seed}, check=True,
            capture_output=True, text=True,
        ).stdout.strip()
        for seed in ("1", "2")
    }  # fmt: skip
    assert digests == {invoice_of.digest}
    assert len(invoice_of.digest) == 64
    # Goes into the revision of every event: a change here must be meant.
    assert entry_of_payment.digest == "64433d2aaebc5abf8260e2ebe1ef4a9aba5115973e7f57b1eaef7c5c07323390"
    one, same, other = (invoice_with(total=constant(n)) for n in (1, 1, 2))
    assert one.digest == same.digest != other.digest


def test_a_time_by_default_has_a_digest() -> None:
    clock = {"type": "int", "logicalType": "time-millis"}
    plans = [plan_of(schema("Target", at=(clock, default))) for default in (7, 7, 8)]
    one, same, other = map(digest_of, plans)
    assert one == same != other


def test_digest_changes_with_the_source_of_a_function(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    digests = []
    for i, body in enumerate(("value + '1'", "value + '2'")):
        (tmp_path / f"mapping_function_{i}.py").write_text(f"def f(value: str) -> str:\n    return {body}\n")
        module = __import__(f"mapping_function_{i}")
        module.f.__module__ = "same"
        digests.append(invoice_with(customer=call(module.f, "deal_id")).digest)
    assert digests[0] != digests[1]
