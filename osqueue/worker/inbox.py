"""Jobs that a worker has and has not begun. The reader thread puts in and takes back, the main thread takes out."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Collection

from osqueue.core.messages import Handout


class Inbox:
    """A queue without a lock for both threads: each job leaves it once, since ``popleft`` and ``pop`` are atomic."""

    def __init__(self) -> None:
        self.jobs: deque[Handout] = deque()
        self.offset_ms = 0
        """The broker's time less the boot clock."""
        self._ended = False
        self._news = threading.Event()

    def put(self, jobs: list[Handout], offset_ms: int) -> None:
        """Add jobs behind the others."""
        self.offset_ms = offset_ms
        self.jobs.extend(jobs)
        self._news.set()

    def end(self) -> None:
        """No more jobs will come."""
        self._ended = True
        self._news.set()

    def take_back(self, ids: Collection[int] = ()) -> list[int]:
        """Remove what has not begun: these jobs, or all if none are named. In their order."""
        waiting: list[Handout] = []
        try:
            while True:
                waiting.append(self.jobs.pop())
        except IndexError:
            waiting.reverse()
        if not ids:
            return [job.id for job in waiting]
        kept = [job for job in waiting if job.id not in ids]
        if kept:
            self.jobs.extend(kept)
            self._news.set()
        return [job.id for job in waiting if job.id in ids]

    def wait(self) -> bool:
        """Wait in the main thread until there may be a job; False once the end has come and no job is left."""
        if self._ended:
            return bool(self.jobs)
        self._news.wait()
        self._news.clear()
        return True
