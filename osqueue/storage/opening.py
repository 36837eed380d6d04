"""The way into a queue directory, in the order in which things are refused, made, and taken.

    path ─▶ make what is missing ─▶ may it hold a queue? ─▶ lock ─▶ sweep ─▶ DirectoryStorage

Rules:
* Nothing is written into a directory before it is clear that it may hold a queue.
* The directory itself may be reached through symbolic links; inside it none is followed.
* Temporary files are swept under the lock: whoever wrote them is dead.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from errno import EACCES, ELOOP, ENAMETOOLONG, ENOENT, ENOTDIR, EPERM, EROFS

from osqueue.errors import AccessDenied
from osqueue.host import refuse_windows
from osqueue.storage.admission import check_admission
from osqueue.storage.base import NotFound, WriteFailed
from osqueue.storage.creation import OBJECT_DIRECTORIES, ROOT_KEY
from osqueue.storage.directory import DirectoryReader, DirectoryStorage
from osqueue.storage.files import Files, OsFiles
from osqueue.storage.lock import DirectoryLock
from osqueue.storage.mount import durability_of
from osqueue.storage.publishing import TEMPORARY_PREFIX, Publisher
from osqueue.storage.tree import open_below

_log = logging.getLogger("osqueue")
_SWEPT_NEWEST = 2
_DENIED = (EACCES, EPERM, EROFS)
_NO_PATH = {
    ENOTDIR: "a queue is a directory, and this path is a file or leads through one",
    ENAMETOOLONG: "the path is too long for this system",
    ELOOP: "the path is a symbolic link that leads back to itself",
}

PathName = str | os.PathLike[str]


def open_directory(
    path: PathName,
    *,
    durable: bool = True,
    wait_s: float = 3.0,
    owner: int | None = None,
    files: Files | None = None,
) -> DirectoryStorage:
    """Open a directory as the storage of one queue, making it if it is missing.

    Args:
        path: the directory; missing ones are made, parents too, for this user alone.
        durable: False to leave out every fsync: what is in it survives crashes of processes, not of the machine.
        wait_s: how long to wait for a holder that may be ending.
        owner: the process that others are told has it open, if this one opens it for another.
        files: the system calls; the operating system's own unless stated.

    Raises:
        QueueLocked: another process has it open.
        AccessDenied: it is another user's, others can write to it, or we cannot.
        ValueError: the path is a file, a directory with other content, or on a network file system.
        WriteFailed: it cannot be made; the message says why.
        WriteUnknown: unknown whether it was made to last; try again.
    """
    files = _chosen(files)
    where = _resolved(path)
    publisher = Publisher(files, durable=durable)
    with ExitStack() as opened:
        root = _open_or_make(files, where)
        opened.callback(files.close, root)
        check_admission(files, root, where)
        lock = DirectoryLock.acquire(files, root, where=where, wait_s=wait_s, owner=owner)
        opened.callback(lock.release)
        _sweep(files, root)
        if not any(entry.name == ROOT_KEY for entry in files.entries(root)):
            _sync_way_to(files, publisher, where)
        opened.pop_all()
    if durable:
        _announce(files.kind(root), where)
    return DirectoryStorage(files, root, lock, publisher, where=where)


def open_reader(path: PathName, *, files: Files | None = None) -> DirectoryReader:
    """Open a queue directory for reading alone, without its lock, also while a broker has it open.

    Args:
        path: the directory.
        files: the system calls; the operating system's own unless stated.

    Raises:
        NotFound: there is no such directory.
        AccessDenied: it may not be read.
        ValueError: the path is a file.
    """
    files = _chosen(files)
    where = _resolved(path)
    try:
        with _explaining(where):
            root = files.open_path(where)
    except FileNotFoundError as error:
        raise NotFound(f"no such directory: path={where}") from error
    return DirectoryReader(files, root, where=where)


def _chosen(files: Files | None) -> Files:
    if files is not None:
        return files
    refuse_windows()
    return OsFiles()


def _resolved(path: PathName) -> str:
    text = os.fsdecode(path)
    if not text or "\0" in text:
        raise ValueError(f"not the path of a directory: {path=}")
    return os.path.realpath(text)


def _open_or_make(files: Files, where: str) -> int:
    with _explaining(where):
        if not _is_there(files, where):
            _make_path(files, where)
        return files.open_path(where)


def _make_path(files: Files, where: str) -> None:
    """Make the directory and what is missing above it; `_sync_way_to` has them last before anything in them counts."""
    missing = [where]
    while not _is_there(files, parent := os.path.dirname(missing[-1])):
        missing.append(parent)
    for path in reversed(missing):
        with suppress(FileExistsError):  # somebody else has just made it
            files.make_path(path)


def _is_there(files: Files, path: str) -> bool:
    try:
        files.close(files.open_path(path))
    except FileNotFoundError:
        return False
    return True


@contextmanager
def _explaining(where: str) -> Iterator[None]:
    """Turn the errors of a path into what is wrong with it."""
    try:
        yield
    except (OSError, WriteFailed) as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        if error.errno in _NO_PATH:
            raise ValueError(f"{_NO_PATH[error.errno]}: path={where}") from error
        if error.errno in _DENIED:
            raise AccessDenied(f"the directory cannot be opened or made: path={where} error={reason}") from error
        if isinstance(error, WriteFailed) or error.errno == ENOENT:
            raise
        message = f"the directory cannot be opened: path={where} error={reason}"
        raise WriteFailed(message, errno=error.errno) from error


def _sweep(files: Files, root: int) -> None:
    """Delete what writers left that died while they wrote: in each directory of objects, and its newest two below."""
    _sweep_directory(files, root)
    for name in OBJECT_DIRECTORIES:
        with suppress(FileNotFoundError, NotADirectoryError), open_below(files, root, [name]) as directory:
            below = sorted(entry.name for entry in files.entries(directory) if entry.is_directory)
            _sweep_directory(files, directory)
            for newest in below[-_SWEPT_NEWEST:]:
                with open_below(files, directory, [newest]) as inner:
                    _sweep_directory(files, inner)


def _sweep_directory(files: Files, directory: int) -> None:
    for entry in files.entries(directory):
        if entry.name.startswith(TEMPORARY_PREFIX):
            with suppress(OSError):  # it takes room and does no harm; the next opening tries again
                files.unlink(entry.name, directory)


def _sync_way_to(files: Files, publisher: Publisher, where: str) -> None:
    """Have a new queue's directory survive a power cut, whoever made it and the directories above it."""
    device = _device_of(files, where)
    path = where
    while (parent := os.path.dirname(path)) != path:
        try:
            if _device_of(files, parent) != device:
                return
            publisher.sync_path(parent)
        except (PermissionError, WriteFailed):
            return  # whoever may not open a directory has not just made anything in it
        path = parent


def _device_of(files: Files, path: str) -> int:
    directory = files.open_path(path)
    try:
        return files.status(directory).device
    finally:
        files.close(directory)


def _announce(kind: str, where: str) -> None:
    durability = durability_of(kind)
    if durability == "memory":
        _log.warning("the queue is in memory and will not survive a power cut path=%s kind=%s", where, kind)
    if durability == "unknown":
        message = "nobody has tried whether a queue survives a power cut on this kind of file system path=%s kind=%s"
        _log.warning(message, where, kind or "unknown")
