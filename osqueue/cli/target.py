"""Opening what ``TARGET`` names: the broker that has the queue open, or else the queue itself.

Rules:
* A running broker is joined through its socket; without one the queue is opened in this process for as long as the
  command runs (`osqueue.cli.joining`).
* Commands that only read make no queue where there is none.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from osqueue.cli.exit_status import CannotOpen, UsageError, unopened
from osqueue.cli.joining import JoinOrOpen, ThreadOpener
from osqueue.client import Client
from osqueue.client.face import open_connection
from osqueue.errors import OsqueueError
from osqueue.reactor import LoopThread
from osqueue.storage import StorageError

_TRACES = ("queue.json", "marker.json", "segments", "archive")
_ELSEWHERE = re.compile(r"^(\w+://|[^/]*:\d+$)")


@contextmanager
def open_queue(target: str, *, create: bool = False) -> Iterator[Client]:
    """Open the queue for one command.

    Args:
        target: its directory.
        create: make a queue there if there is none.

    Raises:
        CannotOpen: there is no queue, or it cannot be opened; the message says why.
        StoreFailed: the store failed or is full, now or later.
    """
    directory = find_directory(target, create=create).absolute()
    opener = ThreadOpener(directory)
    try:
        with _connected(JoinOrOpen(directory, opener), directory) as client:
            yield client
    except StorageError as error:
        raise unopened(error, directory) from error
    finally:
        opener.end()


def find_directory(target: str, *, create: bool = False) -> Path:
    """The directory that ``target`` names.

    Raises:
        UsageError: it is empty.
        CannotOpen: it is no directory, or, unless it may be created, no queue.
    """
    if not target:
        raise UsageError("the queue's path is empty; write . for the current directory")
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


def _connected(connector: JoinOrOpen, directory: Path) -> Client:
    reactor = LoopThread("osqueue-client")
    connection = open_connection(reactor, connector)
    try:
        reactor.run(connection.start).result()
    except BaseException as error:
        reactor.stop()
        if isinstance(error, OsqueueError | ValueError | OSError):
            raise unopened(error, directory) from error
        raise
    return Client(reactor, connection)
