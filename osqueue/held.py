"""The queue directories that this program has open: a second opening would wait in vain for a lock of its own.

The lock itself belongs to the brokers (`osqueue.storage.lock`); this only knows better than to wait for it.
"""

from __future__ import annotations

import os
import socket
import weakref
from pathlib import Path

from osqueue.errors import QueueLocked

Identity = tuple[int, int]
"""Device and inode of a directory, whatever path leads to it."""

_held: weakref.WeakValueDictionary[Identity, HeldDirectory] = weakref.WeakValueDictionary()


class HeldDirectory:
    """One opening of a directory by this program. Any thread.

    Args:
        path: the directory.
        holder: who opens it, in words for others.
    """

    def __init__(self, path: Path, holder: str) -> None:
        self.holder = holder
        self._path = path
        self._identity: Identity | None = None

    def refuse_second(self) -> None:
        """Refuse a directory that this program has open already.

        Raises:
            QueueLocked: it has.
        """
        other = _held.get(_identity(self._path) or (-1, -1))
        if other is None:
            return
        error = QueueLocked(
            f"this program already has the queue open, in {other.holder}: use that one, close it first, or join it "
            f"with Client.connect: path={self._path} pid={os.getpid()} host={socket.gethostname()}"
        )
        error.pid, error.host = os.getpid(), socket.gethostname()
        raise error

    def hold(self) -> None:
        """It is open: others of this program are refused from now on."""
        self._identity = _identity(self._path)
        if self._identity is not None:
            _held[self._identity] = self

    def release(self) -> None:
        """It is closing: who opens the directory now waits for its lock. Twice is harmless."""
        identity, self._identity = self._identity, None
        if identity is not None and _held.get(identity) is self:
            _held.pop(identity, None)


def _identity(path: Path) -> Identity | None:
    try:
        status = path.stat()
    except (OSError, ValueError):
        return None  # not there yet, or not to be opened: the broker says which
    return status.st_dev, status.st_ino


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_held.clear)
