"""Handlers for workers under test. Payloads are JSON values; what a handler needs to know stands in them."""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import osqueue
from osqueue import Discard, Retry
from osqueue.context import current_job


def echo(payload):
    return payload


def nothing(payload):
    return None


def double(payload: int) -> int:
    return payload * 2


@dataclass
class Point:
    x: int
    y: int = 0


def mirror(point: Point) -> Point:
    return Point(point.y, point.x)


def type_name(payload: dict) -> str:
    return type(payload).__name__


def pid(payload):
    return os.getpid()


def die_by(payload):
    """``payload``: a signal's name, ``exit`` with a status, or a value to echo."""
    if payload == "exit":
        os._exit(3)
    if isinstance(payload, str) and payload.startswith("SIG"):
        os.kill(os.getpid(), getattr(signal, payload))
        time.sleep(60)
    return payload


def mark_or_die(payload):
    """Add a line to a file, and take some milliseconds; then perhaps die, else return so many characters."""
    path, text, size = payload
    with open(path, "a", encoding="utf-8") as file:
        file.write(f"{text}\n")
    time.sleep(0.003)
    if text == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    return "x" * size


def read_null(payload):
    if payload == "null":
        ctypes.string_at(0)
    return payload


def spin(payload):
    """Never ends, unless the payload says otherwise."""
    if payload == "spin":
        while True:
            pass
    return payload


def spin_some(payload):
    """Return at once, or when the file named by the payload is there."""
    while payload and not os.path.exists(payload):
        time.sleep(0.005)


def hold_lock(payload):
    """Sleep in C code that keeps the interpreter's lock."""
    if payload == "hold":
        ctypes.PyDLL(None).sleep(600)
    return payload


def sleep(seconds):
    time.sleep(seconds)
    return seconds


async def sleep_async(seconds):
    await asyncio.sleep(seconds)
    return [seconds, id(asyncio.get_running_loop())]


def leave_child(path):
    """Leave a child running whose pid stands in a file, and then hang."""
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    write_whole(path, f"{os.getpid()} {child.pid}")
    time.sleep(600)


def leave_child_and_exit(path):
    """Leave a child running whose pid stands in a file, and exit."""
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    write_whole(path, str(child.pid))
    os._exit(3)


def close_everything(payload):
    os.closerange(3, 1024)
    return "done"


def fork_or_mark(payload):
    """Add a line to a file; or fork, let the child return from the handler too, and wait for it."""
    path, text = payload
    if text in ("fork", "fork and die"):
        child = os.fork()
        if child:
            os.waitpid(child, 0)
            if text == "fork and die":
                os.kill(os.getpid(), signal.SIGKILL)
        return
    with open(path, "a", encoding="utf-8") as file:
        file.write(f"{text}\n")


def sigint_of_child(payload):
    """The SIGINT disposition that a program started by a handler has: 1 if ignored."""
    code = "import signal; print(int(signal.getsignal(signal.SIGINT) is signal.SIG_IGN))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return int(done.stdout)


def interrupt_self(payload):
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(0.01)
    return "alive"


def leave(payload):
    sys.exit("enough")


def fail(message):
    raise LookupError(message)


def fail_deep(depth):
    if depth:
        return fail_deep(depth - 1)
    raise LookupError("at the bottom")


def fail_oddly(payload):
    raise ValueError("\ud800" + "x" * 5000)


def again(delay):
    raise Retry("not yet", delay=delay)


def discard(payload):
    raise Discard("no use")


def make(kind):
    return {"nan": float("nan"), "object": object(), "large": "x" * 200_000, "surrogate": "\ud800"}[kind]


def context(payload):
    job = current_job()
    return [job.id, job.attempt, job.task, job.time_remaining, job.cancelled]


def until_cancelled(path):
    write_whole(path, "begun")
    while not current_job().cancelled:
        time.sleep(0.005)
    write_whole(path, "told")
    return "stopped by myself"


def say_begun(path):
    write_whole(path, "begun")
    time.sleep(600)


def print_it(text):
    print(text)


def package_version(payload):
    return osqueue.__version__


def write_whole(path, text):
    """Write a file that is never seen half written."""
    part = Path(f"{path}.part")
    part.write_text(text)
    part.rename(path)
