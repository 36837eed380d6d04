"""What a batch came to: counts before and after, as one line or one JSON object."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from osqueue.cli.output import jobs_and, print_json
from osqueue.clock import boot_ms
from osqueue.core.messages import Stats, TaskStats

_STANDING_POLL_S = 0.02
_ENDS = ("succeeded", "dead", "cancelled")


class Summary:
    """The jobs that ended between its making and its printing.

    Args:
        before: the counts at the beginning.
        tasks: those that count; None for all.
    """

    def __init__(self, before: Stats, tasks: Sequence[str] | None = None) -> None:
        self._tasks = tasks
        self._before = self._counts(before)
        self._started_ms = boot_ms()

    def ended(self, after: Stats) -> int:
        """How many ended."""
        return sum(self._since(after).values())

    def died(self, after: Stats) -> bool:
        """Whether any of them died."""
        return self._since(after)["dead"] > 0

    def print(self, after: Stats, *, as_json: bool = False) -> None:
        """Say it."""
        counts = self._since(after)
        took_s = (boot_ms() - self._started_ms) / 1000
        if as_json:
            print_json({"jobs": sum(counts.values()), **counts, "seconds": took_s})
            return
        jobs = sum(counts.values())
        said = ", ".join(f"{count} {name}" for name, count in counts.items() if count or name != "cancelled")
        rate = jobs / max(took_s, 0.001)
        print(f"{jobs_and(jobs)} in {took_s:.1f} s ({rate:.{0 if rate >= 10 else 1}f}/s): {said}")

    def _since(self, after: Stats) -> dict[str, int]:
        return {name: count - self._before[name] for name, count in self._counts(after).items()}

    def _counts(self, stats: Stats) -> dict[str, int]:
        if self._tasks is None:
            return {name: getattr(stats, name) for name in _ENDS}
        of_tasks = [stats.tasks.get(task, TaskStats()) for task in self._tasks]
        return {name: sum(getattr(task, name) for task in of_tasks) for name in _ENDS}


def see_a_worker_stand(standing: Callable[[], int]) -> None:
    """Wait until it is certain that workers can import their handlers.

    Args:
        standing: how many workers stand; raises `PoolBroken` if they cannot.
    """
    while standing() == 0:
        time.sleep(_STANDING_POLL_S)
