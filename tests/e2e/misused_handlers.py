"""Handlers that do what they should not."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import time
from pathlib import Path

from osqueue import LocalPool, Retry, current_job


def give_object(value):
    return {"a": object()}


def give_nan(value):
    return [1.0, float("nan")]


def give_surrogate(value):
    return "\ud800"


def give_cycle(value):
    cycle = []
    cycle.append(cycle)
    return cycle


def give_5_mib(value):
    return "x" * 5 * 1024 * 1024


def give_text_for_int(value) -> int:
    return "seven"


def give_something_for_none(value) -> None:
    return 7


def exit_politely(value):
    sys.exit(7)


def interrupt_itself(value):
    raise KeyboardInterrupt("not by a person")


def give_pid(value):
    return os.getpid()


def leave_child(file):
    """Start a child that stays, and never return."""
    _note(file, subprocess.Popen(["sleep", "600"]).pid)
    while True:
        time.sleep(1)


def leave_forked_child(file):
    """The same by a bare fork, whose child goes on in Python."""
    child = os.fork()
    if child == 0:
        time.sleep(600)
    _note(file, child)
    while True:
        time.sleep(1)


def leave_multiprocess_child(file):
    """The same by multiprocessing, waiting for it."""
    child = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(600,))
    child.start()
    _note(file, child.pid)
    child.join()


def leave_child_and_return(file):
    """Start a child that stays, and return."""
    _note(file, subprocess.Popen(["sleep", "600"]).pid)


def _note(file, child):
    """Say both pids, at once."""
    note = Path(file)
    note.with_suffix(".new").write_text(f"{os.getpid()} {child}")
    note.with_suffix(".new").rename(note)


def fill(file):
    """Take all the room that a file system has left."""
    with open(file, "ab", buffering=0) as filler:
        try:
            while True:
                filler.write(bytes(4096))
        except OSError:
            return


def wait_for(file):
    """Note that the job has begun, and wait for a file."""
    go = Path(file)
    go.with_suffix(".begun").touch()
    while not go.exists():
        time.sleep(0.01)
    return "went"


def outgrow_its_group(group):
    """Move this worker alone into a memory cgroup, and take more memory than it has."""
    Path(group, "cgroup.procs").write_text(str(os.getpid()))
    taken = []
    while True:
        taken.append(bytearray(os.urandom(1024 * 1024)))


def double_in_a_pool(numbers):
    with LocalPool("tests.e2e.handlers:double", workers=1) as pool:
        return list(pool.map(numbers))


def fail_again_at_once(value):
    """The first attempt asks for another one at once, which fails."""
    if current_job().attempt == 1:
        raise Retry(delay=0)
    raise ValueError(value)
