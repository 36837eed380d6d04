"""Whether a storage holds a queue, and what a new one begins with.

A queue is made in this order: directories, then the first root, then the marker. So:

    root     marker or objects     it is
    there    marker                a queue
    there    no marker             a queue whose maker stopped just before the marker: it gets one
    missing  any of them           damaged: the root was lost, and a new one would begin again at job 1
    missing  none                  nothing yet, or a making cut short, which begins again

Rules:
* The marker says "here is a queue" and never changes, so that making it twice is making it once.
"""

from __future__ import annotations

from enum import Enum

from osqueue.errors import Corrupt
from osqueue.storage.base import NotFound, Reader, Storage
from osqueue.storage.tree import LOCK_NAME

ROOT_KEY = "queue.json"
MARKER_KEY = "marker.json"
MARKER = b'{"osqueue":"queue","root":"%b","lock":"%b"}\n' % (ROOT_KEY.encode(), LOCK_NAME.encode())
OBJECT_DIRECTORIES = ("archive", "dead", "deferred", "index", "keys", "segments")


class Standing(Enum):
    """How far a storage is on its way to being a queue."""

    EMPTY = "empty"
    """Write the first root, then `mark` it."""
    UNMARKED = "unmarked"
    """A root without marker: `mark` it."""
    QUEUE = "queue"


def find_queue(storage: Reader) -> Standing:
    """Look what the storage holds.

    Raises:
        Corrupt: there are parts of a queue, but no root.
        ReadFailed: it cannot be read now.
    """
    marked = _has(storage, MARKER_KEY)
    if _has(storage, ROOT_KEY):
        return Standing.QUEUE if marked else Standing.UNMARKED
    left = MARKER_KEY if marked else _first_object(storage)
    if left is None:
        return Standing.EMPTY
    error = Corrupt(
        f"the queue has lost its root: put {ROOT_KEY} back from a backup, or move the rest away to begin anew: "
        f"missing={ROOT_KEY} found={left}"
    )
    error.key = ROOT_KEY
    raise error


def mark(storage: Storage) -> None:
    """Say that here is a queue, once its first root stands.

    Raises:
        Conflict, WriteFailed, WriteUnknown: as `Storage.create`.
    """
    storage.create(MARKER_KEY, MARKER)


def _first_object(storage: Reader) -> str | None:
    return next((key for name in OBJECT_DIRECTORIES for key in storage.list(name + "/")), None)


def _has(storage: Reader, key: str) -> bool:
    try:
        storage.read(key)
    except NotFound:
        return False
    return True
