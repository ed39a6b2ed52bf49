"""What a shell offers behind the tabulator key."""

import os
import subprocess
import sys
from pathlib import Path

from heddle.cli.completion import failure_classes, states, subscriptions

RUN = [sys.executable, "-c", "from heddle.cli.main import main; main()"]


def offered(words: str, cwd: Path) -> list[str]:
    count = len(words.split(" ")) - 1
    env = {**os.environ, "_HEDDLE_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(count)}
    done = subprocess.run(RUN, cwd=cwd, env=env, capture_output=True, text=True, check=True, timeout=60)
    assert not done.stderr
    return done.stdout.split()


def test_commands_options_and_names_of_the_project_are_offered(tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    assert offered("heddle dlq re", root) == ["replay", "retry-now"]
    assert "deal-to-invoice" in offered("heddle dlq list ", root)
    assert offered("heddle dlq list x", tmp_path) == []  # no project, and no error


def test_values_are_offered_by_their_beginning(tmp_path: Path) -> None:
    assert states("") == ["dead", "waiting", "retrying", "unknown"]
    assert failure_classes("tr") == ["transient"]
    assert subscriptions("no-such") == []


def test_the_script_for_a_shell_is_shown() -> None:
    env = {**os.environ, "_HEDDLE_COMPLETE": "source_bash"}
    done = subprocess.run(RUN, env=env, capture_output=True, text=True, check=True, timeout=60)
    assert "complete -o default -F _heddle_completion heddle" in done.stdout
