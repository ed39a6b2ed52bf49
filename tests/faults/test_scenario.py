"""One scenario, in memory and for real: failures in one attempt of twenty, kills, rebalances, replays meanwhile; then
nothing is lost, nothing took effect twice, no order is broken, and the audit trail tells of every entry.

HEDDLE_FAULTS=full: 50,000 orders, 30 kills, 10 rebalances (`make faults`). HEDDLE_FAULTS_SEED repeats a run's dice."""

from __future__ import annotations

import os
import random
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from faults_project import SmallProject
from scenario import Scenario, Size
from scenario_census import take_census
from scenario_grounds import Ground
from scenario_kafka import KafkaGround
from scenario_memory import MemoryGround

if TYPE_CHECKING:
    from heddle.local import Stack

FULL = os.environ.get("HEDDLE_FAULTS") == "full"
SIZE = Size(50_000, 500, 30, 10) if FULL else Size(3_000, 150, 3, 2)

pytestmark = [pytest.mark.faults, pytest.mark.timeout(1800 if FULL else 240)]


@pytest.fixture
def seed() -> str:
    return os.environ.get("HEDDLE_FAULTS_SEED") or secrets.token_hex(4)


def test_in_memory(tmp_path: Path, seed: str, record_property: Callable[[str, object], None]) -> None:
    play(MemoryGround(SmallProject(tmp_path / "app"), seed), seed, record_property)


@pytest.mark.stack
def test_for_real(tmp_path: Path, seed: str, stack: Stack, record_property: Callable[[str, object], None]) -> None:
    play(KafkaGround(SmallProject(tmp_path / "app"), stack, seed), seed, record_property)


def play(ground: Ground, seed: str, record_property: Callable[[str, object], None]) -> None:
    scenario = Scenario(ground, SIZE, random.Random(seed))
    try:
        scenario.play()
    finally:
        scenario.close()
    census = take_census(scenario)
    summary = (
        f"{len(scenario.fed):,} events of {SIZE.accounts} keys, {'; '.join(census.figures.values())}; "
        f"drained in {scenario.drain_s:.1f} s, {scenario.lasted_s:.0f} s in all; seed {seed}"
    )
    record_property("summary", summary)
    assert not census.broken, f"{census.broken}\n{summary}\n{ground.project.last_lines()}"
