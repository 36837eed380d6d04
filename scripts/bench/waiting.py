#!/usr/bin/env python3
"""What a large backlog costs: a million waiting jobs against an empty queue, on this machine's disk.

    scripts/bench/waiting.py [--jobs 1000000] [--dir DIR] [--rounds 40]

Prints the root's size, the time of a durable single push (medians of alternating rounds, and their ratio), the time to
open the queue again, and the memory of the broker and of the process that pushed.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from osqueue import Broker, Client, LocalPool

PAYLOAD_BYTES = 90
PUSHES = 25


def wait_for_file(payload: dict[str, str]) -> None:
    """Occupies the pool's one worker until the benchmark is over."""
    while not Path(payload["until"]).exists():
        time.sleep(0.05)


def rss_kib(pid: int) -> int:
    """Resident memory of a process."""
    status = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS"))


def broker_pid() -> int:
    """The pool's broker: our child that was started with a control descriptor."""
    children = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()
    threads = Path(f"/proc/{os.getpid()}/task").iterdir()
    children += [pid for thread in threads for pid in (thread / "children").read_text().split()]
    return next(int(pid) for pid in children if b"--control" in Path(f"/proc/{pid}/cmdline").read_bytes())


def payloads(jobs: int) -> Iterator[dict[str, str]]:
    """Values whose JSON has `PAYLOAD_BYTES` bytes."""
    blank = len('{"until":""}')
    return ({"until": f"{n:0{PAYLOAD_BYTES - blank}d}"} for n in range(jobs))


def median_push_ms(client: Client) -> float:
    """The median time of a few durable single pushes."""
    times = []
    for _ in range(PUSHES):
        begun = time.perf_counter()
        client.push(b'{"until":"x"}', task="nobody")
        times.append(time.perf_counter() - begun)
    return statistics.median(times) * 1000


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--dir", type=Path, default=None)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.dir) as place:
        full, empty, until = Path(place, "full"), Path(place, "empty"), Path(place, "until")
        pool = LocalPool(wait_for_file, workers=1, path=full)
        pool.push({"until": str(until)})
        before_kib = rss_kib(os.getpid())
        begun = time.perf_counter()
        pool.push_many(payloads(options.jobs))
        took = time.perf_counter() - begun
        grown_kib = rss_kib(os.getpid()) - before_kib
        broker_kib = rss_kib(broker_pid())
        root_bytes = (full / "queue.json").stat().st_size
        with Broker.open(empty), Client.connect(full) as on_full, Client.connect(empty) as on_empty:
            rounds = [(median_push_ms(on_empty), median_push_ms(on_full)) for _ in range(options.rounds)]
            after_kib = rss_kib(broker_pid())
        until.touch()
        pool.stop(grace=1)
        begun = time.perf_counter()
        with Broker.open(full) as broker:
            opened_s = time.perf_counter() - begun
            waiting = broker.stats().ready
    ratio = statistics.median(on_full / on_empty for on_empty, on_full in rounds)
    print(f"push_many           {options.jobs / took:,.0f} jobs/s, waiting={waiting:,}")
    print(f"queue.json          {root_bytes:,} bytes (limit 131,072)")
    print(f"push, empty queue   {statistics.median(a for a, _ in rounds):.3f} ms")
    print(f"push, full queue    {statistics.median(b for _, b in rounds):.3f} ms")
    print(f"ratio of medians    {ratio:.2f} (limit 1.5)")
    print(f"open again          {opened_s:.3f} s (limit 0.3)")
    print(f"broker memory       {broker_kib / 1024:.0f} MiB, later {after_kib / 1024:.0f} MiB (limit 200)")
    print(f"pusher has grown    {grown_kib / 1024:.1f} MiB (limit 20)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
