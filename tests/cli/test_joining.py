"""Commands that run at once, and beside programs that come and go, on a queue that nobody keeps open."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from osqueue import Broker
from tests.cli.command_line import DEADLINE_S, arguments_for, document, documents, environment, osqueue, succeed

ROUNDS = 4
AT_ONCE = 8

LOCKING = """
import pathlib, sys, time
from osqueue.storage import open_directory
storage = open_directory("jobs")
pathlib.Path("locked").touch()
time.sleep(600)
"""

SERVING = """
import pathlib, sys, time
from osqueue import Broker
with Broker.open("jobs"):
    pathlib.Path("serving").touch()
    sys.stdin.read()
"""


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not path.exists():
        assert time.monotonic() < deadline, f"{path.name} did not appear"
        time.sleep(0.02)


def program(source: str, directory: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", source], cwd=directory, env=environment(), stdin=subprocess.PIPE)


def pushing(directory: Path, payload: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        arguments_for("push", "jobs", payload),
        cwd=directory,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


@pytest.fixture
def locked(tmp_path: Path) -> Iterator[tuple[Path, int]]:
    """A directory whose queue ``jobs`` is locked by a process that does not serve it, and that process's pid."""
    Broker.open(tmp_path / "jobs").close()
    holder = program(LOCKING, tmp_path)
    try:
        wait_for(tmp_path / "locked")
        yield tmp_path, holder.pid
    finally:
        holder.kill()
        holder.communicate()


def test_pushes_that_run_at_once_all_succeed_and_each_happens_once(tmp_path: Path) -> None:
    ended = []
    for first in range(0, ROUNDS * AT_ONCE, AT_ONCE):
        together = [pushing(tmp_path, payload) for payload in range(first, first + AT_ONCE)]
        ended += [(push.communicate(timeout=DEADLINE_S), push.returncode) for push in together]

    assert [(errors, status) for (_, errors), status in ended if status or errors] == []
    ids = sorted(int(output) for (output, _), _ in ended)
    assert ids == list(range(1, ROUNDS * AT_ONCE + 1))
    records = documents("list", "jobs", cwd=tmp_path)
    assert sorted(record["payload"] for record in records) == list(range(ROUNDS * AT_ONCE))


def test_a_command_goes_on_by_itself_when_the_broker_that_it_joined_ends(tmp_path: Path) -> None:
    server = program(SERVING, tmp_path)
    wait_for(tmp_path / "serving")
    push = subprocess.Popen(
        arguments_for("push", "jobs", "--file", "-"),
        cwd=tmp_path,
        env=environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert push.stdin is not None
    push.stdin.write(b"1\n" * 5000)
    push.stdin.flush()
    deadline = time.monotonic() + DEADLINE_S
    while document("status", "jobs", cwd=tmp_path)["pushed"] == 0:
        assert time.monotonic() < deadline
    server.communicate()

    output, _ = push.communicate(b"2\n" * 5000, timeout=DEADLINE_S)

    assert (push.returncode, output) == (0, b"pushed 10000 jobs: 1 to 10000\n")


def test_a_lock_that_nobody_serves_is_named_with_its_holder(locked: tuple[Path, int]) -> None:
    directory, pid = locked

    done = osqueue("status", "jobs", cwd=directory)

    assert done.returncode == 3
    assert f"pid={pid} " in done.stderr
    assert "Client.connect" not in done.stderr


@pytest.mark.parametrize(
    "command", [["status"], ["list"], ["show", "1"], ["history"], ["verify"], ["push", "2"]], ids=lambda one: one[0]
)
def test_a_closed_standard_output_is_said_and_nothing_is_done(command: list[str], tmp_path: Path) -> None:
    succeed("push", "jobs", "1", cwd=tmp_path)
    name, *operands = command
    words = arguments_for(name, "jobs", *operands)

    done = subprocess.run(
        ["sh", "-c", 'exec "$@" >&-', "sh", *words],
        cwd=tmp_path,
        env=environment(),
        stderr=subprocess.PIPE,
        timeout=DEADLINE_S,
        check=False,
    )

    assert (done.returncode, done.stderr) == (4, b"osqueue: standard output is closed; > /dev/null drops it\n")
    assert document("status", "jobs", cwd=tmp_path)["pushed"] == 1


def test_with_a_closed_standard_input_files_are_read_and_a_dash_is_refused(tmp_path: Path) -> None:
    (tmp_path / "items").write_text("1\n")

    def push_from(file: str) -> subprocess.CompletedProcess[bytes]:
        words = arguments_for("push", "jobs", "--file", file)
        return subprocess.run(
            ["sh", "-c", 'exec "$@" <&-', "sh", *words],
            cwd=tmp_path,
            env=environment(),
            capture_output=True,
            timeout=DEADLINE_S,
            check=False,
        )

    read, refused = push_from("items"), push_from("-")

    assert (read.returncode, read.stdout, read.stderr) == (0, b"pushed 1 job: 1 to 1\n", b"")
    assert (refused.returncode, refused.stderr) == (2, b"osqueue: standard input is closed\n")
