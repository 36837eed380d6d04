"""A large batch whose jobs fail at random, in a program that is killed meanwhile: each job has exactly one fate."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from osqueue import Broker, Client, JobRecord, Unavailable
from tests.cli.command_line import document
from tests.e2e.program import Program
from tests.e2e.root_size import RootSize
from tests.e2e.running_command import nothing_runs_in

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc"),
    pytest.mark.slow,
    pytest.mark.timeout(900),
]

JOBS = 100_000
WORKERS = 4
MAX_ATTEMPTS = 4
KILLED_AT = (JOBS // 4, JOBS // 2)
ENDED_S = 600
PROGRAM = f"""
import pathlib, random
from osqueue import LocalPool

def flaky(number):
    if random.random() < 0.3:
        raise ValueError(f"no {{number}}")
    return number + 1

if __name__ == "__main__":
    with LocalPool(flaky, workers={WORKERS}, path="jobs", retry_backoff=0.2) as pool:
        pool.push_many(range(pool.stats().pushed, {JOBS}))
    print("done")
"""


def test_each_of_100_000_failing_jobs_has_one_fate_though_the_program_is_killed(tmp_path: Path) -> None:
    queue = tmp_path / "jobs"
    with RootSize(queue):
        for jobs in KILLED_AT:
            program = Program(tmp_path, PROGRAM)
            wait_until_ended(jobs, queue, program)
            program.process.kill()
            program.end()
            nothing_runs_in(tmp_path)
        ended = Program(tmp_path, PROGRAM).end(ENDED_S)

    assert (ended.status, ended.out) == (0, "done\n")
    records = all_records(queue)
    assert Counter(record.id for record in records) == Counter(range(1, JOBS + 1))
    for record in records:
        check(record)
    lost = sum(error.error_type == "HostLost" for record in records for error in record.errors)
    assert lost <= WORKERS * len(KILLED_AT), "a kill is charged to what ran, and to nothing else"
    dead = sum(record.state == "dead" for record in records)
    assert 0 < dead < JOBS // 20
    found = document("verify", "jobs", cwd=tmp_path)
    assert (found["problems"], found["waiting"]) == ([], 0)
    assert (found["dead"], found["finished"]) == (dead, JOBS - dead)


def wait_until_ended(jobs: int, queue: Path, program: Program) -> None:
    """Wait until so many jobs have succeeded or are dead."""
    deadline = time.monotonic() + ENDED_S
    while joined(queue, lambda client: client.stats().succeeded + client.stats().dead) < jobs:
        assert program.process.poll() is None, program.end()
        assert time.monotonic() < deadline
        time.sleep(0.05)


def joined(queue: Path, ask: Callable[[Client], int]) -> int:
    try:
        with Client.connect(queue) as client:
            return ask(client)
    except Unavailable:  # it has not been opened yet
        return 0


def all_records(queue: Path) -> list[JobRecord]:
    with Broker.open(queue) as broker:
        return [*broker.history(), *broker.dead()]


def check(record: JobRecord) -> None:
    """What is on record of a job is of a piece."""
    assert 1 <= record.attempts <= MAX_ATTEMPTS
    assert [error.attempt for error in record.errors] == [*range(1, len(record.errors) + 1)]
    if record.state == "succeeded":
        assert record.result == b"%d" % (int(record.payload) + 1)
        assert len(record.errors) == record.attempts - 1
    else:
        assert record.state == "dead"
        assert len(record.errors) == record.attempts == MAX_ATTEMPTS
