"""From the moment at which an order is due until a reader has its pick, at a tenth, a half and four fifths of the rate
that saturates the worker; beside a raw copy with the same rates and the same bounds on its transactions.

    python -m benchmarks.latency [--seconds S] [--runs R] [--records N] [--codec python|native|objects]

The saturated rate is measured first: how fast the worker empties a full topic while the reader reads along. Orders then
come from a process that does not wait for anybody (benchmarks/offer.py). The reader sees committed records only. Two
profiles: the settings as they are, and `low`, where a batch does not wait to fill (HEDDLE_BATCH_MAX_WAIT_S). Writes
benchmarks/out/latency.json."""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from json import loads
from typing import Any

import confluent_kafka as kafka

from benchmarks.lab import ROOT, SIDES, TIMEOUT_S, Lab, Side, ended, open_lab, table
from benchmarks.machine import machine, write_result
from benchmarks.offer import Offer
from benchmarks.orders import TARGET
from benchmarks.sides import Result
from heddle.settings import Settings

SHARES = (0.1, 0.5, 0.8)
PROFILES: Mapping[str, float] = {"default": Settings.model_fields["batch_max_wait_s"].default, "low": 0.001}
"""HEDDLE_BATCH_MAX_WAIT_S of each."""
TARGET_RATIO = 1.5
WARM_UP_S = 2.0
SKIPPED_S = 1.0
SAMPLES_PER_S = 5_000


def main() -> None:
    options = _options()
    sides = {"copy": SIDES["copy"], "heddle": SIDES[options.codec]}
    runs = []
    with open_lab() as lab:
        rate = _saturated(lab, sides["heddle"], options.records)
        print(f"saturated at {rate:,.0f} records/s", flush=True)
        for number in range(1, options.runs + 1):
            for profile, wait_s in PROFILES.items():
                for name, side in sides.items():
                    found = _swept(lab, side, wait_s, rate, options.seconds)
                    runs += [{"run": number, "profile": profile, "side": name, **each} for each in found]
                    print(f"run {number}: {profile}: {side.label}", flush=True)
    _report(rate, _rows(runs), options)
    write_result(
        "latency", {"codec": options.codec, "saturated_records_per_s": rate, "rows": _rows(runs), "runs": runs}
    )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=6.0, help="of each rate; the first second does not count")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--records", type=int, default=60_000, help="what the saturated rate is measured with")
    parser.add_argument("--codec", choices=("python", "native", "objects"), default="python")
    return parser.parse_args()


