"""Commands that we print are commands that a shell reads back as they were meant, and a person too."""

from __future__ import annotations

import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heddle.cli.shell import shell_line

WORDS = st.lists(st.text(st.characters(blacklist_characters="\0", blacklist_categories=["Cs"])), max_size=5)


@given(WORDS)
def test_a_shell_reads_the_words_back(words: list[str]) -> None:
    assert shlex.split(shell_line(words)) == words


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["heddle", "dlq", "list"], "heddle dlq list"),
        (["--where", "value.account == 'Condax'"], "--where \"value.account == 'Condax'\""),
        (["--set", "product=GTX Pro"], "--set product='GTX Pro'"),
        (["--set", "deal_stage=Engaging"], "--set deal_stage=Engaging"),
        (["--reason", "…"], "--reason '…'"),
        (["it's $5"], "'it'\"'\"'s $5'"),
    ],
)
def test_a_person_can_read_them(words: list[str], line: str) -> None:
    assert shell_line(words) == line
