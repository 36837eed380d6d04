"""Exit statuses, and which error ends a command with which.

===  =========================================================================
0    done
1    a job died, an id is unknown, ``verify`` found damage
2    wrong usage or refused settings
3    the queue cannot be reached or opened
4    the store failed or is full, another broker took over, or standard output is closed
130  stopped by SIGINT
141  whoever read the output has gone
143  stopped by SIGTERM
===  =========================================================================
"""

from __future__ import annotations

import errno
from pathlib import Path

from osqueue.errors import (
    AccessDenied,
    Corrupt,
    Fenced,
    JobNotFound,
    OsqueueError,
    PoolBroken,
    QueueFull,
    QueueLocked,
    Rejected,
    Unavailable,
)
from osqueue.storage import ReadFailed, StorageError, StorageLost, WriteFailed, WriteUnknown

DONE = 0
FAILED = 1
WRONG_USAGE = 2
UNREACHABLE = 3
STORE_FAILED = 4
INTERRUPTED = 130
OUTPUT_CLOSED = 141
TERMINATED = 143

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)


class UsageError(Exception):
    """The command was asked for something that cannot be; the message says what to write instead."""


class CannotOpen(OsqueueError):
    """The queue cannot be reached or opened; the message says why."""


class StoreFailed(OsqueueError):
    """The store failed or is full; the message says where, and the way out."""


class Terminated(KeyboardInterrupt):
    """SIGTERM has arrived: everything that ends in order at a Ctrl-C does so at this too."""


# The first class that fits decides, so subclasses stand before their bases.
_STATUS_OF: tuple[tuple[type[BaseException], int], ...] = (
    (JobNotFound, FAILED),
    (AccessDenied, UNREACHABLE),
    (QueueFull, STORE_FAILED),
    (Rejected, WRONG_USAGE),
    (PoolBroken, WRONG_USAGE),
    (CannotOpen, UNREACHABLE),
    (StoreFailed, STORE_FAILED),
    (QueueLocked, UNREACHABLE),
    (StorageError, STORE_FAILED),
    (Unavailable, UNREACHABLE),
    (Corrupt, STORE_FAILED),
    (Fenced, STORE_FAILED),
    (OSError, STORE_FAILED),
    (UsageError, WRONG_USAGE),
    (ValueError, WRONG_USAGE),
    (TypeError, WRONG_USAGE),
    (Terminated, TERMINATED),
    (KeyboardInterrupt, INTERRUPTED),
)


def unopened(error: OsqueueError | ValueError | OSError, directory: Path) -> OsqueueError:
    """What kept a command from its queue, as the command ends with it: a store that fails is named as such."""
    if isinstance(error, CannotOpen | StoreFailed):
        return error
    if getattr(error, "errno", None) in _NO_ROOM:
        return StoreFailed(f"{error}; make room there, then run the command again: path={directory}")
    if isinstance(error, ReadFailed | WriteFailed | WriteUnknown | StorageLost):
        return StoreFailed(f"{error} path={directory}")
    return CannotOpen(str(error))


def of(error: BaseException) -> int | None:
    """The exit status for an error that ended a command; None for one that is a bug of ours."""
    return next((status for kind, status in _STATUS_OF if isinstance(error, kind)), None)
