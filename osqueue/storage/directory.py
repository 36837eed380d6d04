"""Objects as files of one directory, which one process at a time has open.

    queue.lock   held for life          queue.json     the root: renamed over at each commit
    broker.sock  the broker's           segments/ archive/<hour>/ …   objects: made once, deleted

Rules:
* The kernel's lock makes compare-and-swap of look-then-rename; two looks just before each rename see when the lock was
  taken away: the lock's name must still be the locked file, the root still the file that we put there.
* After a fork the child has no part in the queue: its copies are closed and every method raises.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import partial

from osqueue.errors import Fenced
from osqueue.storage.base import Conflict, Version
from osqueue.storage.files import Files, Identity
from osqueue.storage.lock import DirectoryLock
from osqueue.storage.publishing import Publisher, nothing_published
from osqueue.storage.tree import (
    QUARANTINE_DIRECTORY,
    directory_of,
    keys_below,
    open_below,
    read_object,
    split_key,
)

MIB = 1024 * 1024
_ROOM_FILES = 64


def reserve_bytes(total_bytes: int) -> int:
    """What of a file system is kept for jobs to finish in: 5 % of it, but not less than 32 MiB or more than 64 MiB.

    A commit may archive 16 MiB before the segments go that it has emptied, and others are merged beside the old ones.
    At most a half of a very small one.
    """
    return min(max(total_bytes // 20, 32 * MIB), 64 * MIB, total_bytes // 2)


class DirectoryReader:
    """Reads a queue directory without its lock, also beside the broker that has it open. Any thread, any method.

    Args:
        files: the system calls.
        root: the open queue directory; closed by `close`.
        where: its path, for messages.
    """

    def __init__(self, files: Files, root: int, *, where: str) -> None:
        self.where = where
        self._files = files
        self._root: int | None = root

    def read(self, key: str) -> tuple[bytes, Version]:
        data, identity = read_object(self._files, self._directory(), key)
        return data, _version(identity)

    def list(self, prefix: str) -> Iterator[str]:
        return keys_below(self._files, self._directory(), prefix)

    def close(self) -> None:
        if self._root is not None:
            root, self._root = self._root, None
            self._files.close(root)

    def _directory(self) -> int:
        if self._root is None:
            raise ValueError(f"this storage is closed: path={self.where}")
        return self._root


class DirectoryStorage:
    """A queue directory under its lock; made by `open_directory`.

    One thread swaps; meanwhile others may read, create, delete and list, on other keys.

    Args:
        files: the system calls.
        root: the open queue directory; closed by `close`.
        lock: its lock; released by `close`.
        publisher: writes the files.
        where: the directory's path.
    """

    def __init__(self, files: Files, root: int, lock: DirectoryLock, publisher: Publisher, *, where: str) -> None:
        self.where = where
        self._files = files
        self._root = root
        self._lock = lock
        self._publisher = publisher
        self._closed = False
        self._swapped: dict[str, tuple[Identity, Version]] = {}
        self._swaps = 0
        self._made: set[str] = set()

    def read(self, key: str) -> tuple[bytes, Version]:
        data, identity = read_object(self._files, self._directory(), key)
        known = self._swapped.get(key)
        return data, known[1] if known is not None and known[0] == identity else _version(identity)

    def compare_and_swap(self, key: str, data: bytes, expected: Version | None) -> Version:
        with self._place_for(key) as (directory, name):
            check = partial(self._check_owned, directory, name, key, expected)
            try:
                put = self._publisher.add if expected is None else self._publisher.replace
                identity = put(directory, name, data, check)
            except FileExistsError as error:
                raise Conflict(f"the object exists already: {key=!s}", key=key) from error
        self._swaps += 1  # inodes are used again, and clocks are coarse: only a count tells a version from all before
        version = Version(f"{_version(identity)}.{self._swaps}")
        self._swapped[key] = (identity, version)
        return version

    def create(self, key: str, data: bytes) -> None:
        with self._place_for(key) as (directory, name):
            try:
                self._publisher.add(directory, name, data)
            except FileExistsError as error:
                if read_object(self._files, self._directory(), key)[0] != data:
                    raise Conflict(f"the key holds other bytes: {key=!s}", key=key) from error
                self._publisher.confirm(directory, name)

    def delete(self, key: str) -> None:
        root = self._directory()
        # What is missing is fine, a directory on the way too.
        with (
            nothing_published(key),
            suppress(FileNotFoundError),
            directory_of(self._files, root, key) as (directory, name),
        ):
            self._publisher.remove(directory, name)
        self._swapped.pop(key, None)

    def set_aside(self, key: str) -> str | None:
        """Move what stands under a key into ``quarantine/``, whatever it is and as it is.

        Args:
            key: of an object, or of a directory of them.

        Returns:
            Its path there, below the queue directory; None if nothing stands under the key.

        Raises:
            WriteFailed: it is where it was.
            WriteUnknown: unknown where it is.
        """
        root = self._directory()
        parents, name = split_key(key)
        aside = [QUARANTINE_DIRECTORY, *parents]
        with nothing_published(key), ExitStack() as stack:
            try:
                source = stack.enter_context(open_below(self._files, root, parents))
                self._files.status_of(name, source)
            except (FileNotFoundError, NotADirectoryError):
                return None
            for depth in range(len(aside)):
                self._make_directory(root, aside[: depth + 1])
            target = stack.enter_context(self._open_made(root, aside))
            names = (name if not number else f"{name}.{number}" for number in itertools.count())
            new_name = next(name for name in names if self._identity_of(target, name) is None)
            self._publisher.move(source, name, target, new_name)
        return "/".join([*aside, new_name])

    def list(self, prefix: str) -> Iterator[str]:
        return keys_below(self._files, self._directory(), prefix)

    def has_room(self) -> bool:
        """False with less than the reserve free, or hardly a file to be made."""
        space = self._files.space(self._directory())
        enough = reserve_bytes(space.total_bytes)
        return space.free_bytes >= enough and (space.free_files is None or space.free_files >= _ROOM_FILES)

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._lock.release()
        self._files.close(self._root)

    def _directory(self) -> int:
        if self._closed:
            raise ValueError(f"this storage is closed: path={self.where}")
        if self._lock.abandoned:
            raise RuntimeError(f"the queue is open in the process that this one was forked from: path={self.where}")
        return self._root

    def _check_owned(self, directory: int, name: str, key: str, expected: Version | None) -> None:
        """The two looks before a rename."""
        if not self._lock.still_held():
            raise Fenced(f"the queue's lock file was removed or replaced under us: path={self.where}")
        found = self._identity_of(directory, name)
        known = self._swapped.get(key)
        if known is not None and known[0] != found:
            raise Fenced(f"another process has changed or removed what we wrote: path={self.where} {key=!s}")
        actual = known[1] if known is not None else None if found is None else _version(found)
        if actual != expected:
            raise Conflict(f"the object is in another version: {key=!s} {expected=!s} {actual=!s}", key=key)

    def _identity_of(self, directory: int, name: str) -> Identity | None:
        try:
            return self._files.status_of(name, directory).identity
        except FileNotFoundError:
            return None

    @contextmanager
    def _place_for(self, key: str) -> Iterator[tuple[int, str]]:
        """The directory that a key's file goes into, made if need be, and the file's name there."""
        root = self._directory()
        parents, name = split_key(key)
        with ExitStack() as stack:
            with nothing_published(key):
                for depth in range(len(parents)):
                    self._make_directory(root, parents[: depth + 1])
                directory = stack.enter_context(self._open_made(root, parents))
            yield directory, name

    def _make_directory(self, root: int, path: Sequence[str]) -> None:
        """Make a directory in one that is there; once it has been synced in this opening, it counts."""
        if (known := "/".join(path)) in self._made:
            return
        with open_below(self._files, root, path[:-1]) as parent:
            self._publisher.make_directory(parent, path[-1])
        self._made.add(known)

    @contextmanager
    def _open_made(self, root: int, parents: Sequence[str]) -> Iterator[int]:
        with ExitStack() as stack:
            try:
                directory = stack.enter_context(open_below(self._files, root, parents))
            except FileNotFoundError:
                self._made.clear()  # somebody has removed it since: the next try makes it again
                raise
            yield directory


def _version(identity: Identity) -> Version:
    return Version(f"{identity.inode:x}.{identity.mtime_ns:x}.{identity.size:x}")
