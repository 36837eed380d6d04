"""Where a pool's queue lives: a directory that the user names, or a private one for as long as the pool lives."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import socket
import tempfile
import weakref
from pathlib import Path

from osqueue.errors import QueueLocked

BLAME_DIRECTORY = "blame"
_URL = re.compile(r"^[a-z0-9+.-]+://", re.IGNORECASE)

Identity = tuple[int, int]
"""Device and inode of a directory, whatever path leads to it."""

_open: weakref.WeakValueDictionary[Identity, PoolDirectory] = weakref.WeakValueDictionary()
"""The directories that pools of this process have open; the lock itself belongs to their brokers."""


class PoolDirectory:
    """One pool's directory.

    Args:
        path: the directory; None for a private one.

    Raises:
        TypeError, ValueError: it is no path, or no path to a directory.
    """

    def __init__(self, path: str | os.PathLike[str] | None) -> None:
        self.private = path is None
        self.path = Path(tempfile.mkdtemp(prefix="osqueue-")) if path is None else _absolute(path)
        self.blame = f"{BLAME_DIRECTORY}/{os.getpid()}-{secrets.token_hex(4)}"
        """The blame file of this pool's supervisor, below the directory."""
        self._held: Identity | None = None

    def refuse_second(self) -> None:
        """Refuse a directory that another pool of this program has open: the lock would be waited for in vain.

        Raises:
            QueueLocked: it has.
        """
        if _identity(self.path) not in _open:
            return
        error = QueueLocked(
            "this program already has the queue open, in another pool: use that one, close it first, or join it with "
            f"Client.connect: path={self.path} pid={os.getpid()} host={socket.gethostname()}"
        )
        error.pid, error.host = os.getpid(), socket.gethostname()
        raise error

    def hold(self) -> None:
        """The pool is open: others of this program are refused from now on."""
        self._held = _identity(self.path)
        if self._held is not None:
            _open[self._held] = self

    def release(self) -> None:
        """The pool is closing: who opens the directory now waits for its lock."""
        held, self._held = self._held, None
        if held is not None and _open.get(held) is self:
            _open.pop(held, None)

    @property
    def blame_path(self) -> Path:
        """Where the blame file is."""
        return self.path / self.blame

    def make_blame_directory(self) -> None:
        """Make the directory of blame files, once the queue's own is there."""
        self.blame_path.parent.mkdir(mode=0o700, exist_ok=True)

    def remove_blame(self) -> None:
        """Remove the blame file: the supervisor has ended in good order, and nothing runs."""
        self.blame_path.unlink(missing_ok=True)

    def remove_private(self) -> None:
        """Remove the directory, if it is a private one."""
        if self.private:
            shutil.rmtree(self.path, ignore_errors=True)


def _identity(path: Path) -> Identity | None:
    try:
        status = path.stat()
    except OSError:
        return None  # not there yet, or not to be opened: the broker says which
    return status.st_dev, status.st_ino


def _absolute(path: str | os.PathLike[str]) -> Path:
    text = os.fspath(path) if isinstance(path, os.PathLike) else path
    if not isinstance(text, str):
        raise TypeError(f"path is a directory's path, not {type(text).__name__}")
    if not text:
        raise ValueError("path is empty; leave it out for a private directory")
    if _URL.match(text):
        raise ValueError(f"path is a directory; this version cannot open URLs yet path={text}")
    return Path(text).absolute()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_open.clear)
