"""One worker process, Avro order → mapping → Avro, transactional, on a real broker, against a raw copy of its topic.

    python -m benchmarks.worker [--records N] [--runs R] [--batch B] [--sides copy,fastavro,…] [--good]

Sides take turns, each run in a process of its own; the first round warms caches, is compared with the reference record
by record, and counts for nothing else. One order in a thousand is bad and goes to the dead letters, but for the copy,
which does not look at what it copies. `--good`: none is bad, so nothing is ever parked. Writes
benchmarks/out/worker.json (or worker-good.json)."""

from __future__ import annotations

import argparse
import statistics
from typing import Any

from benchmarks import orders
from benchmarks.lab import SIDES, Lab, Side, available, open_lab, pairs, summary, table
from benchmarks.machine import machine, write_result
from benchmarks.outputs import check
from benchmarks.sides import Result

TOPIC = "bench.orders"
NEVER = 10**12
RATIOS = {
    "python/copy": "Python engine / copy",
    "native/copy": "native engine / copy",
    "fastavro/copy": "by hand / copy",
    "objects/copy": "object path / copy",
    "continue/copy": "order=continue / copy",
    "unaudited/copy": "Python engine, no audit trail / copy",
    "native-unaudited/copy": "native engine, no audit trail / copy",
    "fastavro/python": "by hand / Python engine",
    "fastavro/native": "by hand / native engine",
    "objects/python": "object path / Python engine",
    "python/continue": "parking on / off",
    "python/unaudited": "audit trail on / off",
}
AUDITED = (("python", "unaudited"), ("native", "native-unaudited"))


def main() -> None:
    options = _options()
    if options.good:
        orders.BAD_EVERY = NEVER
    sides = available(options.sides.split(","))
    with open_lab() as lab:
        print(f"loading {options.records:,} orders …", flush=True)
        lab.create(TOPIC)
        lab.load(TOPIC, options.records)
        runs = _rounds(lab, sides, options)
    _report(sides, runs, options, lab.topics[TOPIC].value_bytes)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=200_000)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--batch", type=int, default=2_000, help="most records of a transaction, all sides")
    parser.add_argument("--sides", default=",".join(SIDES), help="which, in which order")
    parser.add_argument("--good", action="store_true", help="no order is bad")
    return parser.parse_args()


def _rounds(lab: Lab, sides: dict[str, Side], options: argparse.Namespace) -> dict[str, list[Result]]:
    runs: dict[str, list[Result]] = {name: [] for name in sides}
    for number in range(options.runs + 1):
        for name, side in sides.items():
            starts = lab.target_ends()
            result = lab.run(side, lab.job(side, TOPIC, records=options.records, batch=options.batch))
            if number:
                runs[name].append(result)
                print(f"run {number}  {side.label:<42}{result['cpu_us_per_record']:>8.1f} µs CPU a record", flush=True)
            else:
                check(side, lab.frames, lab.written_since(starts), options.records)
                print(f"warm    {side.label:<42}   equal to the reference", flush=True)
    return runs


def _report(
    sides: dict[str, Side], runs: dict[str, list[Result]], options: argparse.Namespace, value_bytes: float
) -> None:
    summaries = {name: {"label": side.label, **summary(runs[name])} for name, side in sides.items()}
    ratios = {
        name: pairs(runs[side], runs[baseline])
        for name in RATIOS
        for side, baseline in [name.split("/")]
        if side in runs and baseline in runs
    }
    print(f"\n{machine()}")
    print(
        f"{options.records:,} orders of {value_bytes:.0f} bytes, up to {options.batch:,} a transaction; "
        f"medians of {options.runs} runs\n"
    )
    print(
        table(
            ("", "CPU µs/record", "records/s wall", "peak RSS MiB"),
            [
                (s["label"], f"{s['cpu_us_per_record']:.1f}", f"{s['records_per_s']:,.0f}", f"{s['rss_mib']:.0f}")
                for s in summaries.values()
            ],
        )
    )
    if ratios:
        rows = [(RATIOS[n], *(f"{r[figure]:.2f}" for figure in ("median", "low", "high"))) for n, r in ratios.items()]
        print("\n" + table(("CPU, pair by pair", "median", "from", "to"), rows))
    figures: dict[str, Any] = {
        "records": options.records,
        "batch": options.batch,
        "value_bytes": round(value_bytes),
        **summaries,
        "ratios": ratios,
    }
    costs = {engine: _cost(summaries, engine, bare) for engine, bare in AUDITED if {engine, bare} <= summaries.keys()}
    if costs:
        figures["audit_us_per_record"] = costs
        print("\nthe audit trail costs, in µs a record: " + ", ".join(f"{e} {us:.2f}" for e, us in costs.items()))
    write_result("worker-good" if options.good else "worker", figures)


def _cost(summaries: dict[str, dict[str, Any]], side: str, baseline: str) -> float:
    """The median of what a run costs more than that of the same round."""
    pairs = zip(summaries[side]["runs"], summaries[baseline]["runs"], strict=True)
    return statistics.median(run["cpu_us_per_record"] - base["cpu_us_per_record"] for run, base in pairs)


if __name__ == "__main__":
    main()
