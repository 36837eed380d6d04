"""How many jobs of each task are in which state: what `stats` answers without looking at a job."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from osqueue.core.model import Counts

MAX_TASKS_BYTES = 4 * 1024
_BYTES_PER_TASK = 160


class TaskCounts:
    """Counts by task. Every move of a job is one `move`."""

    def __init__(self, tasks: dict[str, Counts]) -> None:
        self._tasks = tasks

    def __getitem__(self, task: str) -> Counts:
        counts = self._tasks.get(task)
        if counts is None:
            counts = self._tasks[task] = Counts()
        return counts

    def items(self) -> Iterable[tuple[str, Counts]]:
        return self._tasks.items()

    def can_add(self, task: str) -> bool:
        """Whether the root has room for one more task's line."""
        size = sum(len(name) + _BYTES_PER_TASK for name in self._tasks)
        return task in self._tasks or size + len(task) + _BYTES_PER_TASK <= MAX_TASKS_BYTES

    def move(self, task: str, source: str | None, target: str | None, count: int = 1) -> None:
        """``count`` jobs go from one state to another; None is outside."""
        counts = self[task]
        if source is not None:
            setattr(counts, source, getattr(counts, source) - count)
        if target is not None:
            setattr(counts, target, getattr(counts, target) + count)

    def unfinished(self, tasks: Iterable[str]) -> int:
        """Jobs of these tasks that are ready, delayed or running."""
        found = [self._tasks[task] for task in tasks if task in self._tasks]
        return sum(counts.ready + counts.delayed + counts.leased for counts in found)

    def encoded(self) -> bytes:
        return msgspec.json.encode(self._tasks)
