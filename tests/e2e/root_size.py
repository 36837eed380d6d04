"""Watching how large a queue's root becomes while others work on it."""

from __future__ import annotations

import threading
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

MOST_BYTES = 128 * 1024


class RootSize:
    """In a ``with`` block: looks at ``queue.json`` all the time, and fails on leaving if it was ever too large."""

    def __init__(self, queue: Path) -> None:
        self.most = 0
        self.looks = 0
        self._root = queue / "queue.json"
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._look, name="root-size")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._end.set()
        self._thread.join()
        if error is None:
            assert self.looks > 0
            assert self.most <= MOST_BYTES

    def _look(self) -> None:
        while not self._end.wait(0.002):
            with suppress(FileNotFoundError):  # not made yet
                self.most = max(self.most, self._root.stat().st_size)
                self.looks += 1
