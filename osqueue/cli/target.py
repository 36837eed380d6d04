"""Opening what ``TARGET`` names: the broker that has the queue open, or else the queue itself.

Rules:
* A running broker is joined through its socket; without one the queue is opened in this process for as long as the
  command runs.
* Commands that only read make no queue where there is none.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from osqueue.cli.exit_status import CannotOpen
from osqueue.client import Client
from osqueue.core.messages import JobRecord, State, Stats
from osqueue.embedded import Broker
from osqueue.errors import Corrupt, OsqueueError, QueueLocked, Unavailable

_TRACES = ("queue.json", "marker.json", "segments", "archive")
_ELSEWHERE = re.compile(r"^(\w+://|[^/]*:\d+$)")


class OpenQueue(Protocol):
    """The verbs that commands use, of a `Client` and of a `Broker` alike."""

    def push_many(
        self,
        payloads: Iterable[bytes],
        *,
        task: str = ...,
        delay: float = ...,
        priority: int = ...,
        timeout: float | None = ...,
        max_attempts: int | None = ...,
    ) -> Sequence[int]: ...

    def stats(self) -> Stats: ...

    def get(self, job_id: int) -> JobRecord: ...

    def list(self, state: State | None = None) -> Iterator[JobRecord]: ...

    def history(self, since_ms: int = 0) -> Iterator[JobRecord]: ...


@contextmanager
def open_queue(target: str, *, create: bool = False) -> Iterator[OpenQueue]:
    """Open the queue for one command.

    Args:
        target: its directory.
        create: make a queue there if there is none.

    Raises:
        CannotOpen: there is no queue, or it cannot be opened; the message says why.
    """
    directory = find_directory(target, create=create)
    with _join_or_open(directory) as queue:
        yield queue


def find_directory(target: str, *, create: bool = False) -> Path:
    """The directory that ``target`` names.

    Raises:
        CannotOpen: it is no directory, or, unless it may be created, no queue.
    """
    if _ELSEWHERE.match(target):
        raise CannotOpen(f"{target}: this version opens directories only; buckets and remote brokers are to come")
    directory = Path(target)
    if directory.exists() and not directory.is_dir():
        raise CannotOpen(f"{target} is a file; a queue is a directory")
    if not create and not any((directory / name).exists() for name in _TRACES):
        raise CannotOpen(f"no queue at {target}; {_way_to_one(directory)}")
    return directory


def _way_to_one(directory: Path) -> str:
    if directory.is_dir() and any(directory.iterdir()):
        return "the directory holds other files, and a queue needs an empty or a new one"
    return "`osqueue push` makes one"


def _join_or_open(directory: Path) -> Client | Broker:
    try:
        if joined := _join(directory):
            return joined
        return _open(directory)
    except (OsqueueError, ValueError, OSError) as error:
        raise CannotOpen(str(error)) from error


def _open(directory: Path) -> Client | Broker:
    try:
        return Broker.open(directory)
    except QueueLocked:
        # A broker that was just starting answers by now.
        if joined := _join(directory):
            return joined
        raise


def _join(directory: Path) -> Client | None:
    if not (directory / "broker.sock").exists():
        return None
    try:
        return Client.connect(directory)
    except (Unavailable, Corrupt, OSError):
        return None
