"""How a pool is left: when every job has ended, before that, or by nobody at all.

    finish ─▶ every job of its tasks has ended ─┐
    stop ─▶ running jobs get their grace ───────┼─▶ engine stopped ─▶ warnings ─▶ a private directory goes, unless kept
    abandon: the pool was never closed ─────────┘

Rules:
* A private directory is kept for what is unfinished or dead, and when nobody could tell what is in it.
* What is left is said once, also when a Ctrl-C ends the stop itself.
"""

from __future__ import annotations

import contextlib
import os
import weakref
from collections.abc import Sequence

from osqueue.pool.directory import PoolDirectory
from osqueue.pool.engine import Engine
from osqueue.pool.warning import OtherTasks, unfinished, warn_of_dead, warn_of_paused, warn_of_unfinished


class Ending:
    """The end of one pool, which must not be referred to from here: being dropped is one of its ends.

    Args:
        engine: what is to be ended.
        directory: where its queue is.
        tasks: those whose jobs are waited for.
        grace_s: how long running jobs get when they cannot be waited for.
        dead_before: how many jobs were dead when the pool was opened.
    """

    def __init__(
        self, engine: Engine, directory: PoolDirectory, *, tasks: Sequence[str], grace_s: float, dead_before: int
    ) -> None:
        self._engine = engine
        self._directory = directory
        self._tasks = tasks
        self._grace_s = grace_s
        self._dead_before = dead_before
        self.other_tasks = OtherTasks(tasks)
        self._abandonment: weakref.finalize[..., object] | None = None

    def await_abandonment(self, pool: object) -> None:
        """Have everything ended when the pool is dropped, or the interpreter ends, before it is closed."""
        self._abandonment = weakref.finalize(pool, self._abandon, os.getpid())

    def finish(self) -> None:
        """Wait for every job, and end."""
        engine = self._engine
        try:
            if engine.resume():
                warn_of_paused()
            engine.flush()
            stats = engine.client.wait_idle(self._tasks)
            died = stats.dead - self._dead_before
            first_dead = next(engine.client.dead(), None) if died > 0 else None
        except BaseException as error:
            self.stop_after(error)
            raise
        self.other_tasks.warn(stats)
        warn_of_dead(first_dead, self._directory, died)
        self._end(self._grace_s)
        if died <= 0:
            self._directory.remove_private()

    def stop_after(self, error: BaseException | None) -> None:
        """End since the block is left by an error; after a Ctrl-C another one only ends it sooner."""
        if not isinstance(error, KeyboardInterrupt):
            self.stop(self._grace_s)
            return
        with contextlib.suppress(KeyboardInterrupt):
            self.stop(self._grace_s)

    def stop(self, grace_s: float, *, warn: bool = True) -> None:
        """End before every job has; whoever asked for just that of a named path needs no warning."""
        try:
            self._end(grace_s)
        except KeyboardInterrupt:
            if self._engine.reactor.stopped:  # else everything still runs, and is to be abandoned
                self._say_what_is_left("stopped", warn=warn)
            raise
        self._say_what_is_left("stopped", warn=warn)

    # ---------------------------------------------------------------------------------------------------------- private

    def _end(self, grace_s: float) -> None:
        try:
            self._engine.stop(grace_s)
        finally:
            # A Ctrl-C that came before the engine could take it leaves everything running: then the end of the
            # interpreter ends it, and running jobs go back uncharged.
            if self._engine.reactor.stopped and self._abandonment is not None:
                self._abandonment.detach()

    def _abandon(self, pid: int) -> None:
        """Nobody closed the pool: end it, unless this is a process that the user forked."""
        if os.getpid() != pid:
            return
        self._directory.release()
        self._engine.abandon(then=lambda: self._say_what_is_left("never closed", warn=True))

    def _say_what_is_left(self, how: str, *, warn: bool) -> None:
        stats = self._engine.last_stats
        died = 0 if stats is None else stats.dead - self._dead_before
        if warn:
            warn_of_unfinished(self._directory, stats, how)
        warn_of_dead(self._engine.first_dead, self._directory, died)
        if stats is not None and unfinished(stats) == 0 and died <= 0:
            self._directory.remove_private()
