"""`heddle check` finds references that meet in one environment variable, where the environment is asked."""

from __future__ import annotations

from pathlib import Path

import pytest

from heddle.operations.check import check_project

VAULT = '[[tool.heddle.secrets]]\nprovider = "vault"\naddress = "https://vault.example:8200"\nauth = "approle"\n'
NAMES = "from heddle import secret\nONE = secret({!r})\nTWO = secret({!r})\n"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("HEDDLE_SECRETS", raising=False)
    (tmp_path / "pyproject.toml").write_text('[tool.heddle]\nproject = "p"\n')
    (tmp_path / "consumers").mkdir()
    (tmp_path / "producers").mkdir()
    return tmp_path


def test_check_names_two_references_that_meet_in_one_variable(project: Path) -> None:
    (project / "producers" / "_crm.py").write_text("import heddle\nKEY = heddle.secret(name='crm/api-key')\n")
    (project / "consumers" / "_billing.py").write_text(
        "from heddle import secret\nSAME = secret('crm/api-key')\n"
        "KEY = secret('crm-api/key')\nAGAIN = secret('crm-api/key')\n"
    )
    (problem,) = check_project(project)
    assert problem.file == "consumers/_billing.py:3"
    assert problem.message == "secrets crm-api/key and crm/api-key are one variable: HEDDLE_SECRET_CRM_API_KEY"
    assert problem.severity == "error"


def test_the_key_of_the_audit_trail_is_a_reference_too(project: Path) -> None:
    (project / "consumers" / "_one.py").write_text("from heddle import secret\nKEY = secret('audit-key')\n")
    assert [problem.message for problem in check_project(project)] == [
        "secrets audit-key and audit/key are one variable: HEDDLE_SECRET_AUDIT_KEY"
    ]


@pytest.mark.parametrize("names", [("a/b", "a/b"), ("a/b", "a/c"), ("a/b", "ab")])
def test_names_with_variables_of_their_own_are_left_alone(project: Path, names: tuple[str, str]) -> None:
    (project / "consumers" / "_one.py").write_text(NAMES.format(*names))
    assert check_project(project) == []


def test_it_counts_only_where_the_environment_is_asked(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (project / "consumers" / "_one.py").write_text(NAMES.format("a/b", "a-b"))
    assert len(check_project(project)) == 1
    with (project / "pyproject.toml").open("a") as config:
        config.write(VAULT)
    assert check_project(project) == []
    monkeypatch.setenv("HEDDLE_SECRETS", '[{"provider": "environment"}]')
    assert len(check_project(project)) == 1
