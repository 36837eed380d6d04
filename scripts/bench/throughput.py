#!/usr/bin/env python3
"""No-op jobs a second, durable, from the first `push_many` to the last archive record.

    scripts/bench/throughput.py [--jobs 300000] [--workers 8] [--rounds 5] [--dir DIR]

Each round takes a new directory; the clock stops when every job's record stands in a closed archive. Beside it, in
the same round, `ProcessPoolExecutor.map` with chunks of 100, which keeps nothing.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from osqueue import LocalPool

PAYLOAD = {"image": "a" * 70}


def nothing(payload: dict[str, str]) -> None:
    """The job."""


def durable(place: Path, jobs: int, workers: int) -> tuple[float, float]:
    """Jobs a second until `join` returned, and until the archive was closed."""
    with LocalPool(nothing, workers=workers, path=place) as pool:
        list(pool.map([PAYLOAD] * workers * 4))
        begun = time.perf_counter()
        pool.push_many(PAYLOAD for _ in range(jobs))
        pool.join()
        joined = time.perf_counter() - begun
    closed = time.perf_counter() - begun
    lines = sum(path.read_bytes().count(b"\n") for path in place.glob("archive/*/*.jsonl"))
    assert lines == jobs + workers * 4, f"{lines} records for {jobs} jobs"
    return jobs / joined, jobs / closed


def executor(jobs: int, workers: int) -> float:
    """The standard library's pool, for scale."""
    with ProcessPoolExecutor(workers, mp_context=get_context("forkserver")) as pool:
        list(pool.map(nothing, [PAYLOAD] * workers * 4))
        begun = time.perf_counter()
        for _ in pool.map(nothing, (PAYLOAD for _ in range(jobs)), chunksize=100):
            pass
        return jobs / (time.perf_counter() - begun)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=300_000)
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--dir", type=Path, default=None)
    options = parser.parse_args()
    rows = []
    for number in range(options.rounds):
        with tempfile.TemporaryDirectory(dir=options.dir) as place:
            joined, closed = durable(Path(place, "jobs"), options.jobs, options.workers)
        plain = executor(options.jobs, options.workers)
        rows.append((joined, closed, plain))
        print(
            f"round {number + 1}: joined {joined:,.0f}/s, closed {closed:,.0f}/s, executor {plain:,.0f}/s", flush=True
        )
    joined, closed, plain = (statistics.median(column) for column in zip(*rows, strict=True))
    print(f"median: joined {joined:,.0f}/s, archive closed {closed:,.0f}/s, not durable {plain:,.0f}/s")
    print(f"ratio to the executor: {statistics.median(row[1] / row[2] for row in rows):.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
