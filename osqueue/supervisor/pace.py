"""How long jobs usually run, by task: what chunks and the claim window are measured by."""

from __future__ import annotations

from collections.abc import Iterable

from osqueue.worker.messages import Ran

_NEWEST_SHARE = 0.2


class _Average:
    """Moves towards newer values, the faster the fewer it has seen."""

    __slots__ = ("seen", "value")

    def __init__(self) -> None:
        self.seen = 0
        self.value = 0.0

    def note(self, count: int, mean: float) -> None:
        self.seen += count
        share = max(1 - (1 - _NEWEST_SHARE) ** count, count / self.seen)
        self.value += share * (mean - self.value)


class Pace:
    """Observed run times."""

    def __init__(self) -> None:
        self._by_task: dict[str, _Average] = {}
        self._overall = _Average()

    def note(self, ran: Iterable[Ran]) -> None:
        """Take in what a worker measured."""
        for part in ran:
            if part.count > 0:
                mean = max(1.0, part.total_ns / part.count)
                self._by_task.setdefault(part.task, _Average()).note(part.count, mean)
                self._overall.note(part.count, mean)

    def usual_ns(self, task: str) -> float | None:
        """How long a job of the task usually runs; None while none has ended."""
        average = self._by_task.get(task)
        return None if average is None else average.value

    def seen(self, task: str) -> int:
        """How many jobs of the task have ended here."""
        average = self._by_task.get(task)
        return 0 if average is None else average.seen

    def overall_ns(self) -> float | None:
        """How long a job usually runs, whatever its task; None while none has ended."""
        return self._overall.value if self._overall.seen else None
