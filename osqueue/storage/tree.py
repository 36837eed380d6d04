"""Keys as files: ``archive/2026-01-01T10/5.jsonl`` is the file ``5.jsonl`` in two directories below the queue's own.

Directories are opened one inside the other, none through a symbolic link. Names that begin with a dot are temporary
files, and some names in the queue directory itself are not objects; neither is ever a key.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from errno import ELOOP, ENOTDIR, ENXIO

from osqueue.errors import Corrupt
from osqueue.storage.base import NotFound, ReadFailed, check_key, is_key
from osqueue.storage.files import Entry, Files, Identity

LOCK_NAME = "queue.lock"
SOCKET_NAME = "broker.sock"
BLAME_DIRECTORY = "blame"
QUARANTINE_DIRECTORY = "quarantine"
RESERVED_NAMES = frozenset({LOCK_NAME, SOCKET_NAME, BLAME_DIRECTORY, QUARANTINE_DIRECTORY})
"""What stands beside the objects: the lock, the broker's socket, the files in which workers say what they run, what
was damaged."""

_READ_BYTES = 1 << 20


def split_key(key: str) -> tuple[list[str], str]:
    """The directories that a key's file is in, outermost first, and the file's name.

    Raises:
        ValueError: no object may be called so.
    """
    *parents, name = check_key(key).split("/")
    if (*parents, name)[0] in RESERVED_NAMES:
        raise ValueError(f"this key's first name is not an object's: {key=!s}")
    return parents, name


@contextmanager
def directory_of(files: Files, root: int, key: str) -> Iterator[tuple[int, str]]:
    """The open directory that a key's file is in, and the file's name there.

    Raises:
        OSError: the directory does not exist, or is none.
        ValueError: no object may be called so.
    """
    parents, name = split_key(key)
    with open_below(files, root, parents) as directory:
        yield directory, name


@contextmanager
def open_below(files: Files, root: int, parents: Sequence[str]) -> Iterator[int]:
    """The directory that lies so far below the root; closed again at the end."""
    directory = root
    try:
        for parent in parents:
            inner = files.open_directory(parent, directory)
            if directory != root:
                files.close(directory)
            directory = inner
        yield directory
    finally:
        if directory != root:
            files.close(directory)


def read_object(files: Files, root: int, key: str) -> tuple[bytes, Identity]:
    """All bytes of a key's file, and what tells it from any other.

    Raises:
        NotFound, Corrupt, ReadFailed, ValueError: as `Reader.read`.
    """
    try:
        with directory_of(files, root, key) as (directory, name):
            return _read_file(files, directory, name, key)
    except FileNotFoundError as error:
        raise NotFound(f"no such object: {key=!s}", key=key) from error
    except OSError as error:
        raise _not_readable(key, error) from error


def keys_below(files: Files, root: int, prefix: str) -> Iterator[str]:
    """Keys that begin with ``prefix``, in ascending order; each directory is read when its turn comes.

    Raises:
        Corrupt, ReadFailed: as `Reader.list`.
    """
    waiting = [prefix.rpartition("/")[0] + "/" if "/" in prefix else ""]
    while waiting:
        place = waiting.pop()
        if place and not place.endswith("/"):
            yield place
            continue
        inside = _keys_in(files, root, place)
        waiting.extend(key for key in sorted(inside, reverse=True) if key.startswith(prefix))


def not_plain(key: str) -> Corrupt:
    """The error for a key under which something else stands than the queue put there."""
    error = Corrupt(f"neither a file nor a directory of the queue's own, so it was not opened: {key=!s}")
    error.key = key
    return error


def _read_file(files: Files, directory: int, name: str, key: str) -> tuple[bytes, Identity]:
    file = files.open_to_read(name, directory)
    try:
        status = files.status(file)
        if not status.is_file:
            raise not_plain(key)
        parts = []
        while part := files.read(file, _READ_BYTES):
            parts.append(part)
        return b"".join(parts), status.identity
    finally:
        files.close(file)


def _keys_in(files: Files, root: int, place: str) -> list[str]:
    """Keys of the files in one directory, and below it directories, those with a slash at their end."""
    try:
        with open_below(files, root, place.split("/")[:-1]) as directory:
            entries = files.entries(directory)
    except FileNotFoundError:
        return []  # never made, or deleted meanwhile: nothing is in it
    except OSError as error:
        raise _not_readable(place, error) from error
    keys = [place + entry.name + ("/" if entry.is_directory else "") for entry in entries if _is_ours(entry, place)]
    return [key for key in keys if is_key(key.rstrip("/"))]


def _is_ours(entry: Entry, place: str) -> bool:
    return (entry.is_file or entry.is_directory) and (place != "" or entry.name not in RESERVED_NAMES)


def _not_readable(key: str, error: OSError) -> Corrupt | ReadFailed:
    if error.errno in (ELOOP, ENOTDIR, ENXIO):
        return not_plain(key)  # a symbolic link, a file in a directory's place, a socket
    return ReadFailed(f"cannot be read: {key=!s} error={error.strerror}", key=key, errno=error.errno)
