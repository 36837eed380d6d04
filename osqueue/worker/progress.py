"""How far a handler says that its job is, on its way to the supervisor: some ten times a second, and always the last.

Rules:
* The handler's thread only leaves its word: a thread of the worker's sends it. So a handler is never held up, and one
  that is interrupted, as by a signal's exception, cannot leave half a message behind.
* That thread is started when it is first needed.
"""

from __future__ import annotations

import os
import queue
import threading
import time

from osqueue.context import Stage
from osqueue.core.messages import Handout
from osqueue.worker.messages import Progressed
from osqueue.worker.outbox import Outbox
from osqueue.worker.reader import leave_signals_to_main_thread

_INTERVAL_S = 0.1


class ProgressTeller:
    """Tells the latest word. `tell` is for any thread of the worker."""

    def __init__(self, outbox: Outbox, stage: Stage) -> None:
        self._outbox = outbox
        self._stage = stage
        self._latest: tuple[Handout, float, str] | None = None
        self._news: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._woken = False
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None
        self._forked = False
        os.register_at_fork(after_in_child=self._in_forked_child)

    def tell(self, job: Handout, fraction: float, message: str) -> None:
        """Say it of the job that runs, soon; never waits, never fails."""
        if self._forked:
            return  # a process that the handler forked has nobody to talk to
        self._latest = (job, fraction, message)
        if self._thread is None:
            self._start()
        if not self._woken:
            self._woken = True
            self._news.put(None)

    def _start(self) -> None:
        with self._starting:
            if self._thread is None:
                thread = threading.Thread(target=self._run, name="osqueue-progress", daemon=True)
                thread.start()
                self._thread = thread

    def _run(self) -> None:
        leave_signals_to_main_thread()
        while True:
            self._news.get()
            # In this order: who finds it woken has left its word before it is read here.
            self._woken = False
            if self._latest is not None and not self._say(*self._latest):
                return
            time.sleep(_INTERVAL_S)

    def _say(self, job: Handout, fraction: float, message: str) -> bool:
        """Send it, unless its job has ended; False if nothing can be sent any more."""
        if self._stage.job is job:
            try:
                self._outbox.say(Progressed(job.id, job.attempt, fraction, message))
            except OSError:
                return False  # the main thread finds that out too, and ends the worker
        return True

    def _in_forked_child(self) -> None:
        self._forked = True
