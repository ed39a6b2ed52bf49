"""How a worker's cost changes with what it works on, each case beside a raw copy of the same topic in the same run.

    python -m benchmarks.scale [--records N] [--runs R] [--codec python|native|objects] [--only processes,batch,…]

Processes, partitions, size of records, records per transaction, headers of others, parked keys. Then two workers, of
which one is killed (-9) in the middle: what is in the target topic at the end is compared with the reference, every
order once. Writes benchmarks/out/scale.json.

With parked keys CPU is counted from the first commit on: reading the dead letters back is start-up, which `make
bench-dlq` measures."""

from __future__ import annotations

import argparse
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from benchmarks.lab import SIDES, TIMEOUT_S, Lab, Side, ended, open_lab, pairs, summary, table
from benchmarks.machine import machine, write_result
from benchmarks.orders import START, bad_ones, headers, time_text
from benchmarks.outputs import check
from benchmarks.sides import Job, Result
from heddle.broker.log import Record
from heddle.delivery.classify import failure_of
from heddle.delivery.envelope import Envelope, State
from heddle.delivery.subscription import Subscription
from heddle.errors import ContractError

BEYOND = 1_000_000_000  # offsets of parked records: none that a run will read
FILL = 5_000
KILL_SHARE = 5  # times as many records as a case: a worker does these in half a second


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One row. What is not said is as in `make bench-worker`. `share`: of the records, where they cost much."""

    part: str
    label: str
    processes: int = 1
    partitions: int = 4
    lines: int = 3
    batch: int = 2_000
    extra_headers: int = 0
    parked: int = 0
    share: float = 1.0

    @property
    def topic(self) -> str:
        return f"bench.orders.p{self.partitions}.l{self.lines}.h{self.extra_headers}.s{self.share}"


CASES = (
    Case(part="processes", label="1"),
    Case(part="processes", label="2", processes=2, share=5.0),
    Case(part="partitions", label="1", partitions=1),
    Case(part="partitions", label="16", partitions=16),
    Case(part="lines", label="20 lines", lines=20, share=0.5),
    Case(part="lines", label="100 lines", lines=100, share=0.2),
    Case(part="batch", label="100", batch=100, share=0.5),
    Case(part="batch", label="500", batch=500),
    Case(part="batch", label="5,000", batch=5_000),
    Case(part="headers", label="7 + 5", extra_headers=5),
    Case(part="headers", label="7 + 20", extra_headers=20, share=0.5),
    Case(part="parked", label="1,000", parked=1_000),
    Case(part="parked", label="100,000", parked=100_000),
)
TITLES = {
    "processes": "processes",
    "partitions": "partitions",
    "lines": "order lines (3 above)",
    "batch": "records of a transaction (2,000 above)",
    "headers": "headers (7 above)",
    "parked": "parked keys (next to none above)",
}


def main() -> None:
    options = _options()
    chosen = options.only.split(",")
    sides = {"copy": SIDES["copy"], "heddle": SIDES[options.codec]}
    with open_lab() as lab:
        rows = [_measured(lab, sides, case, options) for case in CASES if case.part in chosen]
        killed = _killed(lab, sides["heddle"], options.records) if "kill" in chosen else None
    _report(rows, killed, options)
    write_result("scale", {"records": options.records, "codec": options.codec, "cases": rows, "killed": killed})


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=40_000)
    parser.add_argument("--runs", type=int, default=2)
    parser.add_argument("--codec", choices=("python", "native", "objects"), default="python")
    parser.add_argument("--only", default=",".join([*TITLES, "kill"]), help="parts to measure")
    return parser.parse_args()


def _measured(lab: Lab, sides: dict[str, Side], case: Case, options: argparse.Namespace) -> Result:
    records = int(options.records * case.share)
    if case.topic not in lab.topics:
        lab.create(case.topic, case.partitions)
        lab.load(case.topic, records, lines=case.lines, extra_headers=case.extra_headers)
    runs: dict[str, list[Result]] = {name: [] for name in sides}
    for _ in range(options.runs):
        for name, side in sides.items():
            runs[name].append(_run(lab, side, case, records))
    figure = "cpu_us_per_record_steady" if case.parked else "cpu_us_per_record"
    row = {
        "part": case.part,
        "label": case.label,
        "records": records,
        "value_bytes": round(lab.topics[case.topic].value_bytes),
        "figure": figure,
        **{name: summary(found, figure) for name, found in runs.items()},
        "ratio": pairs(runs["heddle"], runs["copy"], figure),
    }
    print(f"measured: {TITLES[case.part]}: {case.label}", flush=True)
    return row


def _run(lab: Lab, side: Side, case: Case, records: int) -> Result:
    if case.processes == 1:
        job = lab.job(side, case.topic, records=records, batch=case.batch)
        if case.parked and side.program == "heddle":
            _park(lab, job, case.parked)
        return lab.run(side, job)
    job = lab.job(side, case.topic, batch=case.batch, instances=case.processes)
    jobs = [replace(job, instance=number) for number in range(case.processes)]
    processes = [lab.start(side, each) for each in jobs]
    lab.drained(job, processes)
    results = _stopped(side, processes)
    if not all(result["records"] for result in results):
        sys.exit(f"{side.label}: one of {case.processes} processes came too late to do anything; take more --records")
    done = sum(result["records"] for result in results)
    return {
        "records": done,
        "cpu_us_per_record": sum(r["cpu_us_per_record"] * r["records"] for r in results) / done,
        "records_per_s": sum(result["records_per_s"] for result in results),
        "rss_mib": max(result["rss_mib"] for result in results),
        "processes": results,
    }


def _stopped(side: Side, processes: Sequence[subprocess.Popen[str]]) -> list[Result]:
    for process in processes:
        process.terminate()
    return [ended(process, side) for process in processes]


def _park(lab: Lab, job: Job, entries: int) -> None:
    """Dead entries of keys that no order has: every record of the run is looked up among them, none waits."""
    subscription = Subscription(job.name, job.topic)
    topic_id = lab.broker.admin().topics([job.topic])[job.topic].topic_id
    envelope = Envelope(job.name, subscription.dead_letter_topic, topic_id, "5f" * 32)
    failure = failure_of(0, ContractError("no price for the product", path="lines[0].price"))
    producer = lab.broker.producer(f"{job.name}.filler")
    producer.init(TIMEOUT_S)
    for start in range(0, entries, FILL):
        producer.begin()
        producer.produce(
            envelope.failed(_parked(job, number), failure, State.DEAD)
            for number in range(start, min(start + FILL, entries))
        )
        producer.commit(TIMEOUT_S)
    producer.close()


def _parked(job: Job, number: int) -> Record:
    partition = number % job.partitions
    seven = headers(number, time_text(START))
    return Record(job.topic, partition, BEYOND + number, b"default/PARKED-%d" % number, b"an order", seven, 0)


def _killed(lab: Lab, side: Side, records: int) -> Result:
    """Two workers on an empty topic; orders come; one worker is killed once a tenth of them is through: so early that
    most are still to be done when that is seen."""
    records *= KILL_SHARE
    topic = "bench.orders.killed"
    lab.create(topic)
    job = lab.job(side, topic, batch=500, instances=2)
    admin, starts = lab.broker.admin(), lab.target_ends()
    victim, survivor = processes = [lab.start(side, replace(job, instance=number)) for number in range(2)]
    lab.until(lambda: admin.group_members([job.name]) == {job.name: 2}, processes, "two members of the group")
    loading = threading.Thread(target=lab.load, args=(topic, records))
    loading.start()
    lab.until(lambda: _through(lab, starts) > records // 10, processes, "a tenth of the outputs")
    victim.kill()
    loading.join()
    lab.drained(job, [survivor])
    [result] = _stopped(side, [survivor])
    check(side, lab.frames, lab.written_since(starts), records)
    found = lab.read(Subscription(job.name, topic).dead_letter_topic, dict.fromkeys(range(job.partitions), 0))
    dead_letters = {record.key for record in found}
    if len(dead_letters) != bad_ones(records):
        sys.exit(f"{len(dead_letters)} dead letters instead of {bad_ones(records)}")
    by_killed = records - result["records"]
    if not 0 < by_killed < records // 2:
        sys.exit(f"the killed worker had done {by_killed:,} of {records:,}: it was not killed in the middle")
    return {
        "records": records,
        "by_killed": by_killed,
        "by_survivor": result["records"],
        "dead_letters": len(dead_letters),
    }


def _through(lab: Lab, starts: Mapping[int, int]) -> int:
    """About how many outputs are there: what marks a transaction's end counts too."""
    return sum(lab.target_ends().values()) - sum(starts.values())


def _report(rows: Sequence[Result], killed: Result | None, options: argparse.Namespace) -> None:
    print(f"\n{machine()}\nup to {options.records:,} orders, medians of {options.runs} runs; Heddle: {options.codec}")
    for part, title in TITLES.items():
        cells = [
            (
                row["label"],
                *(f"{row[side]['cpu_us_per_record']:.1f}" for side in ("copy", "heddle")),
                f"{row['ratio']['median']:.2f}x",
                *(f"{row[side]['records_per_s']:,.0f}" for side in ("copy", "heddle")),
                f"{row['heddle']['rss_mib']:.0f}",
            )
            for row in rows
            if row["part"] == part
        ]
        if cells:
            print(
                "\n" + table((title, "copy µs", "heddle µs", "ratio", "copy rec/s", "heddle rec/s", "RSS MiB"), cells)
            )
    if killed:
        print(
            f"\ntwo workers, one killed when it had done {killed['by_killed']:,} of {killed['records']:,}: every "
            f"output there once and equal to the reference, {killed['dead_letters']} dead letters as there should be"
        )


if __name__ == "__main__":
    main()
