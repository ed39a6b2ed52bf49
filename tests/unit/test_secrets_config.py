"""Which providers are asked: the default, pyproject.toml, HEDDLE_SECRETS; and what is said of a wrong one."""

from __future__ import annotations

import json
import re
import sys
import tomllib
from pathlib import Path

import pytest

from heddle.audit.key import audit_key
from heddle.errors import UsageError
from heddle.secrets import MissingSecretError, secret
from heddle.secrets.config import parse, providers
from heddle.secrets.provider import live_values, sdk

PEM = "-----BEGIN PRIVATE KEY-----\nbase64line1\nbase64line2\n-----END PRIVATE KEY-----\n"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("HEDDLE_SECRETS", "HEDDLE_SECRETS_DIR", "CREDENTIALS_DIRECTORY", "HEDDLE_SECRET_A_B"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "pyproject.toml").write_text('[tool.heddle]\nproject = "p"\n')
    monkeypatch.chdir(tmp_path)
    return tmp_path


def configure(project: Path, text: str, folder: str = "configured") -> Path:
    """In a folder of its own below: what a process knows of a project it reads once."""
    root = project / folder
    root.mkdir()
    (root / "pyproject.toml").write_text(f'[tool.heddle]\nproject = "p"\n{text}')
    return root


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_without_a_word_environment_and_files_are_asked(project: Path) -> None:
    assert [provider.name for provider in providers()] == ["environment", "files"]
    write(project / ".heddle" / "secrets" / "a" / "b", "from the project")
    assert secret("a/b").resolve() == "from the project"


def test_the_order_of_the_table_is_the_order_of_asking(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = '[[tool.heddle.secrets]]\nprovider = "files"\nfolder = "mounted"\n'
    root = configure(project, f'{files}[[tool.heddle.secrets]]\nprovider = "environment"\n')
    monkeypatch.chdir(root)
    monkeypatch.setenv("HEDDLE_SECRET_A_B", "from the environment")
    assert secret("a/b").resolve() == "from the environment"
    write(root / "mounted" / "a" / "b", "mounted")
    assert secret("a/b").resolve() == "mounted"
    (root / "below").mkdir()
    monkeypatch.chdir(root / "below")
    assert secret("a/b").resolve() == "mounted", "a folder is the project's, not the current one's"


def test_the_variable_replaces_the_table(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(configure(project, '[[tool.heddle.secrets]]\nprovider = "environment"\n'))
    monkeypatch.setenv("HEDDLE_SECRETS", json.dumps([{"provider": "files", "folder": "/nowhere"}]))
    with pytest.raises(MissingSecretError, match="a/b has no value; asked: files") as missing:
        secret("a/b").resolve()
    assert missing.value.hint == "write /nowhere/a/b (mode 0600)"
    monkeypatch.setenv("HEDDLE_SECRETS", "[]")
    with pytest.raises(MissingSecretError, match="asked: nobody"):
        secret("a/b").resolve()


def test_a_store_without_its_own_credentials_says_where_they_come_from(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEDDLE_SECRETS", '[{"provider": "vault", "address": "http://127.0.0.1:1"}]')
    for ask in (secret("a/b").resolve, audit_key):
        with pytest.raises(MissingSecretError, match=r"^secret vault/token has no value; asked: nobody") as missing:
            ask()
        assert missing.value.hint == 'list "environment" or "files" before what asks for it, and put it there'


def test_an_error_names_all_that_were_asked_and_what_to_do(project: Path) -> None:
    with pytest.raises(MissingSecretError, match="a/b has no value; asked: environment, files") as missing:
        secret("a/b").resolve()
    assert missing.value.hint == f"set HEDDLE_SECRET_A_B, or write {project}/.heddle/secrets/a/b (mode 0600)"


@pytest.mark.parametrize("variable", ["HEDDLE_SECRETS_DIR", "CREDENTIALS_DIRECTORY"])
def test_a_folder_as_kubernetes_and_systemd_make_it(
    project: Path, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    """Names without slashes; behind links that are replaced as a whole, as a mounted secret is."""
    mount = project / "mount"
    write(mount / "..1" / "a--b", "first\n")
    (mount / "..data").symlink_to("..1")
    (mount / "a--b").symlink_to("..data/a--b")
    monkeypatch.setenv(variable, str(mount))
    assert secret("a/b").resolve() == "first"
    write(mount / "..2" / "a--b", "second\n")
    (mount / "..data_tmp").symlink_to("..2")
    (mount / "..data_tmp").replace(mount / "..data")
    assert secret("a/b").resolve() == "second"


def test_the_folder_that_was_set_wins_over_systemds(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(project / "set" / "a" / "b", "set")
    write(project / "systemd" / "a--b", "systemd")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(project / "systemd"))
    monkeypatch.setenv("HEDDLE_SECRETS_DIR", str(project / "set"))
    assert secret("a/b").resolve() == "set"


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"provider": "vault"}, "not a list of tables"),
        ("vault", "not a list of tables"),
        ([{"provider": "keychain"}], "entry 1: Input tag 'keychain'"),
        ([{"provider": "environment"}, {"provider": "vault", "adress": "x"}], "entry 2 vault adress: Extra inputs"),
        ([{"provider": "vault", "refresh_s": 0}], "entry 1 vault refresh_s: Input should be greater"),
        ([{"provider": "vault", "auth": "kubernetes"}], "entry 1 vault: Value error, auth kubernetes needs a role"),
        ([{"provider": "azure"}], "entry 1 azure vault: Field required"),
        ([{"provider": "gcp"}], "entry 1 gcp project: Field required"),
    ],
)
def test_a_wrong_entry_is_named(entries: object, message: str) -> None:
    with pytest.raises(UsageError) as wrong:
        parse(entries, "[[tool.heddle.secrets]]")
    assert str(wrong.value).startswith(f"[[tool.heddle.secrets]]: {message}")


def test_a_variable_that_is_no_json_is_said_without_it(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEDDLE_SECRETS", "hunter22")
    with pytest.raises(UsageError, match="HEDDLE_SECRETS: not JSON") as wrong:
        secret("a/b").resolve()
    assert "hunter22" not in f"{wrong.value!r}{wrong.value.hint}"


def test_a_client_library_that_is_missing_is_said_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "hvac", None)
    with pytest.raises(UsageError, match="secrets from vault need the package hvac") as missing:
        sdk("hvac", "vault")
    assert missing.value.hint == "install it: pip install 'heddle[vault]'"


def test_a_store_that_nobody_needs_needs_no_library(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "hvac", None)
    monkeypatch.setenv("HEDDLE_SECRETS", '[{"provider": "environment"}, {"provider": "vault"}]')
    monkeypatch.setenv("HEDDLE_SECRET_A_B", "value")
    assert secret("a/b").resolve() == "value"


def test_a_text_in_pem_is_one_value() -> None:
    assert live_values(f"\n{PEM}\n\n") == (PEM,)
    assert live_values("one\ntwo\n") == ("one", "two")


def test_the_examples_of_the_page_can_be_used_as_they_are() -> None:
    page = Path(__file__).parents[2] / "docs" / "how-to" / "secrets.md"
    examples = re.findall(r"```toml\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    used = [type(each).__name__ for example in examples for each in parse(tables(example), "the page")]
    assert {name.removesuffix("Options").lower() for name in used} == {
        "environment", "files", "vault", "aws", "azure", "gcp",
    }  # fmt: skip


def tables(text: str) -> object:
    return tomllib.loads(text)["tool"]["heddle"]["secrets"]
