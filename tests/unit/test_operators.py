"""Operators' keys: how they are made, kept, found, and believed."""

from __future__ import annotations

import base64
import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from typer.testing import CliRunner

from heddle.cli.operators import operators_app
from heddle.errors import UsageError
from heddle.operators import OperatorKey, Operators, entry_of, make_key, prepare_local

STATEMENT = b"discard these"


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "pyproject.toml").write_text('[tool.heddle]\nproject = "p"\n', encoding="utf-8")
    (tmp_path / ".heddle").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HEDDLE_OPERATOR", raising=False)
    return tmp_path


@pytest.fixture
def folder(root: Path) -> Path:
    return root / ".heddle"


def published(root: Path, *keys: OperatorKey) -> Operators:
    (root / "operators.toml").write_text("\n".join(map(entry_of, keys)), encoding="utf-8")
    return Operators.load(root, local=False)


def test_a_signature_is_believed_of_its_operator_over_its_statement_alone(root: Path, folder: Path) -> None:
    ada, grace = make_key(folder, "ada"), make_key(folder, "grace.h")
    operators = published(root, ada, grace)
    assert operators.names == ["ada", "grace.h"]
    signature = ada.sign(STATEMENT)
    assert operators.verify("ada", signature, STATEMENT)
    assert not operators.verify("ada", signature, STATEMENT + b"!")
    assert not operators.verify("grace.h", signature, STATEMENT)
    assert not operators.verify("mallory", signature, STATEMENT)


@pytest.mark.parametrize("signature", ["", "?", "AAAA", "ä", base64.b64encode(bytes(64)).decode(), "A" * 10_000])
def test_what_is_no_signature_is_not_believed(signature: str, root: Path, folder: Path) -> None:
    operators = published(root, make_key(folder, "ada"))
    assert not operators.verify("ada", signature, STATEMENT)


def test_a_key_is_private_and_never_shown_nor_overwritten(folder: Path) -> None:
    key = make_key(folder, "ada")
    path = folder / "operators" / "ada.key"
    assert [stat.S_IMODE(p.stat().st_mode) for p in (path.parent, path)] == [0o700, 0o600]
    secret = path.read_text(encoding="utf-8").splitlines()[1]
    assert secret not in repr(key) + str(key)
    with pytest.raises(UsageError, match="exists"):
        make_key(folder, "ada")
    assert secret in path.read_text(encoding="utf-8")
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("name", ["", "Ada", "../ada", "a/b", ".ada", "a b", "a" * 64])
def test_a_name_that_could_be_mistaken_is_refused(name: str, folder: Path) -> None:
    with pytest.raises(UsageError, match="operator's name"):
        make_key(folder, name)


def test_the_only_key_needs_no_name_and_several_do(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="no operator key in") as none:
        OperatorKey.load()
    assert "heddle operators new" in none.value.hint
    ada = make_key(folder, "ada")
    assert OperatorKey.load().sign(STATEMENT) == ada.sign(STATEMENT)
    make_key(folder, "grace")
    with pytest.raises(UsageError, match="ada, grace") as several:
        OperatorKey.load()
    assert "HEDDLE_OPERATOR" in several.value.hint
    monkeypatch.setenv("HEDDLE_OPERATOR", "grace")
    assert OperatorKey.load().name == "grace"
    assert OperatorKey.load("ada").name == "ada"
    monkeypatch.setenv("HEDDLE_OPERATOR", "../ada")
    with pytest.raises(UsageError, match="no operator key of"):
        OperatorKey.load()


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o601])
def test_a_key_that_others_can_read_is_not_used(mode: int, folder: Path) -> None:
    make_key(folder, "ada")
    path = folder / "operators" / "ada.key"
    path.chmod(mode)
    with pytest.raises(UsageError, match="can be read by others") as refused:
        OperatorKey.load()
    assert refused.value.hint == f"chmod 600 {path}"


