"""What a worker has to say, on its way to the supervisor. Both threads of the worker use it."""

from __future__ import annotations

import socket
import threading
from collections import deque

from osqueue.core.messages import Outcome
from osqueue.transport.frames import write_frame
from osqueue.worker.messages import FromWorker, Ran, Wrote

MAX_OUTCOMES = 512
MAX_MESSAGE_BYTES = 512 * 1024

_Finished = tuple[Outcome, str, int]
"""An outcome, its task, and how long it took in nanoseconds."""


class Outbox:
    """Outcomes collect here and are written in batches; other messages go at once. Writing may block: the supervisor
    always reads, and the worker's reader thread goes on reading meanwhile.
    """

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self._finished: deque[_Finished] = deque()
        self._writing = threading.Lock()

    def __len__(self) -> int:
        return len(self._finished)

    def add(self, outcome: Outcome, task: str, took_ns: int) -> None:
        """Keep an outcome for the next `write_out`. Main thread only."""
        self._finished.append((outcome, task, took_ns))

    def say(self, message: FromWorker) -> None:
        """Send a message now.

        Raises:
            OSError: the supervisor is gone.
        """
        with self._writing:
            write_frame(self._channel, message)

    def write_out(self, rss_bytes: int = 0) -> None:
        """Send all outcomes that there are; the kernel has them on return, also those that the other thread took.

        Args:
            rss_bytes: this process's memory after them; 0 for not measured.

        Raises:
            OSError: the supervisor is gone.
        """
        while True:
            with self._writing:  # always once: an outcome that the other thread has taken may not be written yet
                outcomes, ran = self._take_batch()
                if not outcomes:
                    return
                write_frame(self._channel, Wrote(outcomes, list(ran.values()), rss_bytes))

    def _take_batch(self) -> tuple[list[Outcome], dict[str, Ran]]:
        outcomes: list[Outcome] = []
        ran: dict[str, Ran] = {}
        size = 0
        while size < MAX_MESSAGE_BYTES and len(outcomes) < MAX_OUTCOMES:
            try:
                outcome, task, took_ns = self._finished.popleft()
            except IndexError:
                break
            outcomes.append(outcome)
            size += outcome.size()
            total = ran.get(task)
            if total is None:
                ran[task] = Ran(task, 1, took_ns)
            else:
                total.count += 1
                total.total_ns += took_ns
        return outcomes, ran
