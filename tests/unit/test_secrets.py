"""Secrets: where they come from, who wins, and that nothing shows them."""

from __future__ import annotations

from pathlib import Path

import pytest

from heddle.errors import UsageError
from heddle.secrets import redact, secret


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HEDDLE_SECRETS_DIR", str(tmp_path))
    monkeypatch.delenv("HEDDLE_SECRET_LEDGER_DSN", raising=False)
    return tmp_path


def write(folder: Path, text: str, name: str = "ledger/dsn") -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def test_a_file_holds_a_secret_under_its_name(folder: Path) -> None:
    write(folder, "postgresql://db\n")
    assert secret("ledger/dsn").resolve() == "postgresql://db"


def test_the_environment_wins_unless_it_is_empty(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(folder, "from-file")
    monkeypatch.setenv("HEDDLE_SECRET_LEDGER_DSN", "from-environment")
    assert secret("ledger/dsn").resolve() == "from-environment"
    monkeypatch.setenv("HEDDLE_SECRET_LEDGER_DSN", " \n")
    assert secret("ledger/dsn").resolve() == "from-file"


def test_a_secret_is_read_at_each_use(folder: Path) -> None:
    write(folder, "before")
    reference = secret("ledger/dsn")
    assert reference.resolve() == "before"
    write(folder, "after")
    assert reference.resolve() == "after"


def test_each_line_is_a_live_value(folder: Path) -> None:
    write(folder, "  new-key \n\n old-key\r\n")
    assert secret("ledger/dsn").resolve_all() == ("new-key", "old-key")


def test_a_missing_secret_names_both_places(folder: Path) -> None:
    with pytest.raises(UsageError, match="ledger/dsn has no value") as missing:
        secret("ledger/dsn").resolve()
    assert "HEDDLE_SECRET_LEDGER_DSN" in missing.value.hint
    assert str(folder / "ledger" / "dsn") in missing.value.hint


def test_a_folder_in_the_way_counts_as_missing(folder: Path) -> None:
    write(folder, "a file where a folder should be", name="ledger")
    with pytest.raises(UsageError, match="has no value"):
        secret("ledger/dsn").resolve()


def test_a_file_that_cannot_be_read_says_why(folder: Path) -> None:
    (folder / "ledger" / "dsn").mkdir(parents=True)
    with pytest.raises(UsageError, match="cannot be read: Is a directory"):
        secret("ledger/dsn").resolve()
    (folder / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match="not UTF-8"):
        secret("binary").resolve()


@pytest.mark.parametrize("name", ["", "/etc/passwd", "../up", "a//b", "a/", "Upper", "with space", "a/../b", "dot.ted"])
def test_names_cannot_leave_the_folder(name: str) -> None:
    with pytest.raises(UsageError, match="secret name"):
        secret(name)


def test_the_text_form_of_a_reference_has_no_value(folder: Path) -> None:
    write(folder, "s3cr3t-value")
    reference = secret("ledger/dsn")
    reference.resolve()
    assert "s3cr3t-value" not in f"{reference!r} {reference}"
    assert "ledger/dsn" in repr(reference)


def test_redact_hides_what_was_resolved_whole_and_in_part(folder: Path) -> None:
    write(folder, "postgresql://me:hunter22@db/x\npostgresql://me:hunter22@db/x-longer\nabc")
    secret("ledger/dsn").resolve_all()
    text = redact("dsn postgresql://me:hunter22@db/x-longer, password hunter22, abc")
    assert text == "dsn ***, password ***, abc"


def test_redact_leaves_other_text_alone() -> None:
    assert redact("nothing to hide here") == "nothing to hide here"
