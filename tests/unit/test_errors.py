"""Exit codes are an interface: supervisors and scripts decide by them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from heddle import errors
from heddle.operations.supervise import FINAL, AlreadyRunningError, held

CODES = {
    errors.UsageError: 2,
    AlreadyRunningError: 3,
    errors.FencedError: 4,
    errors.DependencyDownError: 5,
    errors.BrokerDownError: 5,
    errors.AuthError: 6,
    errors.OffsetLostError: 6,
    errors.FormatError: 6,
    errors.ContractError: 1,
    errors.TransactionExpiredError: 1,
    errors.CommitUnknownError: 1,
    errors.StaleGenerationError: 1,
}


@pytest.mark.parametrize(("error", "code"), CODES.items(), ids=lambda value: getattr(value, "__name__", value))
def test_exit_code(error: type[errors.HeddleError], code: int) -> None:
    assert error.exit_code == code


def test_a_worker_that_a_restart_would_not_mend_is_not_restarted() -> None:
    assert {CODES[error] for error in (errors.UsageError, errors.FencedError, errors.AuthError)} == set(FINAL)


def test_a_second_run_exits_with_3_and_names_the_pid(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text('[tool.heddle]\nproject = "twice"\n')
    (tmp_path / "consumers").mkdir()
    (tmp_path / "consumers" / "none.py").write_text(
        "from heddle.integration import Component\nfirst = Component('first', owner='o')\n"
    )
    environment = os.environ | {"HEDDLE_BOOTSTRAP_SERVERS": "127.0.0.1:1", "HEDDLE_REGISTRY_URL": "http://127.0.0.1:1"}
    with held(tmp_path / ".heddle" / "run", "0", ["first"]):
        second = subprocess.run(
            [sys.executable, "-m", "heddle", "run"],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
    assert second.returncode == 3, second.stderr
    assert f"pid {os.getpid()}" in second.stderr
