"""Where a queue's objects are kept: a directory, memory, or anything that has the five verbs of `Storage`.

    with contextlib.closing(open_directory("jobs/")) as storage:
        if find_queue(storage) is Standing.EMPTY:
            version = storage.compare_and_swap(ROOT_KEY, first_root, None)
            mark(storage)

A directory has one opener at a time; `open_reader` reads beside it.
"""

from __future__ import annotations

from osqueue.storage.base import (
    Bounded,
    Conflict,
    NotFound,
    Reader,
    ReadFailed,
    Storage,
    StorageError,
    StorageLost,
    Version,
    WriteFailed,
    WriteUnknown,
    has_room,
)
from osqueue.storage.creation import MARKER_KEY, ROOT_KEY, Standing, find_queue, mark
from osqueue.storage.directory import DirectoryReader, DirectoryStorage
from osqueue.storage.memory import MemoryStorage
from osqueue.storage.opening import open_directory, open_reader

__all__ = [
    "MARKER_KEY",
    "ROOT_KEY",
    "Bounded",
    "Conflict",
    "DirectoryReader",
    "DirectoryStorage",
    "MemoryStorage",
    "NotFound",
    "ReadFailed",
    "Reader",
    "Standing",
    "Storage",
    "StorageError",
    "StorageLost",
    "Version",
    "WriteFailed",
    "WriteUnknown",
    "find_queue",
    "has_room",
    "mark",
    "open_directory",
    "open_reader",
]
