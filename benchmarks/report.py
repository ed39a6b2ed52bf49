"""Puts the figures of benchmarks/out into docs/reference/benchmarks.md, each with its date and machine, and what
matters most of them into the README.

    python -m benchmarks.report

The page's words are written by hand; between `<!-- NAME -->` and `<!-- end -->` stands what NAME.json says. What was
not measured stays as it is."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from textwrap import fill
from typing import Any

from benchmarks.lab import ROOT
from benchmarks.machine import OUT

PAGE, README = ROOT / "docs" / "reference" / "benchmarks.md", ROOT / "README.md"

WIDTH = 120

Figures = dict[str, Any]


def main() -> None:
    paths = {name: OUT / f"{name}.json" for name in PARTS}
    found = {name: json.loads(path.read_text(encoding="utf-8")) for name, path in paths.items() if path.exists()}
    page = PAGE.read_text(encoding="utf-8")
    for name, figures in found.items():
        page = filled(page, name, written(figures, PARTS[name]))
        print(f"{name}: measured {figures['date']}")
    PAGE.write_text(page, encoding="utf-8")
    if {"worker", "codec", "sql", "gateway"} <= found.keys():
        README.write_text(filled(README.read_text(encoding="utf-8"), "headlines", headlines(found)), encoding="utf-8")
    else:
        print("README: left as it is; it wants worker, codec, sql and gateway")


def filled(page: str, name: str, text: str) -> str:
    """The page with `text` in the place of that name. Raises ValueError where it has none."""
    place = re.compile(rf"(<!-- {name} -->\n).*?(<!-- end -->)", re.DOTALL)
    page, found = place.subn(lambda match: f"{match[1]}{text}{match[2]}", page)
    if found != 1:
        raise ValueError(f"there are {found} places for {name}")
    return page


def written(figures: Figures, write: Callable[[Figures], Iterator[str]]) -> str:
    """Paragraphs are wrapped, tables are not."""
    versions = ", ".join(f"{name} {number}" for name, number in figures["versions"].items())
    machine, _, _ = figures["machine"].partition(", Python")
    lines = [f"{figures['date'][:10]}; {machine}, load {figures['load']}; {versions}.", "", *write(figures), ""]
    return "\n".join(line if line.startswith("|") else fill(line, WIDTH, break_on_hyphens=False) for line in lines)


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    yield _row(heads)
    yield _row(["---", *("--:" for _ in heads[1:])])
    yield from map(_row, rows)


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def headlines(found: Mapping[str, Figures]) -> str:
    """The README's table."""
    worker, codec, sql, gateway = (found[name] for name in ("worker", "codec", "sql", "gateway"))
    machine, _, _ = worker["machine"].partition(", confluent-kafka")
    copy = worker["copy"]["cpu_us_per_record"]
    engines = [(name, label) for name, label in (("python", "Python"), ("native", "native")) if name in worker]
    rows = [
        (
            f"worker, {label} engine, CPU a record",
            f"{worker[name]['cpu_us_per_record']:.1f} µs, {worker[name]['rss_mib']:.0f} MiB",
            f"raw copy {copy:.1f} µs; by hand with fastavro {worker['fastavro']['cpu_us_per_record']:.1f} µs",
        )
        for name, label in engines
    ]
    rows += [
        (
            f"codec alone, {label} engine",
            f"{codec['codec'][name]['min_us']:.2f} µs",
            f"fastavro and a dict {codec['codec']['fastavro']['min_us']:.1f} µs",
        )
        for name, label in engines
        if name in codec["codec"]
    ]
    size, batch = next(iter(sql["batches"].items()))
    sink, bare = batch["median"]["sink"]["rows_per_s"], batch["median"]["bare-copy"]["rows_per_s"]
    rows.append((f"SQL sink, {int(size):,} a transaction", f"{sink:,.0f} rows/s", f"bare COPY and upsert {bare:,.0f}"))
    median = gateway["median"]
    latencies = f"2xx: p50 {median['p50_ms']:.0f} ms, p99 {median['p99_ms']:.0f} ms"
    rows.append(("gateway, signed deliveries", f"{median['per_cpu_second']:,.0f} a CPU-second", latencies))
    return "\n".join([f"On {worker['date'][:10]}, {machine}:", "", *table(("what", "figure", "beside"), rows), ""])


