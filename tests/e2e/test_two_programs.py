"""Two programs, one queue: one runs the jobs, the other joins, pushes them and waits, while brokers are killed."""

from __future__ import annotations

import os
import signal
import sys
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.cli.command_line import succeed
from tests.e2e.program import Program, broker_of
from tests.e2e.running_command import RunningCommand, nothing_runs_in
from tests.e2e.waiting import wait_for

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc"),
    pytest.mark.slow,
    pytest.mark.timeout(600),
]

JOBS = 10_000
KILLED_AT = (2_000, 6_000)
ENDED_S = 400

HANDLER = """
import os, time

def square(number):
    # One write to a file that is open for appending: lines of several workers do not mix.
    log = os.open("ran", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(log, f"{number:07}\\n".encode())
    os.close(log)
    time.sleep(0.001)
    return number * number
"""

WITH_POOL = (
    """
import pathlib
from osqueue import LocalPool
"""
    + HANDLER
    + """
if __name__ == "__main__":
    with LocalPool(square, workers=2, path="jobs") as pool:
        pathlib.Path("open").touch()
        while not pathlib.Path("go").exists():
            time.sleep(0.01)
    print("left")
"""
)

JOINING = """
import concurrent.futures
from osqueue import Client

JOBS, SINGLE = 10_000, 1_000

def push(client, number):
    return client.push(b"%d" % number)

if __name__ == "__main__":
    with Client.connect("../jobs") as client:
        ids = {}
        with concurrent.futures.ThreadPoolExecutor(4) as threads:
            single = {number: threads.submit(push, client, number) for number in range(SINGLE)}
            for first in range(SINGLE, JOBS, 1000):
                numbers = range(first, first + 1000)
                ids.update(zip(numbers, client.push_many(b"%d" % number for number in numbers), strict=True))
            ids.update((number, future.result()) for number, future in single.items())
        assert len(set(ids.values())) == JOBS, "ids are unique"
        stats = client.wait_idle()
        assert (stats.pushed, stats.succeeded) == (JOBS, JOBS), stats
        results = {}
        for record in client.history():
            assert record.id not in results, f"two records of one job id={record.id}"
            assert record.state == "succeeded", record
            results[record.id] = record.result
        assert results == {job_id: b"%d" % number**2 for number, job_id in ids.items()}
        for number in range(0, JOBS, 100):
            assert client.get(ids[number]).result == b"%d" % number**2
    print("all results are there")
"""


@pytest.fixture
def pushing(tmp_path: Path) -> Path:
    """Where the second program runs."""
    place = tmp_path / "pushing"
    place.mkdir()
    return place


def ran(directory: Path) -> int:
    """How many handlers have begun."""
    log = directory / "ran"
    return log.stat().st_size // 8 if log.exists() else 0


def test_a_client_gets_each_result_once_though_the_pools_broker_is_killed(tmp_path: Path, pushing: Path) -> None:
    first = Program(tmp_path, WITH_POOL)
    try:
        first.wait_for("open")
        second = Program(pushing, JOINING)
        for jobs in KILLED_AT:
            wait_until_some_ran(jobs, tmp_path, second)
            os.kill(broker_of(tmp_path), signal.SIGKILL)

        assert second.end(ENDED_S) == (0, "all results are there\n", "")
    finally:
        (tmp_path / "go").touch()
        ended = first.end()

    assert ended[:2] == (0, "left\n"), ended.err
    each_ran_once(tmp_path)


def test_a_client_gets_each_result_once_though_serve_is_killed_and_restarted(tmp_path: Path, pushing: Path) -> None:
    (tmp_path / "handlers.py").write_text(HANDLER)
    with ExitStack() as running:

        def serve() -> RunningCommand:
            server = running.enter_context(RunningCommand(tmp_path, "serve", "jobs"))
            server.wait_until_it_says("serving")
            return server

        server = serve()
        worker = running.enter_context(RunningCommand(tmp_path, "work", "jobs", "handlers:square", "-j", "2"))
        second = Program(pushing, JOINING)
        running.callback(second.process.kill)
        for jobs in KILLED_AT:
            wait_until_some_ran(jobs, tmp_path, second)
            server.send(signal.SIGKILL)
            server.ended()
            server = serve()

        assert second.end(ENDED_S) == (0, "all results are there\n", "")
        worker.send(signal.SIGTERM)
        assert worker.ended().status == 143
        server.send(signal.SIGTERM)
        assert server.ended()[::2] == (143, "")

    each_ran_once(tmp_path)


def wait_until_some_ran(jobs: int, directory: Path, pushing: Program) -> None:
    wait_for(lambda: ran(directory) >= jobs or pushing.process.poll() is not None, ENDED_S)
    assert pushing.process.poll() is None, pushing.end()


def each_ran_once(directory: Path) -> None:
    """Workers outlive the broker, so that no handler was begun again; nothing is damaged, and nothing is left."""
    nothing_runs_in(directory)
    assert Counter(map(int, (directory / "ran").read_text().split())) == Counter(range(JOBS))
    assert succeed("verify", "jobs", cwd=directory).startswith(f"0 jobs wait or run, 0 dead, {JOBS} finished; ")
