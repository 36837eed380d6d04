"""Handlers that push follow-up jobs."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from osqueue import CurrentJob, current_job

LAST_NODE = 5_000
"""Of the tree: node ``n`` has the children ``2n`` and ``2n + 1``."""


class Kept:
    """What one job leaves in its worker for the next to find."""

    job: CurrentJob | None = None


def note_pid(directory: str) -> None:
    """An initializer: tell which process this worker is."""
    Path(directory, str(os.getpid())).touch()


def grow(node: int) -> int:
    """A node of the tree pushes its two children, and takes a moment so that it can be killed in the middle."""
    for child in (2 * node, 2 * node + 1):
        if child <= LAST_NODE:
            current_job().push(child)
    time.sleep(0.01)
    return node


def push_then(instruction: dict[str, Any]) -> str:
    """Push what is asked for, then return or raise."""
    job = current_job()
    for options in instruction["push"]:
        job.push(**options)
    for _ in range(instruction.get("more", 0)):
        job.push("-" * instruction.get("length", 1), task="leaf")
    if instruction.get("fail", 0) >= job.attempt:
        raise ValueError("after the push")
    return "done"


def leaf(payload: Any) -> Any:
    return payload


def nap(seconds: float) -> None:
    time.sleep(seconds)


def point(payload: list[int]) -> int:
    return len(payload)


def keep_job(payload: Any) -> None:
    Kept.job = current_job()


def push_on_kept_job(payload: Any) -> str:
    """Push on a job that has ended in this worker."""
    assert Kept.job is not None
    try:
        Kept.job.push(1, task="leaf")
    except RuntimeError as error:
        return str(error)
    return "pushed"
