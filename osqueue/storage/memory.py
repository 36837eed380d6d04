"""A storage that forgets: for tests and simulations.

Handles made with ``MemoryStorage(shared=other)`` see the same objects, like two hosts that open one bucket. Any
method may be called from any thread.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator

from osqueue.storage.base import Conflict, NotFound, Version, check_key


class _Objects:
    """The objects and the lock over them; versions are numbers that are never used again."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.stored: dict[str, tuple[bytes, Version]] = {}
        self._last_version = 0

    def put(self, key: str, data: bytes) -> Version:
        self._last_version += 1
        version = Version(str(self._last_version))
        self.stored[key] = (bytes(data), version)
        return version


class MemoryStorage:
    """Objects in this process's memory.

    Args:
        shared: another handle, whose objects are to be seen and changed through this one too.
    """

    def __init__(self, *, shared: MemoryStorage | None = None) -> None:
        self._objects: _Objects = _Objects() if shared is None else shared._objects
        self._closed = False

    def read(self, key: str) -> tuple[bytes, Version]:
        self._check(key)
        with self._objects.lock:
            found = self._objects.stored.get(key)
        if found is None:
            raise NotFound(f"no such object: {key=!s}", key=key)
        return found

    def compare_and_swap(self, key: str, data: bytes, expected: Version | None) -> Version:
        self._check(key)
        with self._objects.lock:
            found = self._objects.stored.get(key)
            actual = None if found is None else found[1]
            if actual != expected:
                message = f"the object is in another version: {key=!s} {expected=!s} {actual=!s}"
                raise Conflict(message, key=key)
            return self._objects.put(key, data)

    def create(self, key: str, data: bytes) -> None:
        self._check(key)
        with self._objects.lock:
            found = self._objects.stored.get(key)
            if found is None:
                self._objects.put(key, data)
                return
        if found[0] != data:
            raise Conflict(f"the key holds other bytes: {key=!s}", key=key)

    def delete(self, key: str) -> None:
        self._check(key)
        with self._objects.lock:
            self._objects.stored.pop(key, None)

    def list(self, prefix: str) -> Iterator[str]:
        self._check("list")
        with self._objects.lock:
            keys = sorted(key for key in self._objects.stored if key.startswith(prefix))
        return iter(keys)

    def close(self) -> None:
        self._closed = True

    def _check(self, key: str) -> None:
        if self._closed:
            raise ValueError("this storage is closed")
        check_key(key)
