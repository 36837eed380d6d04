#!/usr/bin/env python3
"""SIGKILL the whole program at random moments of a batch, start it again each time, and count what is on disk.

    scripts/torture/kill_program.py [--kills 30] [--jobs 5000] [--seed N] [--dir DIR]

Must hold: every job has exactly one archive record, all succeeded; two seconds after each kill no process of the
program is left; each start goes on at once. The archive is read line by line here, not by osqueue.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

MARK = "OSQUEUE_TORTURE"
PROGRAM = """
import sys, time
from osqueue import LocalPool

def work(payload):
    time.sleep(payload["s"])
    return payload["n"]

if __name__ == "__main__":
    path, jobs, kills = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    begun = time.monotonic()
    with LocalPool(work, workers=8, path=path, max_attempts=kills + 1, retry_backoff=0) as pool:
        pushed = pool.stats().pushed
        before = pool.stats().succeeded
        pool.push_many({"n": n, "s": 0.005 + n % 7 * 0.005} for n in range(pushed, jobs))
        while (stats := pool.stats()).succeeded == before and stats.succeeded < jobs:
            time.sleep(0.01)
        print(f"first {time.monotonic() - begun:.2f}", flush=True)
    print("done", flush=True)
"""


def processes(token: str) -> list[int]:
    """Living processes that carry the token in their environment; zombies that nobody has reaped do not count."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            if f"{MARK}={token}".encode() in (entry / "environ").read_bytes().split(b"\0"):
                state = (entry / "stat").read_text().rsplit(")", 1)[1].split()[0]
                if state not in "ZX":
                    found.append(int(entry.name))
        except OSError:
            continue
    return found


def survivors(token: str, within_s: float) -> list[int]:
    """Who is still there after at most that time."""
    deadline = time.monotonic() + within_s
    while (left := processes(token)) and time.monotonic() < deadline:
        time.sleep(0.02)
    return left


def run_once(program: Path, arguments: list[str], token: str, life_s: float | None) -> tuple[bool, float | None, str]:
    """Start the program and kill it after a time; whether it came to its end, and when its first job had ended."""
    process = subprocess.Popen(
        [sys.executable, str(program), *arguments],
        env={**os.environ, MARK: token},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        out, err = process.communicate(timeout=life_s)
    except subprocess.TimeoutExpired:
        os.kill(process.pid, signal.SIGKILL)
        out, err = process.communicate()
    first = next((float(line.split()[1]) for line in out.splitlines() if line.startswith("first")), None)
    return "done" in out, first, err if process.returncode not in (0, -signal.SIGKILL) else ""


def records(queue: Path) -> list[dict[str, object]]:
    """Every line of every archive object."""
    return [json.loads(line) for path in queue.glob("archive/*/*.jsonl") for line in path.read_text().splitlines()]


def count(queue: Path, jobs: int) -> list[str]:
    """What is wrong with what stands on disk in the end; prints the figures."""
    failures = []
    found = records(queue)
    ids = Counter(record["id"] for record in found)
    states = Counter(record["state"] for record in found)
    attempts = Counter(record["attempts"] for record in found)
    if ids != Counter(range(1, jobs + 1)):
        failures.append(f"records: {len(found)} lines for {len(ids)} ids of {jobs} jobs")
    if set(states) != {"succeeded"}:
        failures.append(f"states: {dict(states)}")
    if sorted(record["result"] for record in found) != list(range(jobs)):  # type: ignore[type-var]
        failures.append("results are not those of the payloads")
    orphans = [*queue.glob("segments/*"), *queue.glob("**/.tmp*"), *queue.glob("blame/*")]
    if orphans:
        failures.append(f"left on disk: {[str(path.relative_to(queue)) for path in orphans][:5]}")
    print(f"jobs={jobs} records={len(found)} states={dict(states)} attempts={dict(sorted(attempts.items()))}")
    return failures


def kill_loop(place: Path, options: argparse.Namespace) -> list[str]:
    """Kill and start again; what went wrong on the way."""
    dice = random.Random(options.seed)
    failures: list[str] = []
    firsts: list[float] = []
    program = place / "program.py"
    program.write_text(PROGRAM)
    arguments = [str(place / "jobs"), str(options.jobs), str(options.kills)]
    for kill in range(options.kills + 1):
        token = f"{options.seed}-{kill}"
        life_s = dice.uniform(0.05, 1.5) if kill < options.kills else None
        ended, first, error = run_once(program, arguments, token, life_s)
        firsts += [] if first is None else [first]
        if error:
            failures.append(f"run {kill} failed: {error.strip().splitlines()[-1]}")
        if left := survivors(token, 2.0):
            failures.append(f"run {kill}: {len(left)} processes left after 2 s")
        if kill == options.kills and not ended:
            failures.append("the last run did not end")
    print(f"kills={options.kills} slowest first result after a start={max(firsts, default=0):.2f} s")
    return failures


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--jobs", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    parser.add_argument("--dir", type=Path, default=None)
    options = parser.parse_args()
    print(f"seed={options.seed}")
    with tempfile.TemporaryDirectory(dir=options.dir) as place:
        failures = kill_loop(Path(place), options)
        failures += count(Path(place, "jobs"), options.jobs)
    for failure in failures:
        print(f"FAILED {failure}")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