def codec(figures: Figures) -> Iterator[str]:
    yield (
        f"{figures['records']:,} orders of {figures['value_bytes']} bytes, batches of {figures['batch']:,}, "
        f"{figures['rounds']} interleaved rounds. µs of CPU a record; the last column is by hand / this, least ones."
    )
    yield ""
    rows = (
        (
            side["label"],
            f"{side['min_us']:.2f}",
            f"{side['median_us']:.2f}",
            f"{figures['step'][name]['min_us']:.2f}",
            f"{side['times_by_hand']:.1f}",
        )
        for name, side in figures["codec"].items()
    )
    yield from table(("codec", "least", "median", "with ids and headers, least", "times as fast"), rows)


def objects(figures: Figures) -> Iterator[str]:
    yield (
        f"{figures['records']:,} orders of {figures['value_bytes']} bytes, batches of {figures['batch']:,}, "
        f"{figures['rounds']} interleaved rounds. µs of CPU a record, least ones."
    )
    yield ""
    rows = (
        (side["label"], f"{side['min_us']:.1f}", f"{figures['encode'][name]['min_us']:.1f}")
        for name, side in figures["decode"].items()
    )
    yield from table(("", "bytes to objects", "objects to bytes"), rows)


def worker(figures: Figures) -> Iterator[str]:
    sides = {name: side for name, side in figures.items() if isinstance(side, dict) and "runs" in side}
    runs = len(next(iter(sides.values()))["runs"])
    native = "" if "native" in sides else " The native engine was not installed."
    yield (
        f"{figures['records']:,} orders of {figures['value_bytes']} bytes, up to {figures['batch']:,} a transaction; "
        f"medians of {runs} runs.{native}"
    )
    yield ""
    rows = (
        (
            side["label"],
            f"{side['cpu_us_per_record']:.1f}",
            f"{figures['ratios'][f'{name}/copy']['median']:.2f}" if f"{name}/copy" in figures["ratios"] else "",
            f"{side['records_per_s']:,.0f}",
            f"{side['rss_mib']:.0f}",
        )
        for name, side in sides.items()
    )
    yield from table(("one process", "CPU µs a record", "times the copy's", "records/s wall", "peak RSS MiB"), rows)
    if "audit_us_per_record" in figures:
        yield ""
        costs = [f"{us:.2f} µs with the {engine} engine" for engine, us in figures["audit_us_per_record"].items()]
        yield f"The audit trail is {' and '.join(costs)} of that; about zero or less is less than the runs differ."


def scale(figures: Figures) -> Iterator[str]:
    yield f"Heddle with HEDDLE_CODEC={figures['codec']}. µs of CPU a record."
    yield ""
    rows = (
        (
            f"{row['part']}: {row['label']}",
            f"{row['value_bytes']:,}",
            f"{row['copy']['cpu_us_per_record']:.1f}",
            f"{row['heddle']['cpu_us_per_record']:.1f}",
            f"{row['ratio']['median']:.2f}",
            f"{row['heddle']['records_per_s']:,.0f}",
            f"{row['heddle']['rss_mib']:.0f}",
        )
        for row in figures["cases"]
    )
    yield from table(("", "bytes", "copy", "heddle", "times", "heddle records/s wall", "peak RSS MiB"), rows)
    killed = figures["killed"]
    if killed:
        yield ""
        yield (
            f"Two workers, one killed (-9) when it had done {killed['by_killed']:,} of {killed['records']:,} orders: "
            "every output was there once and equal to the reference, every bad order in the dead letters."
        )