@pytest.mark.parametrize("content", [b"", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", b"\xff\0"])
def test_a_broken_key_is_told_without_its_content(content: bytes, folder: Path) -> None:
    make_key(folder, "ada")
    (folder / "operators" / "ada.key").write_bytes(content)
    with pytest.raises(UsageError, match="holds no private key") as refused:
        OperatorKey.load()
    assert refused.value.__cause__ is None
    assert "AAAA" not in str(refused.value)


def test_a_key_of_another_kind_is_refused(root: Path, folder: Path) -> None:
    make_key(folder, "ada")
    other = generate_private_key(SECP256R1())
    pem = other.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / "operators" / "ada.key").write_bytes(pem)
    with pytest.raises(UsageError, match="not an Ed25519 key"):
        OperatorKey.load()
    public = other.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    text = f'[operators.ada]\npublic_key = "{base64.b64encode(public).decode()}"\n'
    (root / "operators.toml").write_text(text, encoding="utf-8")
    with pytest.raises(UsageError, match="not an Ed25519 key"):
        Operators.load(root, local=False)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[operators", "operators.toml cannot be read"),
        ("operators = 3", "not of that form"),
        ("[operators]\nada = 3", "not of that form"),
        ("[operators.ada]\nkey = 'x'", "an operator without public_key"),
        ("[operators.ada]\npublic_key = 3", "public key of ada cannot be read"),
        ("[operators.ada]\npublic_key = 'AAAA'", "public key of ada cannot be read"),
    ],
)
def test_a_file_of_operators_that_is_wrong_is_refused_and_not_half_read(text: str, told: str, root: Path) -> None:
    (root / "operators.toml").write_text(text, encoding="utf-8")
    with pytest.raises(UsageError, match=told):
        Operators.load(root, local=False)


def test_the_local_stack_trusts_the_key_that_was_made_for_it_and_nothing_else_does(root: Path, folder: Path) -> None:
    assert prepare_local(folder, "DOMAIN\\Ada Lovelace") == "domain-ada-lovelace"
    key = OperatorKey.load()
    signature = key.sign(STATEMENT)
    assert Operators.load(root, local=True).verify(key.name, signature, STATEMENT)
    assert Operators.load(root, local=False).names == []
    assert prepare_local(folder, "somebody-else") is None
    assert Operators.load(root, local=True).names == [key.name]


def test_the_local_stack_also_trusts_keys_that_were_made_by_hand(root: Path, folder: Path) -> None:
    ada = make_key(folder, "ada")
    assert prepare_local(folder, "root") is None
    make_key(folder, "grace")
    assert prepare_local(folder, "root") is None
    operators = Operators.load(root, local=True)
    assert operators.names == ["ada", "grace"]
    assert operators.verify("ada", ada.sign(STATEMENT), STATEMENT)


def test_the_project_decides_whose_key_a_name_stands_for(root: Path, folder: Path, tmp_path: Path) -> None:
    prepare_local(folder, "ada")
    other = make_key(tmp_path / "elsewhere", "ada")
    published(root, other)
    operators = Operators.load(root, local=True)
    assert operators.verify("ada", other.sign(STATEMENT), STATEMENT)
    assert not operators.verify("ada", OperatorKey.load().sign(STATEMENT), STATEMENT)


@pytest.mark.parametrize(("user", "name"), [("", "operator"), ("..", "operator"), ("Zoë", "zo-"), ("x" * 99, "x" * 63)])
def test_any_operating_system_user_gives_a_name(user: str, name: str, folder: Path) -> None:
    assert prepare_local(folder, user) == name


def test_a_new_operator_prints_what_the_project_file_needs(root: Path) -> None:
    run = CliRunner().invoke(operators_app, ["new", "ada"])
    assert run.exit_code == 0
    (root / "operators.toml").write_text(run.stdout, encoding="utf-8")
    key = OperatorKey.load()
    assert Operators.load(root, local=False).verify("ada", key.sign(STATEMENT), STATEMENT)
    assert "PRIVATE" not in run.output
    make_key(root / ".heddle", "grace")
    shown = CliRunner().invoke(operators_app, ["list"]).stdout
    rows = [" ".join(line.split()) for line in shown.splitlines()]
    assert rows == ["operator accepted private key", "ada everywhere here", "grace nowhere here"]
