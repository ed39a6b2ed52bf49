"""What has happened, in a few lines: for whoever reads why a test failed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from heddle.integration import Outcome
from heddle.testing.clock import START
from heddle.testing.engine import Engine
from heddle.testing.reading import Reading
from heddle.testing.world import World

_SHOWN = 20


def story(world: World, engine: Engine, reading: Reading) -> str:
    return "\n".join(_lines(world, engine, reading))


def _lines(world: World, engine: Engine, reading: Reading) -> Iterator[str]:
    metadata = reading.metadata()
    elapsed = world.clock.now - START
    yield f"what happened to {world.component.name}, {elapsed} after the start:"
    unsettled = world.feeds - metadata.counts.total
    yield f"  fed: {world.feeds}, settled: {_counted(metadata.counts.by_outcome)}" + (
        f", not yet: {unsettled}" if unsettled else ""
    )
    if metadata.entry_counts.total:
        yield f"  runs of dead letters: {_counted(metadata.entry_counts.by_outcome)}"
    yield from _listed("dead letters", [str(entry) for entry in reading.dead_letters()])
    yield from _listed("pauses", [str(pause) + (" (now)" if pause is engine.paused else "") for pause in engine.pauses])
    if engine.crashes:
        yield f"  crashes: {engine.crashes}"
    if engine.stopped is not None:
        yield f"  stopped: {type(engine.stopped).__name__}: {engine.stopped}"


def _counted(counts: Mapping[Outcome, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items() if count) or "none"


def _listed(what: str, lines: Sequence[str]) -> Iterator[str]:
    if not lines:
        return
    yield f"  {what}:"
    yield from (f"    {line}" for line in lines[:_SHOWN])
    if len(lines) > _SHOWN:
        yield f"    … and {len(lines) - _SHOWN} more"
