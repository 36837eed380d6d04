"""The lock of a queue directory: one opener at a time, for as long as it lives.

``queue.lock`` is never deleted and never replaced: who holds the kernel's lock on that inode has the queue. The line
in it tells others who that is; it is written for people and never trusted.

The lock goes with its process, however that ends. It is shared with every copy of its descriptor, so a child that the
user's program forks closes its copy at once, without unlocking.
"""

from __future__ import annotations

import os
import shlex
import socket
import time
import weakref
from contextlib import suppress
from errno import EACCES, ELOOP, ENXIO, EPERM, EROFS

import msgspec
from msgspec import Struct

from osqueue import clock, host
from osqueue.errors import AccessDenied, QueueLocked
from osqueue.storage.base import WriteFailed
from osqueue.storage.files import Files
from osqueue.storage.tree import LOCK_NAME

_POLL_S = 0.02
_NOTE_BYTES = 4096


class LockNote(Struct, omit_defaults=True):
    """The line in the lock file: who holds it. ``started`` and ``boot`` as in a lease's holder."""

    pid: int
    host: str
    started: int = 0
    boot: str = ""


class DirectoryLock:
    """The lock of one directory, held from `acquire` to `release`. For one thread at a time, but `still_held`."""

    def __init__(self, files: Files, directory: int, file: int) -> None:
        self._files = files
        self._directory = directory
        self._file = file
        self._inode = files.status(file).identity.inode
        self.abandoned = False
        """True in a child that was forked from the holder: the queue is not the child's."""

    @classmethod
    def acquire(
        cls, files: Files, directory: int, *, where: str, wait_s: float, owner: int | None = None
    ) -> DirectoryLock:
        """Take the lock, waiting a while for a holder that may be ending.

        Args:
            files: the system calls.
            directory: the open queue directory.
            where: its path, for messages.
            wait_s: how long to try.
            owner: the process to name to others, if we hold it for another one.

        Raises:
            QueueLocked: it is still held; says by whom.
            AccessDenied: the lock file is not ours to lock.
            WriteFailed: it cannot be made.
        """
        give_up_ms = clock.boot_ms() + round(wait_s * 1000)
        while True:
            lock = cls._try(files, directory, where)
            if lock is not None:
                lock._write_note(os.getpid() if owner is None else owner)
                return lock
            if clock.boot_ms() >= give_up_ms:
                raise _locked(files, directory, where)
            time.sleep(_POLL_S)

    def still_held(self) -> bool:
        """Whether the lock's name still leads to the file that is locked, so that nobody else can hold the queue."""
        try:
            found = self._files.status_of(LOCK_NAME, self._directory)
        except FileNotFoundError:
            return False
        return found.identity.inode == self._inode

    def release(self) -> None:
        """Let the next opener in."""
        _held.discard(self)
        if self.abandoned:
            return
        with suppress(OSError):  # closing it lets go too, unless somebody has a copy of the descriptor
            self._files.unlock(self._file)
        self._files.close(self._file)

    def abandon(self) -> None:
        """In a forked child: close its copy, and leave the lock itself to the process that has it."""
        self.abandoned = True
        self._files.close(self._file)

    @classmethod
    def _try(cls, files: Files, directory: int, where: str) -> DirectoryLock | None:
        file = _open(files, directory, where)
        try:
            if files.try_lock(file):
                lock = cls(files, directory, file)
                if lock.still_held():
                    _held.add(lock)
                    return lock
        except OSError as error:
            files.close(file)
            raise AccessDenied(f"this file system has no locks: path={where} error={error.strerror}") from error
        files.close(file)
        return None

    def _write_note(self, pid: int) -> None:
        note = LockNote(pid=pid, host=socket.gethostname(), started=host.start_time(pid) or 0, boot=host.boot_id())
        with suppress(OSError):  # a full disk: the lock holds all the same, it only cannot say whose it is
            self._files.overwrite(self._file, msgspec.json.encode(note) + b"\n")


def read_note(files: Files, directory: int) -> LockNote | None:
    """Who last took the lock, if that can be read."""
    try:
        file = files.open_to_read(LOCK_NAME, directory)
    except OSError:
        return None
    try:
        return msgspec.json.decode(files.read(file, _NOTE_BYTES), type=LockNote)
    except (OSError, msgspec.DecodeError):
        return None
    finally:
        files.close(file)


def _open(files: Files, directory: int, where: str) -> int:
    try:
        file = files.open_lock(LOCK_NAME, directory)
    except OSError as error:
        if error.errno in (ELOOP, ENXIO):
            message = f"{LOCK_NAME} is no plain file; look who put it there, and remove it: path={where}"
            raise AccessDenied(message) from error
        if error.errno in (EACCES, EPERM, EROFS):
            raise AccessDenied(f"the queue's lock cannot be opened: path={where} error={error.strerror}") from error
        message = f"the queue's lock cannot be made: path={where} error={error.strerror}"
        raise WriteFailed(message, key=LOCK_NAME, errno=error.errno) from error
    status = files.status(file)
    if status.is_file and status.owner == files.user():
        return file
    files.close(file)
    raise AccessDenied(f"{LOCK_NAME} is no plain file of this user's; look who put it there: path={where}")


def _locked(files: Files, directory: int, where: str) -> QueueLocked:
    note = read_note(files, directory)
    pid, name = (None, None) if note is None else (note.pid, note.host)
    error = QueueLocked(
        f"the queue is open in another process: add workers to it with `osqueue work {shlex.quote(where)} …`, join it "
        f"with Client.connect, or wait until it ends: path={where} {pid=} host={name}"
    )
    error.pid, error.host = pid, name
    return error


_held: weakref.WeakSet[DirectoryLock] = weakref.WeakSet()
"""Every lock of this process, for the one hook that a fork can have: it can be set, and never taken away."""


def _abandon_all() -> None:
    for lock in list(_held):
        lock.abandon()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_abandon_all)
