"""The codec alone, orders in wire format to picks in wire format, and the same with ids and headers: what a worker does
of its own between reading and writing. No Kafka.

    python -m benchmarks.codec [--batch B] [--rounds R] [--records N]

Four sides take turns in one process: fastavro and a dict by hand, Heddle's object path, its Python engine, its native
engine where that is installed. Their outputs are first compared byte for byte. CPU is user + system of this process;
the least of the rounds is what code costs when nothing disturbs it. Writes benchmarks/out/codec.json."""

from __future__ import annotations

import argparse
import gc
import statistics
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from benchmarks.by_hand import HandWritten
from benchmarks.lab import available, table
from benchmarks.machine import machine, write_result
from benchmarks.orders import APP, SOURCE, START, Frames, fault, frame, headers, key, time_text, values
from benchmarks.sides import Result, engine_of
from heddle.broker.log import Record
from heddle.contracts import MemoryRegistry, contract_of
from heddle.delivery.build import open_step
from heddle.delivery.steps import Budget
from heddle.project import load_project, sources_digest
from heddle.settings import load_settings

NAMES = ("fastavro", "objects", "python", "native")
LABELS = {
    "fastavro": "fastavro and a dict",
    "objects": "heddle, object path",
    "python": "heddle, Python engine",
    "native": "heddle, native engine",
}
TARGETS = {"python": 6, "native": 60}
"""How many times as fast as by hand the codec alone has to be."""
FRAMES = Frames(frame(1), frame(2))


class Work(NamedTuple):
    """One side's two ways over a batch. `outputs`: the values of what the first gave."""

    transcode: Callable[[Sequence[bytes | None]], Any]
    step: Callable[[Sequence[Record]], Any]
    outputs: Callable[[Any], list[bytes]]


def main() -> None:
    options = _options()
    result = measured(options.records, options.batch, options.rounds)
    _report(result)
    write_result("codec", result)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=4_000)
    parser.add_argument("--batch", type=int, default=2_000)
    parser.add_argument("--rounds", type=int, default=9)
    return parser.parse_args()


def measured(records: int, batch: int, rounds: int) -> Result:
    """By part (`codec`, `step`) and side the least and the median µs of a record, and how many times as fast as by hand
    the least is."""
    sides = {name: _by_hand() if name == "fastavro" else _heddle(name) for name in available(NAMES)}
    good = _good_records(records)
    batches = [good[i : i + batch] for i in range(0, len(good), batch)]
    data = [[record.value for record in each] for each in batches]
    _compare(sides, data)
    gc.freeze()
    codec = interleaved({name: side.transcode for name, side in sides.items()}, data, rounds)
    step = interleaved({name: side.step for name, side in sides.items()}, batches, rounds)
    return {
        "records": len(good),
        "batch": batch,
        "rounds": rounds,
        "value_bytes": round(statistics.mean(len(record.value or b"") for record in good)),
        "codec": _figures(codec, len(good)),
        "step": _figures(step, len(good)),
    }


def interleaved(
    sides: Mapping[str, Callable[[Any], Any]], batches: Sequence[Any], rounds: int
) -> dict[str, list[float]]:
    """CPU seconds of each round over all batches, the sides taking turns."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, work in sides.items():
            gc.collect()
            began = time.process_time()
            for each in batches:
                work(each)
            seconds[name].append(time.process_time() - began)
    return seconds


def _figures(seconds: Mapping[str, Sequence[float]], records: int) -> Result:
    by_hand = min(seconds["fastavro"])
    return {
        name: {
            "label": LABELS[name],
            "min_us": min(found) / records * 1e6,
            "median_us": statistics.median(found) / records * 1e6,
            "times_by_hand": by_hand / min(found),
        }
        for name, found in seconds.items()
    }


def _good_records(records: int) -> list[Record]:
    time_of_all = time_text(START)
    return [
        Record(SOURCE, 0, number, key(number), value, headers(number, time_of_all), 0)
        for number, value in enumerate(values(range(records), FRAMES.source))
        if not fault(number)
    ]


def _by_hand() -> Work:
    written = HandWritten(FRAMES)
    value, given = written.value, written.headers
    return Work(
        lambda batch: [value(data) for data in batch],  # type: ignore[arg-type]
        lambda batch: [(record.key, value(record.value or b""), given(record.headers)) for record in batch],
        lambda found: found,
    )


def _heddle(codec: str) -> Work:
    """The step of the benchmark's application, over a registry in memory."""
    project = load_project(APP)
    flow: Any = project.component("order-to-pick")
    registry = MemoryRegistry([contract_of(flow.reads), contract_of(flow.writes)])
    step: Any = open_step(flow, project.name, sources_digest(project.root), registry, load_settings(codec=codec))
    if engine_of(step) != codec:
        sys.exit(f"{LABELS[codec]}: records would be done by {engine_of(step)}")
    budget = Budget(3600, threading.Event())
    return Work(
        step._transcoder.transcode,
        lambda batch: step.run(batch, budget),
        lambda found: [] if found[1] else found[0].values,
    )


def _compare(sides: Mapping[str, Work], batches: Sequence[Sequence[bytes | None]]) -> None:
    """Also what fills caches and makes plans."""
    for batch in batches:
        wanted = sides["fastavro"].transcode(batch)
        for name, side in sides.items():
            if side.outputs(side.transcode(batch)) != wanted:
                sys.exit(f"{LABELS[name]}: other bytes than fastavro's")


def _report(result: Result) -> None:
    print(f"\n{machine()}")
    print(
        f"{result['records']:,} orders of {result['value_bytes']} bytes, batches of {result['batch']:,}, "
        f"{result['rounds']} interleaved rounds"
    )
    for part, title in (("codec", "codec, CPU µs a record"), ("step", "with ids and headers")):
        rows = [
            (side["label"], f"{side['min_us']:.2f}", f"{side['median_us']:.2f}", f"{side['times_by_hand']:.1f}x")
            for side in result[part].values()
        ]
        print("\n" + table((title, "least", "median", "by hand / this"), rows))
    print()
    for name, target in TARGETS.items():
        if name in result["codec"]:
            reached = result["codec"][name]["times_by_hand"]
            print(f"{LABELS[name]}: {'meets' if reached >= target else 'misses'} the target of {target}x by hand")


if __name__ == "__main__":
    main()
