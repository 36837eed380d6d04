"""The system calls that a directory of objects is made of, one method each.

`OsFiles` makes them; tests put a file system of their own in its place, to stop it at every call. Nothing here
decides anything, and every error is the system's own ``OSError``.

Names are single names inside an open directory (``at``), so that no symbolic link below it is ever followed and no
path is too long; only the way to the queue directory itself is a path.
"""

from __future__ import annotations

import os
import stat
import sys
from typing import NamedTuple, Protocol

from filelock import lock_descriptor, unlock_descriptor

from osqueue.storage.mount import kind_of_mount

if sys.platform == "darwin":
    from fcntl import F_FULLFSYNC, fcntl

DIRECTORY_MODE = 0o700
FILE_MODE = 0o600


class Identity(NamedTuple):
    """What tells a file from the one that stood under its name before, and from an edited self."""

    inode: int
    mtime_ns: int
    size: int


class Status(NamedTuple):
    """What a file is."""

    identity: Identity
    device: int
    owner: int
    permissions: int
    is_file: bool
    is_directory: bool


class Entry(NamedTuple):
    """A name in a directory; a symbolic link is neither file nor directory."""

    name: str
    is_file: bool
    is_directory: bool


class Space(NamedTuple):
    """How full a file system is. ``free_files`` is None where their number has no bound."""

    total_bytes: int
    free_bytes: int
    free_files: int | None
    read_only: bool


class Files(Protocol):
    """System calls by name. Descriptors are plain numbers; whoever opens one closes it."""

    def open_path(self, path: str) -> int:
        """Open a directory by its path, following symbolic links."""

    def make_path(self, path: str) -> None:
        """Make one directory by its path, for its owner alone."""

    def open_directory(self, name: str, at: int) -> int: ...

    def make_directory(self, name: str, at: int) -> None: ...

    def open_to_read(self, name: str, at: int) -> int: ...

    def open_new(self, name: str, at: int) -> int:
        """Make a file for writing, for its owner alone; anything that has the name already is an error."""

    def open_lock(self, name: str, at: int) -> int:
        """Open a file to be locked, making it if need be; its content stays."""

    def close(self, descriptor: int) -> None: ...

    def read(self, file: int, count: int) -> bytes: ...

    def write(self, file: int, data: memoryview) -> int:
        """Write some of ``data``; how many bytes."""

    def overwrite(self, file: int, data: bytes) -> None:
        """Replace the content, in place."""

    def sync(self, file: int) -> None:
        """Have the file's content survive a power cut."""

    def sync_directory(self, directory: int) -> None:
        """Have the directory's names survive a power cut."""

    def rename(self, name: str, new_name: str, at: int) -> None:
        """Give a file another name, replacing what has it."""

    def move(self, name: str, at: int, new_name: str, new_at: int) -> None:
        """Give a file another name in another directory, replacing what has it."""

    def link(self, name: str, new_name: str, at: int) -> None:
        """Give a file a second name; ``FileExistsError`` if anything has it."""

    def unlink(self, name: str, at: int) -> None: ...

    def status(self, descriptor: int) -> Status: ...

    def status_of(self, name: str, at: int) -> Status:
        """Status of what has the name; a symbolic link's own."""

    def entries(self, directory: int) -> list[Entry]: ...

    def space(self, directory: int) -> Space: ...

    def kind(self, directory: int) -> str:
        """The kind of file system, as its system calls it; empty if unknown."""

    def user(self) -> int:
        """Whose files this process makes."""

    def try_lock(self, file: int) -> bool: ...

    def unlock(self, file: int) -> None: ...


class OsFiles:
    """The operating system's files. Any thread may call any method."""

    def open_path(self, path: str) -> int:
        return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def make_path(self, path: str) -> None:
        os.mkdir(path, DIRECTORY_MODE)

    def open_directory(self, name: str, at: int) -> int:
        return os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=at)

    def make_directory(self, name: str, at: int) -> None:
        os.mkdir(name, DIRECTORY_MODE, dir_fd=at)

    def open_to_read(self, name: str, at: int) -> int:
        # O_NONBLOCK: a pipe that somebody put there would block the open for ever.
        return os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=at)

    def open_new(self, name: str, at: int) -> int:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        return os.open(name, flags, FILE_MODE, dir_fd=at)

    def open_lock(self, name: str, at: int) -> int:
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        return os.open(name, flags, FILE_MODE, dir_fd=at)

    def close(self, descriptor: int) -> None:
        os.close(descriptor)

    def read(self, file: int, count: int) -> bytes:
        return os.read(file, count)

    def write(self, file: int, data: memoryview) -> int:
        return os.write(file, data)

    def overwrite(self, file: int, data: bytes) -> None:
        os.pwrite(file, data, 0)
        os.ftruncate(file, len(data))

    def sync(self, file: int) -> None:
        if sys.platform == "darwin":
            fcntl(file, F_FULLFSYNC)  # fsync there leaves the bytes in the drive's own cache
        else:
            os.fsync(file)

    def sync_directory(self, directory: int) -> None:
        self.sync(directory)

    def rename(self, name: str, new_name: str, at: int) -> None:
        os.rename(name, new_name, src_dir_fd=at, dst_dir_fd=at)

    def move(self, name: str, at: int, new_name: str, new_at: int) -> None:
        os.rename(name, new_name, src_dir_fd=at, dst_dir_fd=new_at)

    def link(self, name: str, new_name: str, at: int) -> None:
        os.link(name, new_name, src_dir_fd=at, dst_dir_fd=at, follow_symlinks=False)

    def unlink(self, name: str, at: int) -> None:
        os.unlink(name, dir_fd=at)

    def status(self, descriptor: int) -> Status:
        return _status(os.fstat(descriptor))

    def status_of(self, name: str, at: int) -> Status:
        return _status(os.stat(name, dir_fd=at, follow_symlinks=False))

    def entries(self, directory: int) -> list[Entry]:
        with os.scandir(directory) as found:
            return [
                Entry(
                    name=entry.name,
                    is_file=entry.is_file(follow_symlinks=False),
                    is_directory=entry.is_dir(follow_symlinks=False),
                )
                for entry in found
            ]

    def space(self, directory: int) -> Space:
        found = os.fstatvfs(directory)
        return Space(
            total_bytes=found.f_blocks * found.f_frsize,
            free_bytes=found.f_bavail * found.f_frsize,
            free_files=found.f_favail if found.f_files else None,
            read_only=bool(found.f_flag & os.ST_RDONLY),
        )

    def kind(self, directory: int) -> str:
        return kind_of_mount(directory)

    def user(self) -> int:
        return os.geteuid()

    def try_lock(self, file: int) -> bool:
        # The lock of FileLock itself, without its fallback to a weaker one where the system has none.
        return lock_descriptor(file, blocking=False)

    def unlock(self, file: int) -> None:
        unlock_descriptor(file)


def _status(found: os.stat_result) -> Status:
    return Status(
        identity=Identity(found.st_ino, found.st_mtime_ns, found.st_size),
        device=found.st_dev,
        owner=found.st_uid,
        permissions=stat.S_IMODE(found.st_mode),
        is_file=stat.S_ISREG(found.st_mode),
        is_directory=stat.S_ISDIR(found.st_mode),
    )