class Watch:
    """A reader of the target topic, from its present end on."""

    def __init__(self, lab: Lab) -> None:
        config = {"bootstrap.servers": lab.stack.bootstrap_servers, "group.id": "bench-watch"}
        self._client = kafka.Consumer({**config, "isolation.level": "read_committed", "enable.auto.commit": False})
        self._client.assign([kafka.TopicPartition(TARGET, p, offset) for p, offset in lab.target_ends().items()])
        self._stride = 1
        self.received = 0
        self.samples: list[tuple[float, float]] = []

    def begin(self, records_per_s: float) -> None:
        """Count anew. Of many records some are enough to know the latencies."""
        self._stride = max(1, int(records_per_s // SAMPLES_PER_S))
        self.received, self.samples = 0, []

    def read(self) -> None:
        """What is there, and its samples: (due, latency), in seconds."""
        messages = self._client.consume(1, 0.05)
        if not messages:
            return
        messages += self._client.consume(10_000, 0)
        now_s, skipped = time.time(), -self.received % self._stride
        self.received += len(messages)
        for message in messages[skipped :: self._stride]:
            headers: Any = message.headers()
            due_s = _seconds(dict(headers)["ce_time"])
            self.samples.append((due_s, now_s - due_s))

    def close(self) -> None:
        self._client.close()


@lru_cache(64)
def _seconds(time_text: bytes) -> float:
    return datetime.fromisoformat(time_text.decode()).timestamp()


def _saturated(lab: Lab, side: Side, records: int) -> float:
    """The lower of two."""
    topic = "bench.orders.full"
    lab.create(topic)
    lab.load(topic, records)
    rates = []
    for _ in range(2):
        watch = Watch(lab)
        process = lab.start(side, lab.job(side, topic, records=records))
        while process.poll() is None:
            watch.read()
        watch.close()
        rates.append(ended(process, side)["records_per_s"])
    return float(min(rates))


def _swept(lab: Lab, side: Side, wait_s: float, rate: float, seconds: float) -> list[Result]:
    """One process over all rates, after some that do not count."""
    topic = f"bench.orders.{len(lab.topics)}"
    lab.create(topic)
    process, watch = lab.start(side, lab.job(side, topic, wait_s=wait_s)), Watch(lab)
    _offered(lab, process, watch, topic, rate * SHARES[0], WARM_UP_S)
    found = [
        {"share": share, **_offered(lab, process, watch, topic, rate * share, seconds + SKIPPED_S)} for share in SHARES
    ]
    watch.close()
    process.terminate()
    ended(process, side)
    return found


def _offered(
    lab: Lab, process: subprocess.Popen[str], watch: Watch, topic: str, records_per_s: float, seconds: float
) -> Result:
    offer = Offer(
        servers=lab.stack.bootstrap_servers, topic=topic, frame=lab.frames.source.hex(), records_per_s=records_per_s,
        seconds=seconds,
    )  # fmt: skip
    watch.begin(records_per_s)
    command = [sys.executable, "-m", "benchmarks.offer", offer.text()]
    offering = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    lab.processes.append(offering)
    expected, deadline = offer.due(offer.ticks), time.monotonic() + seconds + TIMEOUT_S
    while watch.received < expected:
        watch.read()
        if process.poll() is not None or offering.poll() or time.monotonic() > deadline:
            sys.exit(f"{expected - watch.received} of {expected} outputs did not come")
    said = loads(offering.communicate()[0])
    first_s = min(due_s for due_s, _ in watch.samples) + SKIPPED_S
    latencies_ms = sorted(latency_s * 1000 for due_s, latency_s in watch.samples if due_s >= first_s)
    return {
        "records_per_s": records_per_s,
        "p50_ms": at(latencies_ms, 0.5),
        "p99_ms": at(latencies_ms, 0.99),
        "samples": len(latencies_ms),
        "late_p99_ms": said["late_p99_ms"],
    }


def at(ordered: Sequence[float], share: float) -> float:
    """The percentile, by nearest rank."""
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)]


def _rows(runs: Sequence[Result]) -> list[Result]:
    """Medians over the runs, by profile and share of the saturated rate; ratios run by run."""
    rows = []
    for profile in PROFILES:
        for share in SHARES:
            cell = [run for run in runs if run["profile"] == profile and run["share"] == share]
            by_side = {side: [run for run in cell if run["side"] == side] for side in ("copy", "heddle")}
            medians = {
                side: {figure: statistics.median(run[figure] for run in found) for figure in ("p50_ms", "p99_ms")}
                for side, found in by_side.items()
            }
            ratios = [
                heddle["p99_ms"] / copy["p99_ms"]
                for heddle, copy in zip(by_side["heddle"], by_side["copy"], strict=True)
            ]
            rows.append(
                {
                    "profile": profile,
                    "share": share,
                    "records_per_s": cell[0]["records_per_s"],
                    **medians,
                    "p99_ratio": statistics.median(ratios),
                    "late_p99_ms": max(run["late_p99_ms"] for run in cell),
                }
            )
    return rows


def _report(rate: float, rows: Sequence[Result], options: argparse.Namespace) -> None:
    print(f"\n{machine()}\nHeddle: {options.codec}; saturated at {rate:,.0f} records/s; medians of {options.runs} runs")
    heads = (
        "ms from due to read",
        "records/s",
        "copy p50",
        "heddle p50",
        "copy p99",
        "heddle p99",
        "p99 ratio",
        "offered late, p99",
    )
    cells = [
        (
            f"{row['profile']}, {row['share']:.0%}",
            f"{row['records_per_s']:,.0f}",
            *(f"{row[side][figure]:.1f}" for figure in ("p50_ms", "p99_ms") for side in ("copy", "heddle")),
            f"{row['p99_ratio']:.2f}x",
            f"{row['late_p99_ms']:.1f}",
        )
        for row in rows
    ]
    print("\n" + table(heads, cells) + "\n")
    for row in rows:
        if row["share"] == 0.5:
            verdict = "meets" if row["p99_ratio"] <= TARGET_RATIO else "misses"
            print(f"{row['profile']}, at half the rate: p99 {verdict} the target of {TARGET_RATIO}x the copy's")


if __name__ == "__main__":
    main()