def latency(figures: Figures) -> Iterator[str]:
    rate = figures["saturated_records_per_s"]
    yield f"Milliseconds. Heddle with HEDDLE_CODEC={figures['codec']}, saturated at {rate:,.0f} records/s."
    yield ""
    rows = (
        (
            f"{row['profile']}, {row['share']:.0%}",
            f"{row['records_per_s']:,.0f}",
            *(f"{row[side][figure]:.1f}" for figure in ("p50_ms", "p99_ms") for side in ("copy", "heddle")),
            f"{row['p99_ratio']:.2f}",
            f"{row['late_p99_ms']:.1f}",
        )
        for row in figures["rows"]
    )
    times = ("copy p50", "heddle p50", "copy p99", "heddle p99", "p99, times", "offered late, p99")
    heads = ("profile, share", "records/s", *times)
    yield from table(heads, rows)


def sql(figures: Figures) -> Iterator[str]:
    yield f"{figures['events']:,} events, one connection. Rows a second wall, µs of client CPU an event."
    yield ""
    rows = (
        (
            f"{name}, {int(size):,} a transaction",
            f"{median['rows_per_s']:,.0f}",
            f"{median['client_cpu_us_per_event']:.1f}",
            f"{median.get('server_cpu_us_per_event', 0):.1f}",
        )
        for size, batch in figures["batches"].items()
        for name, median in batch["median"].items()
    )
    yield from table(("side", "rows/s", "client CPU", "server CPU"), rows)


def gateway(figures: Figures) -> Iterator[str]:
    median = figures["median"]
    yield (
        f"{figures['deliveries']:,} signed deliveries of {figures['body_bytes']:,} bytes over "
        f"{figures['connections']} connections, each answered after the broker's acknowledgement."
    )
    yield ""
    row = (
        f"{median['per_cpu_second']:,.0f}",
        f"{median['per_second']:,.0f}",
        f"{median['p50_ms']:.1f}",
        f"{median['p99_ms']:.1f}",
    )
    yield from table(("a CPU-second", "a second", "p50 ms", "p99 ms"), [row])


def capture(figures: Figures) -> Iterator[str]:
    yield f"{figures['records']:,} single-row inserts, each its own transaction; the least of the runs."
    yield ""
    rows = (
        (
            label,
            f"{figures['least'][name]['whole_us']:.1f}",
            f"{figures['least'][name]['steady_us']:.1f}",
            f"{figures['least'][name]['per_second']:,.0f}",
            f"{figures['least'][name]['rss_mib']:.0f}",
        )
        for name, label in (("heddle", "captured into a contract topic, exactly once"), ("bare", "read and decoded"))
    )
    yield from table(("", "CPU µs a row, start-up included", "second half", "rows/s wall", "peak RSS MiB"), rows)


def dead_letters(figures: Figures) -> Iterator[str]:
    versions, partitions = figures["versions_of_each"], figures["partitions"]
    yield f"{figures['entries']:,} entries in {partitions} partitions, {versions} versions of each."
    yield ""
    rows = (
        (
            label,
            f"{max(run['wall_s'] for run in figures[name]):.1f}",
            f"{max(run['rss_mib'] for run in figures[name]):.0f}",
        )
        for name, label in (
            ("page", "first page of `heddle dlq list`"),
            ("grouped", "grouped by fingerprint"),
            ("restore", "a worker restores one partition"),
        )
    )
    yield from table(("", "slowest, s", "peak RSS MiB"), rows)


PARTS: dict[str, Callable[[Figures], Iterator[str]]] = {
    "worker": worker,
    "codec": codec,
    "objects": objects,
    "scale": scale,
    "latency": latency,
    "sql": sql,
    "gateway": gateway,
    "capture": capture,
    "dead_letters": dead_letters,
}

if __name__ == "__main__":
    main()
