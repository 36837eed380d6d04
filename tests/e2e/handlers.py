"""Handlers that the pools of these tests run."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import TypedDict

import msgspec

from osqueue import current_job


class Point(msgspec.Struct):
    x: int
    y: int


class Waiting(TypedDict):
    started: str
    go: str


def double(number: int) -> int:
    return number * 2


def swap(point: Point) -> Point:
    return Point(point.y, point.x)


def anything(value):
    return value


def nothing(value) -> None:
    del value


def fail(value):
    raise ValueError(f"no {value}")


def fail_odd(number: int) -> int:
    if number % 2:
        raise ValueError(f"odd: {number}")
    return number


def kill_itself(value) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def wait_for_file(paths: Waiting) -> str:
    """Say that the job has begun, and wait until it may end."""
    Path(paths["started"]).touch()
    go = Path(paths["go"])
    while not go.exists() and not current_job().cancelled:
        time.sleep(0.01)
    return "went"


def sleep(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


def append(line: dict[str, str]) -> None:
    """Note that the job ran, in one atomic write."""
    with Path(line["file"]).open("a") as file:
        file.write(line["text"] + "\n")


def append_or_die(line: dict[str, str]) -> None:
    """As `append`; but a line that ends with ``9`` is the worker's last."""
    append(line)
    if line["text"].endswith("9"):
        os._exit(1)


def fail_once(path: str) -> str:
    """Fail the first time, and leave a mark of it."""
    seen = Path(path)
    if not seen.exists():
        seen.touch()
        raise ValueError("the first time")
    return seen.name
