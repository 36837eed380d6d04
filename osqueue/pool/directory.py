"""Where a pool's queue lives: a directory that the user names, or a private one for as long as the pool lives."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import tempfile
from pathlib import Path

from osqueue.held import HeldDirectory

BLAME_DIRECTORY = "blame"
_URL = re.compile(r"^[a-z0-9+.-]+://", re.IGNORECASE)


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
        self._held = HeldDirectory(self.path, "another pool")

    def refuse_second(self) -> None:
        """Raises `QueueLocked`: this program has it open already, so its lock would be waited for in vain."""
        self._held.refuse_second()

    def hold(self) -> None:
        """The pool is open: others of this program are refused from now on."""
        self._held.hold()

    def release(self) -> None:
        """The pool is closing: who opens the directory now waits for its lock."""
        self._held.release()

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


def _absolute(path: str | os.PathLike[str]) -> Path:
    text = os.fspath(path) if isinstance(path, os.PathLike) else path
    if not isinstance(text, str):
        raise TypeError(f"path is a directory's path, not {type(text).__name__}")
    if not text:
        raise ValueError("path is empty; leave it out for a private directory")
    if _URL.match(text):
        raise ValueError(f"path is a directory; this version cannot open URLs yet path={text}")
    return Path(text).absolute()
