"""What `heddle up` writes into a project, and how it is found again."""

from __future__ import annotations

import base64
import json
import stat
from pathlib import Path

import pytest

from heddle.audit import audit_key
from heddle.errors import UsageError
from heddle.local import Runtime, Stack, find_stack
from heddle.local.places import is_reachable
from heddle.local.ports import Ports, save
from heddle.local.state import clear_state, data_dir, write_secrets, write_state
from heddle.secrets import secret
from heddle.settings import load_settings

CONFIG = {"local": {"secrets": {"ledger/dsn": "postgres", "crm/webhook": "random"}}}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = tmp_path / "project"
    (root / ".heddle" / "data").mkdir(parents=True)
    (root / "pyproject.toml").write_text("[tool.heddle]\nproject = 'p'\n", encoding="utf-8")
    (root / "producers").mkdir()
    for name in ("HEDDLE_BOOTSTRAP_SERVERS", "HEDDLE_REGISTRY_URL", "HEDDLE_DSN", "HEDDLE_SECRETS_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(root / "producers")
    return root


@pytest.fixture
def stack(project: Path) -> Stack:
    folder = data_dir(project / ".heddle")
    save(folder / "ports.json", Ports(kafka=15_001, registry=15_002, postgres=15_003))
    return find_stack(folder, Runtime(project / "cache"))


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_settings_find_the_stack_from_below_the_root(project: Path, stack: Stack) -> None:
    write_state(project / ".heddle", stack)
    settings = load_settings()
    assert settings.bootstrap_servers == "127.0.0.1:15001"
    assert settings.registry_url == "http://127.0.0.1:15002/apis/ccompat/v7"
    assert settings.dsn is not None
    assert settings.dsn.get_secret_value() == stack.dsn
    assert settings.local
    clear_state(project / ".heddle")
    assert load_settings().bootstrap_servers == ""


def test_a_project_inside_another_has_its_own_stack(
    project: Path, stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_state(project / ".heddle", stack)
    inner = project / "inner"
    inner.mkdir()
    (inner / "pyproject.toml").touch()
    monkeypatch.chdir(inner)
    assert load_settings().bootstrap_servers == ""


def test_the_state_file_is_private_and_complete(project: Path, stack: Stack) -> None:
    write_state(project / ".heddle", stack)
    path = project / ".heddle" / "stack.json"
    assert mode(path) == 0o600
    state = json.loads(path.read_text(encoding="utf-8"))
    assert state["ports"] == {"kafka": 15_001, "registry": 15_002, "postgres": 15_003}
    assert state["pids"] == {"kafka": None, "registry": None, "postgres": None}


def test_secrets_are_made_once_private_and_resolvable(project: Path, stack: Stack) -> None:
    assert write_secrets(project / ".heddle", CONFIG, stack) == ["audit/key", "crm/webhook"]
    folder = project / ".heddle" / "secrets"
    assert [mode(folder), mode(folder / "crm"), mode(folder / "crm" / "webhook")] == [0o700, 0o700, 0o600]
    first = secret("crm/webhook").resolve()
    assert first.startswith("whsec_")
    assert len(base64.b64decode(first.removeprefix("whsec_"))) == 24
    assert secret("ledger/dsn").resolve() == stack.dsn
    assert write_secrets(project / ".heddle", CONFIG, stack) == []
    assert secret("crm/webhook").resolve() == first


def test_the_audit_trail_gets_a_key_that_stays(project: Path, stack: Stack) -> None:
    assert write_secrets(project / ".heddle", {}, stack) == ["audit/key"]
    assert mode(project / ".heddle" / "secrets" / "audit" / "key") == 0o600
    key = audit_key()
    assert write_secrets(project / ".heddle", {}, stack) == []
    assert audit_key() == key


def test_the_database_secret_follows_its_port(project: Path, stack: Stack) -> None:
    write_secrets(project / ".heddle", CONFIG, stack)
    save(stack.data_dir / "ports.json", Ports(postgres=15_009))
    moved = find_stack(stack.data_dir, Runtime(project / "cache"))
    write_secrets(project / ".heddle", CONFIG, moved)
    assert ":15009/" in secret("ledger/dsn").resolve()


@pytest.mark.parametrize("table", [{"a": "magic"}, {"../a": "random"}, {"a//b": "random"}, {"/etc/x": "random"}])
def test_a_wrong_secret_declaration_is_refused(table: dict[str, str], project: Path, stack: Stack) -> None:
    with pytest.raises(UsageError, match=r"tool\.heddle\.local\.secrets"):
        write_secrets(project / ".heddle", {"local": {"secrets": table}}, stack)


def test_looking_at_a_stack_makes_nothing(tmp_path: Path) -> None:
    stack = find_stack(tmp_path / "never", Runtime(tmp_path / "cache"))
    assert set(stack.pids.values()) == {None}
    assert [server.log_files() for server in stack.servers] == [[], [], []]
    stack.stop()
    stack.remove()
    assert list(tmp_path.iterdir()) == []


def test_a_private_folder_on_the_way_makes_a_place_unreachable(tmp_path: Path) -> None:
    folder = tmp_path / "private" / "inner"
    folder.mkdir(parents=True)
    (tmp_path / "private").chmod(0o700)
    assert not is_reachable(folder)
    assert is_reachable(Path("/"))
