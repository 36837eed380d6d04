"""Making objects appear in a directory whole and for good, whatever instruction the machine stops at.

    temporary file ─▶ write all ─▶ fsync ─▶ close ─▶ rename or link ─▶ fsync(directory) ─▶ return

Rules:
* Until the rename or link nothing can be seen: an error before it is `WriteFailed`, and the next try uses a new
  temporary file, since a kernel that could not write a page marks it clean and the next fsync would lie.
* An error of the rename, the link or the directory's fsync is `WriteUnknown`. After one, nothing is written any more.
* The root is renamed over the old one. New names are linked, which can never replace what another process put there.
* A directory counts once its parent has been synced, which is done once per opening, whoever made it.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from osqueue.storage.base import WriteFailed, WriteUnknown
from osqueue.storage.files import Files, Identity

TEMPORARY_PREFIX = ".tmp-"


class Publisher:
    """Writes objects into directories. Any thread may call any method, for different names at a time.

    Args:
        files: the system calls.
        durable: False to leave out every fsync: whole after a crash of the process, lost after a power cut.
    """

    def __init__(self, files: Files, *, durable: bool) -> None:
        self._files = files
        self._durable = durable
        self._broken: WriteUnknown | None = None
        self._making = threading.Lock()

    def replace(self, directory: int, name: str, data: bytes, check: Callable[[], None]) -> Identity:
        """Put ``data`` under ``name`` in place of what has it, if ``check`` does not raise just before.

        Returns:
            What tells the new file from any other.
        """
        with self._temporary(directory, name, data) as (temporary, identity):
            with nothing_published(name):
                check()
            with self._deciding(name):
                self._files.rename(temporary, name, directory)
        self._sync(directory, name)
        return identity

    def add(self, directory: int, name: str, data: bytes, check: Callable[[], None] = lambda: None) -> Identity:
        """Put ``data`` under a ``name`` that nothing has yet, if ``check`` does not raise just before.

        Raises:
            FileExistsError: something has the name; nothing was written.
        """
        with self._temporary(directory, name, data) as (temporary, identity):
            with nothing_published(name):
                check()
            with self._deciding(name):
                self._files.link(temporary, name, directory)
            self._discard(temporary, directory)
        self._sync(directory, name)
        return identity

    def confirm(self, directory: int, name: str) -> None:
        """Have a name that is there already survive a power cut."""
        self._refuse_if_broken()
        self._sync(directory, name)

    def remove(self, directory: int, name: str) -> None:
        """Take a name away, for good; a missing one is fine.

        It has to be for good: a takeover is forgotten once the objects that it made unreal are deleted, and one that
        came back after a power cut would then count as real.
        """
        self._refuse_if_broken()
        with nothing_published(name), suppress(FileNotFoundError):
            self._files.unlink(name, directory)
        self._sync(directory, name)

    def move(self, directory: int, name: str, target: int, new_name: str) -> None:
        """Take a name away and put what had it elsewhere, under a name that nothing has."""
        self._refuse_if_broken()
        with self._deciding(name):
            self._files.move(name, directory, new_name, target)
        self._sync(target, name)
        self._sync(directory, name)

    def make_directory(self, parent: int, name: str) -> None:
        """Make a directory unless it is there, and have it survive a power cut."""
        self._refuse_if_broken()
        with self._making:
            with nothing_published(name), suppress(FileExistsError):
                self._files.make_directory(name, parent)
            self._sync(parent, name)

    def sync_path(self, path: str) -> None:
        """Have the names in a directory survive a power cut."""
        with nothing_published(path):
            directory = self._files.open_path(path)
        try:
            self._sync(directory, path)
        finally:
            self._files.close(directory)

    @contextmanager
    def _temporary(self, directory: int, name: str, data: bytes) -> Iterator[tuple[str, Identity]]:
        """A synced file of ``data`` under a name that nobody reads; taken away again if the block raises."""
        self._refuse_if_broken()
        temporary = TEMPORARY_PREFIX + secrets.token_hex(8)
        with nothing_published(name):
            file = self._files.open_new(temporary, directory)
        try:
            with nothing_published(name):
                identity = self._fill(file, data)
            yield temporary, identity
        except BaseException:
            self._discard(temporary, directory)
            raise

    def _fill(self, file: int, data: bytes) -> Identity:
        try:
            rest = memoryview(data)
            while rest:
                rest = rest[self._files.write(file, rest) :]
            if self._durable:
                self._files.sync(file)
            identity = self._files.status(file).identity
        except BaseException:
            with suppress(OSError):  # the first error says why; the file is thrown away
                self._files.close(file)
            raise
        self._files.close(file)
        return identity

    def _discard(self, temporary: str, directory: int) -> None:
        with suppress(OSError):  # nobody reads it, and the next opener sweeps it
            self._files.unlink(temporary, directory)

    def _sync(self, directory: int, name: str) -> None:
        if not self._durable:
            return
        with self._deciding(name):
            self._files.sync_directory(directory)

    @contextmanager
    def _deciding(self, name: str) -> Iterator[None]:
        """Around the calls whose failure leaves it open what stands on the disk."""
        try:
            yield
        except FileExistsError:
            raise  # of a link: the one error that says for certain that nothing happened
        except OSError as error:
            message = f"unknown whether it was written: {name=!s} error={error.strerror}"
            self._broken = WriteUnknown(message, key=name, errno=error.errno)
            raise self._broken from error

    def _refuse_if_broken(self) -> None:
        if self._broken is not None:
            message = f"nothing is written after an unknown outcome ({self._broken})"
            raise WriteUnknown(message, key=self._broken.key, errno=self._broken.errno)


@contextmanager
def nothing_published(key: str) -> Iterator[None]:
    """Around the calls whose failure leaves everything as it was."""
    try:
        yield
    except OSError as error:
        raise WriteFailed(f"not written: {key=!s} error={error.strerror}", key=key, errno=error.errno) from error
