"""What a pool says when it is left: dead jobs, jobs that nobody here can run, a private directory that is kept."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Collection

from osqueue.core.messages import JobRecord, Stats
from osqueue.pool.directory import PoolDirectory

_log = logging.getLogger("osqueue")
_SHOWN_CHARS = 200


def warn_of_dead(first: JobRecord | None, directory: PoolDirectory, died: int) -> None:
    """One warning for all jobs that died while the pool was open."""
    if died <= 0:
        return
    kept = f"; the private directory is kept: {directory.path}" if directory.private else ""
    _log.warning(
        "%d job%s died; first error: %s; see: osqueue list %s --state dead%s",
        died,
        "" if died == 1 else "s",
        _first_error(first),
        shlex.quote(str(directory.path)),
        kept,
    )


class OtherTasks:
    """Jobs of tasks that a pool has no handlers for wait on, and nobody here waits for them.

    Args:
        tasks: those that the pool has handlers for.
    """

    def __init__(self, tasks: Collection[str]) -> None:
        self._tasks = tasks
        self._told: dict[str, int] = {}

    def warn(self, stats: Stats) -> None:
        """Name them, unless nothing has changed since they were named last."""
        others = {
            task: count
            for task, of in sorted(stats.tasks.items())
            if task not in self._tasks and (count := of.ready + of.delayed + of.running)
        }
        if others and others != self._told:
            named = ", ".join(f"{task}: {count}" for task, count in others.items())
            _log.warning("jobs of tasks without a handler in this pool stay in the queue: %s", named)
        self._told = others


def warn_of_unfinished(directory: PoolDirectory, stats: Stats | None, how: str) -> None:
    """One warning for all jobs that a pool leaves behind; without counts if the broker could not tell them.

    Args:
        directory: where they are.
        stats: the counts at the end.
        how: what became of the pool, "stopped" or "never closed".
    """
    if stats is not None and unfinished(stats) == 0:
        return
    place = "the private directory is kept: open path=%s" if directory.private else "open the same path=%s"
    _log.warning(f"the pool was %s; %s; {place} again to go on", how, _counted(stats), directory.path)


def warn_of_paused() -> None:
    """A pool that is left waits for its jobs, so it does not stay paused."""
    _log.warning(
        "the pool was left while it was paused: it goes on, since leaving waits for every job; stop() does not"
    )


def unfinished(stats: Stats) -> int:
    """How many jobs are not final."""
    return stats.ready + stats.delayed + stats.running


def _counted(stats: Stats | None) -> str:
    if stats is None:
        return "jobs that had not ended wait"
    count = unfinished(stats)
    states = {"ready": stats.ready, "delayed": stats.delayed, "running": stats.running}
    named = ", ".join(f"{jobs} {state}" for state, jobs in states.items() if jobs)
    return f"{count} unfinished job{' waits' if count == 1 else 's wait'} ({named})"


def _first_error(record: JobRecord | None) -> str:
    if record is None or not record.errors:
        return "unknown"
    error = record.errors[-1]
    line = " ".join(error.message.split())
    clipped = line if len(line) <= _SHOWN_CHARS else line[:_SHOWN_CHARS] + "…"
    return f"{error.error_type}: {clipped} (job {record.id})"
