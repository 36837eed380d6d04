"""Threads that do the broker's blocking work, each its own kind, so that the event loop never waits for a disk.

Rules:
* One thread swaps the root; nothing else is done there.
* A definite error is answered by writing the same bytes again, for `RETRY_S`; whatever is still wrong then, or cannot
  be known, ends the broker: it answers nobody, and its successor starts from what stands.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable
from queue import SimpleQueue
from typing import TypeVar

from osqueue.core.commit import Commit
from osqueue.storage import ROOT_KEY, Storage, Version, WriteFailed

RETRY_S = 5.0
_RETRY_PAUSE_S = 0.05

T = TypeVar("T")


class WorkThread:
    """One daemon thread that runs what it is given, in order, and reports to an event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, name: str) -> None:
        self._loop = loop
        self._work: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def submit(
        self, work: Callable[[], T], *, done: Callable[[T], object], failed: Callable[[Exception], object]
    ) -> None:
        """Run ``work`` in the thread; then call ``done`` with its result or ``failed`` on the loop's thread."""

        def run() -> None:
            try:
                result = work()
            except Exception as error:  # noqa: BLE001 - handed to `failed`, which ends the broker or says why not
                self._report(failed, error)
            else:
                self._report(done, result)

        self._work.put(run)

    def stop(self) -> None:
        """Run what was submitted, then end."""
        self._work.put(None)
        self._thread.join()

    def _report(self, callback: Callable[[T], object], value: T) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: the broker has ended, nobody waits
            self._loop.call_soon_threadsafe(callback, value)

    def _run(self) -> None:
        while (work := self._work.get()) is not None:
            work()


class RootWriter:
    """Writes commits in order. `swap` belongs to one thread, `create` may run beside it."""

    def __init__(self, storage: Storage, version: Version | None) -> None:
        self._storage = storage
        self._version = version

    def create(self, commit: Commit) -> None:
        """Make a commit's objects."""
        for key, data in commit.objects.items():
            self._until_written(lambda key=key, data=data: self._storage.create(key, data))  # type: ignore[misc]

    def swap(self, commit: Commit) -> None:
        """Replace the root."""
        self._version = self._until_written(
            lambda: self._storage.compare_and_swap(ROOT_KEY, commit.root, self._version)
        )

    def _until_written(self, write: Callable[[], T]) -> T:
        tries = round(RETRY_S / _RETRY_PAUSE_S)
        while True:
            try:
                return write()
            except WriteFailed:
                tries -= 1
                if tries <= 0:
                    raise
                time.sleep(_RETRY_PAUSE_S)
