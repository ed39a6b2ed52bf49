"""`BreakableSink` in front of the real SQL sink: the harness's faults, PostgreSQL's effects."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sql_sink_harness import Database, entry

from heddle.errors import DependencyDownError
from heddle.local import Stack
from heddle.testing import BreakableSink, Harness, PauseKind

pytestmark = pytest.mark.stack


@pytest.fixture
def database(stack: Stack) -> Iterator[Database]:
    database = Database(stack.dsn)
    yield database
    database.clean()


def test_an_outage_and_a_crash_after_the_commit_write_each_entry_once(database: Database) -> None:
    sink = BreakableSink(database.entries())
    with Harness(sink) as h:
        sink.fail(DependencyDownError("no connection"))
        for number in range(20):
            h.feed(entry(f"e-{number}"))
        h.run()
        assert h.paused is not None
        assert h.paused.kind is PauseKind.DEPENDENCY
        sink.mend()
        sink.crash_after_effect()
        h.advance_to(h.paused.until or h.now)
        assert (h.outcomes, h.crashes, h.dead_letters) == ({"applied": 20}, 1, [])
        assert h.recovered > 0
    assert len(database.lines()) == 40


def test_a_row_that_the_table_refuses_is_corrected_and_replayed(database: Database) -> None:
    sink = database.entries()
    database.execute("alter table {schema}.entry_line add check (account <> 'cash')")
    with Harness(sink) as h:
        h.feed(entry("a"))
        h.feed(entry("b", accounts=("bank", "sales")))
        h.run()
        [letter] = h.dead_letters
        assert (letter.state, letter.failure_class, letter.key) == ("dead", "contract", "default/a")
        assert h.edit(letter, to={"lines[0].account": "bank"}).counts == {"applied": 1}
    assert [account for _, _, account, _ in database.lines()] == ["bank", "sales", "bank", "sales"]
