"""What a pool says when it is left: dead jobs, jobs that nobody here can run, a private directory that is kept."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Collection

from osqueue.client.client import Client
from osqueue.core.messages import JobRecord, Stats
from osqueue.pool_directory import PoolDirectory

_log = logging.getLogger("osqueue")


def warn_of_dead(client: Client, directory: PoolDirectory, died: int) -> None:
    """One warning for all jobs that died while the pool was open."""
    if died <= 0:
        return
    first = next(client.dead(), None)
    kept = f"; the private directory is kept: {directory.path}" if directory.private else ""
    _log.warning(
        "%d job%s died; first error: %s; see: osqueue list %s --state dead%s",
        died,
        "" if died == 1 else "s",
        _first_error(first),
        shlex.quote(str(directory.path)),
        kept,
    )


def warn_of_other_tasks(stats: Stats, tasks: Collection[str]) -> None:
    """Jobs of tasks that this pool has no handlers for wait on, and nobody here waits for them."""
    others = {
        task: count
        for task, of in stats.tasks.items()
        if task not in tasks and (count := of.ready + of.delayed + of.running)
    }
    if others:
        named = ", ".join(f"{task}: {count}" for task, count in sorted(others.items()))
        _log.warning("jobs of tasks without a handler in this pool stay in the queue: %s", named)


def warn_of_kept(directory: PoolDirectory) -> None:
    """A private directory outlives its pool because there are jobs in it."""
    if directory.private:
        _log.warning("the pool was stopped; jobs that had not ended are kept: open path=%s to go on", directory.path)


def unfinished(stats: Stats) -> int:
    """How many jobs are not final."""
    return stats.ready + stats.delayed + stats.running


def _first_error(record: JobRecord | None) -> str:
    if record is None or not record.errors:
        return "unknown"
    error = record.errors[-1]
    return f"{error.error_type}: {error.message} (job {record.id})"
