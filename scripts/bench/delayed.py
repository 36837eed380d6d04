#!/usr/bin/env python3
"""How late delayed jobs begin: very many, due within some minutes, while the program is stopped and killed between.

    scripts/bench/delayed.py [--jobs 20000] [--within 120] [--dir DIR]

The program with the pool is stopped with SIGTERM at a third of the time, killed with SIGKILL at two thirds, and started
again at once. Prints how late jobs began by the wall clock: those due in peace, and those due between a stop and the
moment `SETTLED_S` after the next pool is open (at the beginning, after the last push). Fails if one began early, if the
root was ever above 128 KiB, if a job has no record, or if one that was due in peace began later than `--late` seconds.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

import msgspec

from osqueue import Broker

SETTLED_S = 3
ROUNDED_S = 0.125
"""Due times are rounded up to so much, so that a job due a little before a stop is due in it."""
ROOT_BYTES = 128 * 1024
PROGRAM = """
import pathlib, random, signal, sys, time
from osqueue import LocalPool

def begun(delay):
    return {"begun": time.time(), "delay": delay}

def stop(number, frame):
    raise SystemExit(0)

if __name__ == "__main__":
    place, jobs, within = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
    signal.signal(signal.SIGTERM, stop)
    with LocalPool(begun, workers=2, path=place + "/queue", max_attempts=20, retry_backoff=0) as pool:
        if not pool.stats().pushed:
            dice = random.Random(jobs)
            # Some at a time have the same delay: 100 that were pushed together become due together.
            for _ in range(jobs // 100):
                delay = dice.uniform(0, within)
                pool.push_many([delay] * 100, delay=delay)
            pathlib.Path(place, "pushed").touch()
        pathlib.Path(place, sys.argv[4]).touch()
        pool.join()
"""


class Watch(NamedTuple):
    """What was seen while the program ran."""

    root_bytes: int
    stops: list[tuple[float, float]]
    """From when until when jobs may be late."""


class Begun(NamedTuple):
    due_s: float
    late_s: float


def seconds(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


class Run:
    """One batch, with its restarts."""

    def __init__(self, place: Path, jobs: int, within_s: float) -> None:
        self._place = place
        self._jobs = jobs
        self._within_s = within_s
        self._starts = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._root_bytes = 0
        (place / "program.py").write_text(textwrap.dedent(PROGRAM))

    def watch(self) -> Watch:
        """Run it to its end."""
        try:
            return self._watch()
        finally:
            if self._process is not None:
                self._process.kill()
                self._process.wait()

    def _watch(self) -> Watch:
        self._start()
        self._until((self._place / "pushed").exists)
        pushed_s = time.time()
        stops = [(0.0, pushed_s + SETTLED_S)]
        for part, number in ((1 / 3, signal.SIGTERM), (2 / 3, signal.SIGKILL)):
            self._until(lambda part=part: time.time() > pushed_s + self._within_s * part)
            stopped_s = time.time()
            self._process.send_signal(number)
            self._process.wait()
            self._start()
            self._until((self._place / f"open-{self._starts}").exists)
            stops.append((stopped_s - ROUNDED_S, time.time() + SETTLED_S))
        self._until(lambda: self._process.poll() is not None)
        return Watch(self._root_bytes, stops)

    def _start(self) -> None:
        self._starts += 1
        arguments = [self._place, self._jobs, self._within_s, f"open-{self._starts}"]
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
        program = [sys.executable, str(self._place / "program.py"), *map(str, arguments)]
        self._process = subprocess.Popen(program, env=environment)

    def _until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            if self._process.poll():
                raise SystemExit(f"the program has failed status={self._process.returncode}")
            with contextlib.suppress(FileNotFoundError):  # not made yet
                self._root_bytes = max(self._root_bytes, (self._place / "queue" / "queue.json").stat().st_size)
            time.sleep(0.005)


def begun_jobs(place: Path, jobs: int) -> list[Begun]:
    """When each job was due, and how much later it began; fails unless each has succeeded once."""
    found: dict[int, Begun] = {}
    with Broker.open(place / "queue") as broker:
        for record in broker.history():
            if record.state != "succeeded" or record.id in found or record.result is None:
                raise SystemExit(f"not one success of a job id={record.id} state={record.state}")
            result = msgspec.json.decode(record.result)
            due_s = seconds(record.pushed_at) + result["delay"]
            found[record.id] = Begun(due_s, result["begun"] - due_s)
    if len(found) != jobs:
        raise SystemExit(f"jobs without a record expected={jobs} found={len(found)}")
    return list(found.values())


def told(name: str, jobs: list[Begun]) -> None:
    late = sorted(job.late_s for job in jobs)
    if late:
        points = "  ".join(f"{p} % {late[min(len(late) - 1, len(late) * p // 100)]:.3f}" for p in (50, 90, 99))
        print(f"{name:<20}{len(late):>7,} jobs, late by s: least {late[0]:.3f}  {points}  most {late[-1]:.3f}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=20_000, help="a multiple of 100")
    parser.add_argument("--within", type=float, default=120)
    parser.add_argument("--late", type=float, default=0.5)
    parser.add_argument("--dir", type=Path, default=None)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.dir) as directory:
        place = Path(directory)
        watch = Run(place, options.jobs, options.within).watch()
        jobs = begun_jobs(place, options.jobs)
    stopped = [job for job in jobs if any(a <= job.due_s <= b for a, b in watch.stops)]
    peaceful = [job for job in jobs if not any(a <= job.due_s <= b for a, b in watch.stops)]
    told("due in peace", peaceful)
    told("due near a start", stopped)
    print(f"queue.json          {watch.root_bytes:,} bytes at most (limit {ROOT_BYTES:,})")
    early = [job for job in jobs if job.late_s < 0]
    late = [job for job in peaceful if job.late_s > options.late]
    print(f"early {len(early)}, in peace later than {options.late} s {len(late)}")
    return int(bool(early or late or watch.root_bytes > ROOT_BYTES))


if __name__ == "__main__":
    sys.exit(main())
