"""How many jobs of each task are in which state: what `stats` answers without looking at a job.

Rules:
* A task has a line of its own while a job of it is unfinished or dead, and afterwards for as long as there is room.
* When there is none, tasks with nothing but finished jobs are added up in one line, `FOLDED`: the totals stay right.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from osqueue.core.model import Counts

MAX_TASKS_BYTES = 4 * 1024
_BYTES_PER_TASK = 100
"""Beside its name: eight numbers that have yet to grow."""
FOLDED = ""


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

    def can_add(self, tasks: Iterable[str]) -> bool:
        """Whether the root has room for these tasks' lines, perhaps after folding others."""
        new = [task for task in tasks if task not in self._tasks]
        if not new or self._have_room(new):
            return True
        self._fold()
        return self._have_room(new)

    def _have_room(self, tasks: list[str]) -> bool:
        added = sum(len(task.encode()) + _BYTES_PER_TASK for task in tasks)
        return len(self.encoded()) + added <= MAX_TASKS_BYTES

    def _fold(self) -> None:
        folded = self[FOLDED]
        for name in [name for name, counts in self._tasks.items() if name != FOLDED and _is_over(counts)]:
            counts = self._tasks.pop(name)
            for field in Counts.__struct_fields__:
                setattr(folded, field, getattr(folded, field) + getattr(counts, field))

    def move(self, task: str, source: str | None, target: str | None, count: int = 1) -> None:
        """``count`` jobs go from one state to another; None is outside."""
        counts = self[task]
        if source is not None:
            setattr(counts, source, getattr(counts, source) - count)
        if target is not None:
            setattr(counts, target, getattr(counts, target) + count)

    def recount_delayed(self, delayed: Mapping[str, int]) -> None:
        """So many of the waiting jobs of each task are delayed, and the others are ready."""
        for task, counts in self._tasks.items():
            waiting = counts.ready + counts.delayed
            counts.delayed = delayed.get(task, 0)
            counts.ready = waiting - counts.delayed

    def ready(self, task: str) -> int:
        """Jobs of a task that wait for a claim."""
        return counts.ready if (counts := self._tasks.get(task)) is not None else 0

    def unfinished(self, tasks: Iterable[str]) -> int:
        """Jobs of these tasks that are ready, delayed or running."""
        found = [self._tasks[task] for task in tasks if task in self._tasks]
        return sum(counts.ready + counts.delayed + counts.leased for counts in found)

    def encoded(self) -> bytes:
        return msgspec.json.encode(self._tasks)


def _is_over(counts: Counts) -> bool:
    return not (counts.ready or counts.delayed or counts.leased or counts.dead)
