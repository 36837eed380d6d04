"""The worker's main thread: one job after the other, on the stage and in the blame slot while its handler runs."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Mapping

from osqueue import clock, host
from osqueue.blame import Slot
from osqueue.context import Stage
from osqueue.core.messages import Handout
from osqueue.worker.attempt import Judgement, Task
from osqueue.worker.inbox import Inbox
from osqueue.worker.outbox import MAX_OUTCOMES, Outbox

_NS_PER_MS = 1_000_000
_WRITE_EVERY_NS = 5 * _NS_PER_MS
_USUALLY_LONG_NS = 1 * _NS_PER_MS
_NEWEST_SHARE = 0.2


class Loop:
    """Runs jobs until the end has come. Belongs to the main thread, so that handlers may use signals.

    Args:
        measure_memory: tell the process's memory with outcomes.
    """

    def __init__(
        self,
        tasks: Mapping[str, Task],
        judgement: Judgement,
        *,
        slot: Slot,
        stage: Stage,
        inbox: Inbox,
        outbox: Outbox,
        measure_memory: bool = False,
    ) -> None:
        self._tasks = tasks
        self._judgement = judgement
        self._slot = slot
        self._stage = stage
        self._inbox = inbox
        self._outbox = outbox
        self._measure_memory = measure_memory
        self._usual_ns: dict[str, float] = {}
        self._written_ns = self._mark_ns = clock.boot_ns()
        self._name = f"{socket.gethostname()}:{os.getpid()}"
        self._last: Handout | None = None
        self._forked = False
        os.register_at_fork(after_in_child=self._in_forked_child)

    def run(self) -> None:
        """Run jobs until the end.

        Raises:
            OSError: nothing can be said to the supervisor any more. The last job is blamed again: either the
                supervisor is gone, or that job has closed the socket and would do so again and again, for nothing.
        """
        try:
            self._run_all()
        except OSError:
            if self._last is not None:
                self._slot.begin(self._last.id, self._last.attempt, self._mark_ns)
            raise

    def _run_all(self) -> None:
        jobs = self._inbox.jobs
        while True:
            try:
                job = jobs.popleft()
            except IndexError:
                self._write_out()
                flush_stdio()
                if not self._inbox.wait():
                    return
                self._mark_ns = clock.boot_ns()
                continue
            self._run(job)

    def _run(self, job: Handout) -> None:
        usual_ns = self._usual_ns.get(job.task)
        if len(self._outbox) and (usual_ns is None or usual_ns > _USUALLY_LONG_NS):
            self._write_out()
        stage, started_ns = self._stage, self._mark_ns
        stage.started_ns = started_ns
        stage.job = job
        self._slot.begin(job.id, job.attempt, started_ns)
        outcome = self._tasks[job.task].attempt(job, self._judgement)
        if not job.last:
            self._slot.end()
        pushes, self._last = stage.leave(), job
        if pushes and outcome.verdict == "succeeded":
            outcome.follow_ups = pushes
        if self._forked:
            # The handler forked and let its child return: there is one worker here, and it is the parent.
            os._exit(1)
        if stage.cancelled_ids:
            stage.cancelled_ids.discard(job.id)
        self._mark_ns = ended_ns = clock.boot_ns()
        offset_ms = self._inbox.offset_ms
        outcome.started_ms = started_ns // _NS_PER_MS + offset_ms
        outcome.finished_ms = ended_ns // _NS_PER_MS + offset_ms
        outcome.worker = self._name
        took_ns = ended_ns - started_ns
        self._usual_ns[job.task] = took_ns if usual_ns is None else usual_ns + _NEWEST_SHARE * (took_ns - usual_ns)
        self._outbox.add(outcome, job.task, took_ns)
        if job.last:
            # Until this is told a death is still charged to the job: it must not run again, ended or not.
            self._write_out()
            self._slot.end()
        elif ended_ns - self._written_ns >= _WRITE_EVERY_NS or len(self._outbox) >= MAX_OUTCOMES:
            self._write_out()

    def _write_out(self) -> None:
        self._outbox.write_out(host.own_resident_bytes() if self._measure_memory and len(self._outbox) else 0)
        self._written_ns = self._mark_ns = clock.boot_ns()

    def _in_forked_child(self) -> None:
        self._forked = True
        self._slot.detach()


def flush_stdio() -> None:
    """Let what handlers printed be seen; a closed or broken standard stream is nobody's failure."""
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except (OSError, ValueError):
            continue
