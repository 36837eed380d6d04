"""Options of commands reach what they are for, and every command finds its queue, served or not."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import pytest

from osqueue import Broker, Client
from tests.cli.command_line import DEADLINE_S, document, documents, environment, osqueue, succeed
from tests.e2e.running_command import RunningCommand

HANDLERS = """
import os, time
from osqueue import SoftTimeout

def pid(payload):
    return os.getpid()

def sleep(payload):
    time.sleep(60)

def catch(payload):
    try:
        time.sleep(60)
    except SoftTimeout:
        return "caught"

def fail(payload):
    raise ValueError(payload)
"""


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    (tmp_path / "handlers.py").write_text(HANDLERS)
    return tmp_path


def test_work_replaces_workers_after_so_many_jobs(directory: Path) -> None:
    succeed("push", "jobs", "--file", "-", cwd=directory, stdin="1\n2\n3\n4\n")
    succeed("work", "jobs", "handlers:pid", "-j", "1", "--max-tasks-per-child", "2", "--burst", cwd=directory)

    assert len({record["result"] for record in documents("history", "jobs", cwd=directory)}) == 2


def test_works_soft_timeout_is_raised_in_the_handler(directory: Path) -> None:
    succeed("push", "jobs", "1", cwd=directory)
    succeed("work", "jobs", "handlers:catch", "-j", "1", "--soft-timeout", "200ms", "--burst", cwd=directory)

    assert document("show", "jobs", "1", cwd=directory)["result"] == "caught"


@pytest.mark.parametrize("pushed", [True, False], ids=["push --timeout", "work --timeout"])
def test_a_timeout_ends_an_attempt_that_takes_longer(pushed: bool, directory: Path) -> None:
    timeout = ["--timeout", "300ms"]
    succeed("push", "jobs", "1", "--max-attempts", "1", *(timeout if pushed else []), cwd=directory)
    done = osqueue("work", "jobs", "handlers:sleep", "-j", "1", "--burst", *([] if pushed else timeout), cwd=directory)

    assert done.returncode == 1
    (dead,) = documents("list", "jobs", cwd=directory)
    assert [error["error_type"] for error in dead["errors"]] == ["JobTimeout"]


def delays_of_retries(directory: Path, retry_backoff: str, jobs: int) -> list[float]:
    """In how many seconds jobs that have failed once are due, under this back-off."""
    succeed("push", "jobs", "1", cwd=directory)
    with RunningCommand(directory, "serve", "jobs", "--retry-backoff", retry_backoff) as serving:
        serving.wait_until_it_says("serving")
        with Client.connect(directory / "jobs") as client:
            delays = []
            for _ in range(jobs):
                job = client.claim(wait=20)
                assert job is not None
                client.fail(job, "no")
                (record,) = client.list()
                assert record.due_at is not None
                due = datetime.fromisoformat(record.due_at) - datetime.fromisoformat(record.errors[-1].at)
                delays.append(due.total_seconds())
                client.cancel(job.id)
                client.push(b"2")
    return delays


def test_served_retries_come_within_the_back_off_that_was_stated(directory: Path) -> None:
    delays = delays_of_retries(directory, "10m", jobs=5)

    assert max(delays) > 10, "one second, the default, would have been the most"
    assert max(delays) <= 600.25


def test_a_first_back_off_above_the_usual_longest_one_is_the_longest_itself(directory: Path) -> None:
    assert max(delays_of_retries(directory, "1h", jobs=3)) <= 3600.25


COMMANDS = {
    "push": ["push", "jobs", "4"],
    "status": ["status", "jobs"],
    "list": ["list", "jobs"],
    "show": ["show", "jobs", "1"],
    "requeue": ["requeue", "jobs", "1"],
    "discard": ["discard", "jobs", "1"],
    "cancel": ["cancel", "jobs", "2"],
    "history": ["history", "jobs", "--since", "1h"],
    "prune": ["prune", "jobs", "--older-than", "1h"],
    "verify": ["verify", "jobs"],
    "work": ["work", "jobs", "handlers:pid", "-j", "1", "--burst"],
}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("is_served", [False, True], ids=["unserved", "served"])
def test_every_command_works_on_a_queue_whoever_has_it_open(command: str, is_served: bool, directory: Path) -> None:
    with Broker.open(directory / "jobs", max_attempts=1) as broker:
        broker.push_many([b"1", b"2", b"3"])
        broker.cancel(3)
        job = broker.claim()
        assert job is not None
        broker.fail(job, "no")

    with Broker.open(directory / "jobs") if is_served else contextlib.nullcontext():
        assert succeed(*COMMANDS[command], cwd=directory)


def test_a_table_says_the_same_as_json_of_every_reading_command(directory: Path) -> None:
    succeed("push", "jobs", '{"a": 1}', "--task", "resize", cwd=directory)

    assert "resize" in succeed("list", "jobs", cwd=directory)
    assert document("show", "jobs", "1", cwd=directory)["payload"] == {"a": 1}
    assert document("verify", "jobs", cwd=directory)["problems"] == []


@pytest.mark.parametrize(
    "command", [["run", "handlers:pid", "--file", "items"], ["work", "jobs", "handlers:pid", "--burst"]]
)
def test_the_current_directory_is_importable_for_an_installed_command(command: list[str], directory: Path) -> None:
    """Its interpreter has the directory of the script on its path, and not, as with ``-m``, the current one."""
    (directory / "items").write_text("1\n")
    succeed("push", "jobs", "1", cwd=directory)

    done = subprocess.run(
        [sys.executable, "-P", "-m", "osqueue", *command, "-j", "1"],
        cwd=directory,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )

    assert (done.returncode, done.stderr) == (0, "")
