"""Records with bytes that nobody wrote, through every engine, until enough were seen: `make wire-fuzz`.

Each batch has a seed of its own, made of the run's seed and the batch's number. So a run can begin where another one
stopped, and whatever is found is found again at once."""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from random import Random

from wire_crossings import CROSSINGS, honest_records
from wire_engines import engines_here
from wire_judging import Disagreement, judged, judged_by_fastavro
from wire_mutating import mutated
from wire_values import value_of
from wire_writers import at_the_edge

from heddle.wire.engine import FRAME_BYTES

MUTATED, AT_THE_EDGE = 450, 50
"""Records of a batch."""


@dataclass
class Tally:
    """How often what happened, by engine."""

    messages: int = 0
    seen: dict[str, Counter[str]] = field(default_factory=dict)

    def count(self, engine: str, what: str) -> None:
        self.seen.setdefault(engine, Counter())[what] += 1

    def lines(self) -> Iterator[str]:
        for engine, counter in self.seen.items():
            yield f"{engine}:"
            yield from (f"{count:>12,}  {what}" for what, count in sorted(counter.items(), key=lambda pair: -pair[1]))


class Fuzzer:
    """All crossings on all engines of this machine, a batch of one crossing at a time."""

    def __init__(self, seed: str, honest: int = 300) -> None:
        self.seed = seed
        self.tally = Tally()
        self._names = list(CROSSINGS)
        self._honest = {name: honest_records(name, honest, Random(f"{seed} {name}"), odd=True) for name in CROSSINGS}
        self._runs = {name: engines_here(CROSSINGS[name]) for name in CROSSINGS}
        for name, runs in self._runs.items():
            for run in runs.values():
                run.transcode(self._honest[name][:1])

    def batch(self, number: int) -> None:
        """Raises `Disagreement`, with all that is needed to see it again."""
        name = self._names[number % len(self._names)]
        dice, honest, crossing = Random(f"{self.seed} {number}"), self._honest[name], CROSSINGS[name]
        ((frame, node),) = crossing.nodes.items()
        values = [mutated(dice.choice(honest), honest, dice) for _ in range(MUTATED)]
        values += [frame + at_the_edge(node, value_of(node, dice), dice) for _ in range(AT_THE_EDGE)]
        answers = [crossing.answer(value) for value in values]
        outputs = {engine: run.alone(values) for engine, run in self._runs[name].items()}
        for index, (value, expected) in enumerate(zip(values, answers, strict=True)):
            told = f"{name}, record {value.hex()}\nagain: {self.resume(number)}"
            for engine, (emissions, refused) in outputs.items():
                with _telling(f"{engine}, {told}"):
                    what = judged(crossing, value, expected, emissions[index], index in refused)
                self.tally.count(engine, what)
            if value[:FRAME_BYTES] in crossing.nodes:
                with _telling(told):
                    what = judged_by_fastavro(crossing, value)
                self.tally.count("fastavro", what)
        self.tally.messages += len(values)

    def resume(self, number: int) -> str:
        """The command that begins with a batch."""
        return f"make wire-fuzz SEED={self.seed} START={number}"


@contextmanager
def _telling(what: str) -> Iterator[None]:
    try:
        yield
    except Disagreement as found:
        raise Disagreement(f"{found}\n{what}") from found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--messages", type=int, default=1_000_000)
    parser.add_argument("--seed", default=str(time.time_ns()), help="of a run that is to be repeated or resumed")
    parser.add_argument("--start", type=int, default=0, help="the batch to begin with")
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    fuzzer, number = Fuzzer(options.seed), options.start
    while fuzzer.tally.messages < options.messages:
        try:
            fuzzer.batch(number)
        except Disagreement as found:
            sys.exit(f"DISAGREEMENT: {found}")
        number += 1
        if number % 200 == 0:
            print(f"{fuzzer.tally.messages:,} messages; to go on: {fuzzer.resume(number)}", flush=True)
    print("\n".join(fuzzer.tally.lines()))


if __name__ == "__main__":
    main()
