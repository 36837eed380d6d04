"""Whether a process that holds a lease is known to be alive, or to be dead, and never mistaken for another."""

from __future__ import annotations

import os
import select
import shutil
import signal
import subprocess
import sys

import msgspec
import pytest

from osqueue import clock, host
from osqueue.core.messages import Holder

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux")
DEADLINE_S = 30


def holder_of(pid: int) -> Holder:
    started = host.start_time(pid)
    assert started is not None
    return msgspec.structs.replace(host.this_process(), pid=pid, started=started)


def test_this_process_runs_and_names_its_blame_file() -> None:
    holder = host.this_process("blame-1")

    assert host.is_running(holder) is True
    assert (holder.pid, holder.blame) == (os.getpid(), "blame-1")


def test_a_process_has_the_same_name_whoever_asks(child: subprocess.Popen[bytes]) -> None:
    code = "from osqueue import host; print(host.start_time(int(input())), host.boot_id())"
    asked = subprocess.run(
        [sys.executable, "-c", code], input=str(child.pid), capture_output=True, text=True, check=True
    )

    assert asked.stdout.split() == [str(host.start_time(child.pid)), host.boot_id()]


def test_a_child_that_lives_is_running_and_one_that_was_reaped_is_not(child: subprocess.Popen[bytes]) -> None:
    holder = holder_of(child.pid)
    assert host.is_running(holder) is True

    child.kill()
    child.wait()

    assert host.is_running(holder) is False


@on_linux
def test_a_zombie_has_ended(child: subprocess.Popen[bytes]) -> None:
    holder = holder_of(child.pid)

    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # it has ended, and nobody has reaped it

    assert host.is_running(holder) is False


@on_linux
def test_a_stopped_process_is_running(child: subprocess.Popen[bytes]) -> None:
    holder = holder_of(child.pid)

    child.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, child.pid, os.WSTOPPED | os.WNOWAIT)

    assert host.is_running(holder) is True


def test_another_process_with_the_same_pid_is_not_the_holder() -> None:
    holder = host.this_process()

    assert host.is_running(msgspec.structs.replace(holder, started=holder.started - 1)) is False


def test_a_holder_of_another_boot_is_dead_though_its_pid_is_there() -> None:
    holder = msgspec.structs.replace(host.this_process(), boot="another boot")

    assert host.is_running(holder) is False


@on_linux
def test_a_holder_in_another_pid_namespace_cannot_be_known() -> None:
    holder = msgspec.structs.replace(host.this_process(), pid_namespace="pid:[1]")

    assert host.is_running(holder) is None


@on_linux
def test_a_command_name_with_blanks_and_brackets_misleads_nobody() -> None:
    code = "from pathlib import Path; Path('/proc/self/comm').write_text(') Z 1 ('); print(flush=True); input()"
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        try:
            process.stdout.readline()

            assert host.is_running(holder_of(process.pid)) is True
        finally:
            process.kill()


@on_linux
def test_a_pidfd_becomes_readable_when_the_process_ends(child: subprocess.Popen[bytes]) -> None:
    descriptor = host.open_pidfd(child.pid)
    assert descriptor is not None
    try:
        assert select.select([descriptor], [], [], 0) == ([], [], [])

        child.kill()

        assert select.select([descriptor], [], [], DEADLINE_S) == ([descriptor], [], [])
    finally:
        os.close(descriptor)


def test_a_process_that_is_gone_has_no_pidfd(child: subprocess.Popen[bytes]) -> None:
    child.kill()
    child.wait()

    assert host.open_pidfd(child.pid) is None


@pytest.mark.skipif(shutil.which("ps") is None, reason="needs ps")
def test_other_systems_learn_the_start_from_ps(child: subprocess.Popen[bytes]) -> None:
    first = host.start_time_by_ps(child.pid)

    assert first is not None
    assert abs(first - clock.wall_ms() / 1000) < 3600
    child.kill()
    child.wait()
    assert host.start_time_by_ps(child.pid) is None
