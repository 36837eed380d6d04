"""Initializers, finalizers, and handlers that see what they do."""

from __future__ import annotations

import asyncio
import os
import sys
import time

from osqueue import current_job

kept = []


def load(*args):
    return [os.getpid(), *args]


async def load_async(value):
    await asyncio.sleep(0.001)
    return [id(asyncio.get_running_loop()), value]


def state(payload):
    return current_job().worker_state


def own_state(payload):
    return [os.getpid(), current_job().worker_state]


async def state_async(payload):
    return [id(asyncio.get_running_loop()), current_job().worker_state]


def use_lock(payload):
    """The state is a list of the worker's pid and a lock of multiprocessing's."""
    with current_job().worker_state[1]:
        return payload


def note_path(path):
    return path


def note(path):
    """A finalizer: a line for each worker that ended in good order."""
    with open(path, "a", encoding="utf-8") as file:
        file.write(f"{os.getpid()}\n")


async def note_async(path):
    await asyncio.sleep(0.001)
    note(path)


def note_nothing(state):
    sys.stderr.write(f"the state is {state}\n")
    sys.stderr.flush()


def raise_at_start():
    raise LookupError("no such model")


def exit_at_start():
    sys.exit("no licence")


def hang_at_start(path):
    note(path)
    time.sleep(600)


def ask_at_start():
    return current_job()


def raise_at_end(state):
    raise LookupError("cannot let go")


def exit_at_end(state):
    sys.exit(7)


def hang_at_end(path):
    note(path)
    time.sleep(600)


class Unreadable:
    """It can be pickled, and not be unpickled."""

    def __reduce__(self):
        return (_refuse, ())


def _refuse():
    raise LookupError("not made for workers")


def pid(payload):
    return os.getpid()


def pid_after(seconds):
    time.sleep(seconds)
    return os.getpid()


def grow(mebibytes):
    """Keep so much more memory in this worker."""
    kept.append(b"x" * (mebibytes * 1024 * 1024))
    return os.getpid()
