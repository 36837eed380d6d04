"""What a queue needs of a place to keep its objects: five verbs, and four outcomes of a write.

    done           the call returns: the bytes are there, and survive a power cut
    refused        Conflict: another version or other bytes; this call wrote nothing
    failed         WriteFailed: nothing was published; the same bytes may be written again
    unknown        WriteUnknown: it may or may not have happened

Rules:
* Only ``compare_and_swap`` replaces an object; everything else is made once and never changed.
* Storage is synchronous and blocks: it is called from writer threads, never from an event loop. One thread swaps;
  meanwhile others may create, read, delete and list, each on keys that no other call is writing.
* Nothing here knows what the bytes mean.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NewType, Protocol, Self, runtime_checkable

from osqueue.errors import OsqueueError, Unavailable

Version = NewType("Version", str)
"""Names one state of one object. Equal versions mean equal bytes; otherwise opaque, and valid for one opening."""

_KEY = re.compile(r"[a-z0-9][A-Za-z0-9._/-]*")


class StorageError(OsqueueError):
    """What a storage says instead of doing it.

    Attributes:
        key: the object that was meant; empty when it was none in particular.
        errno: the system's error number, where there is one.
    """

    def __init__(self, message: str, *, key: str = "", errno: int | None = None) -> None:
        super().__init__(message)
        self.key = key
        self.errno = errno


class NotFound(StorageError):
    """No object has this key. Read the root again: it names only what exists."""


class Conflict(StorageError):
    """Refused: the object is in another version, or a created key holds other bytes.

    This call wrote nothing; an earlier try of the same bytes may have. Read the object to see whose bytes they are.
    """


class ReadFailed(StorageError):
    """The object may be there, but cannot be read now. Try again, or stop."""


class WriteFailed(StorageError):
    """Definitely not published: no room, or an error before anything could be seen. Write the same bytes again."""


class WriteUnknown(StorageError):
    """Unknown whether it was published, or whether it would survive a power cut.

    Where the same bytes may be sent again (a bucket), send them with the same expectation until it is decided. A
    directory refuses every later write with this error: answer nobody, stop, and let the next opener read what stands.
    """


class StorageLost(StorageError, Unavailable):
    """The broker has stopped, since its storage failed for good; what it had not answered may have happened or not.

    Mend what the message names, and open the queue again: what was acknowledged is there.
    """

    @classmethod
    def to(cls, error: StorageError) -> Self:
        """What whoever waits for the broker is told of the error that stopped it."""
        message = f"the queue's storage has failed; mend it, then open the queue again: {error}"
        return cls(message, key=error.key, errno=error.errno)

    def again(self) -> Any:
        """Nothing can be repeated: the connection has ended with the broker."""
        raise RuntimeError("the broker has stopped; open the queue again, and look whether it happened")


class Reader(Protocol):
    """The half of a storage that changes nothing."""

    def read(self, key: str) -> tuple[bytes, Version]:
        """The object's bytes and the version they are.

        Raises:
            NotFound: there is no such object.
            Corrupt: what stands there is not a plain object.
            ReadFailed: it cannot be read now.
            ValueError: no object may be called so.
        """

    def list(self, prefix: str) -> Iterator[str]:
        """All keys that begin with ``prefix``, in ascending order; what is made or deleted meanwhile may be missed.

        Args:
            prefix: beginning of keys; ends anywhere, also in the middle of a name. Empty for all.

        Raises:
            Corrupt: something else stands where a part of the queue should be.
            ReadFailed: a part cannot be listed now.
        """

    def close(self) -> None:
        """Give back what the opening took; further calls are a ``ValueError``. Twice is fine.

        Call it when every other call has returned.
        """


@runtime_checkable
class Storage(Reader, Protocol):
    """A place for the queue's objects. Implement these verbs to keep a queue anywhere else."""

    def compare_and_swap(self, key: str, data: bytes, expected: Version | None) -> Version:
        """Replace the object if it is still in version ``expected``.

        Args:
            key: the object to replace.
            data: its new bytes.
            expected: the version last read or written; None to create.

        Returns:
            The new version.

        Raises:
            Conflict: the object is in another version. This call wrote nothing; an earlier try of the same bytes may
                have.
            WriteFailed: nothing was published; write the same bytes again.
            WriteUnknown: unknown whether it happened.
            Fenced: another process has taken the place over; stop.
            ValueError: no object may be called so.
        """

    def create(self, key: str, data: bytes) -> None:
        """Make an object that must not change any more. Done, too, if the key already holds these very bytes.

        Raises:
            Conflict: the key holds other bytes.
            WriteFailed: nothing was published; write the same bytes again.
            WriteUnknown: unknown whether it happened; the same call again decides it.
            ValueError: no object may be called so.
        """

    def delete(self, key: str) -> None:
        """Remove the object, for good. A missing one is fine.

        Raises:
            WriteFailed: it is still there; delete it again.
            WriteUnknown: it may come back after a power cut.
            ValueError: no object may be called so.
        """


@runtime_checkable
class Bounded(Protocol):
    """A storage that can fill up and knows how full it is."""

    def has_room(self) -> bool:
        """False when so little is free that only what ends jobs should still be written."""


def has_room(storage: Storage) -> bool:
    """Whether new jobs should be accepted; a storage that knows no bound always has room."""
    return not isinstance(storage, Bounded) or storage.has_room()


def is_key(text: str) -> bool:
    """Whether an object may be called so: ``[a-z0-9][A-Za-z0-9._/-]*``, no part empty or beginning with a dot."""
    parts = text.split("/")
    return _KEY.fullmatch(text) is not None and ".." not in text and all(part[:1] not in ("", ".") for part in parts)


def check_key(key: str) -> str:
    """The key itself.

    Raises:
        ValueError: no object may be called so.
    """
    if not is_key(key):
        raise ValueError(
            "a key has letters, digits, '-', '_', '.' and '/' only, begins with a small letter or digit, "
            f"and has no '..' and no part that is empty or begins with a dot: {key=}"
        )
    return key
