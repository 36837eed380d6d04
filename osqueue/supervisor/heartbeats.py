"""What the broker hears of the jobs that run: a heartbeat a second while there are any, and more where it matters.

Where the queue is bounded (``max_queued``), a job that has begun makes room for another: that is told within some
milliseconds, not with the next heartbeat.
"""

from __future__ import annotations

import asyncio

from osqueue.supervisor.foreman import Foreman
from osqueue.supervisor.link import Link
from osqueue.supervisor.memory import Memory

_LOOK_S = 0.25
_LOOKS_PER_BEAT = 4
_BEGUN_S = 0.02


class Heartbeats:
    """Timers that run while there is something to say. On the loop's thread.

    Args:
        loop: the supervisor's.
        link: the way to its broker.
        foreman: knows what runs.
        memory: of the workers that run something; it is looked at on the way.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, link: Link, foreman: Foreman, memory: Memory) -> None:
        self._loop = loop
        self._link = link
        self._foreman = foreman
        self._memory = memory
        self._looking: asyncio.TimerHandle | None = None
        self._looks = 0
        self._telling: asyncio.TimerHandle | None = None
        self._told: list[int] = []

    def beat(self) -> None:
        """Send one now, with what runs at this moment."""
        self._told = self._running()
        self._link.heartbeat(self._told, self._foreman.progress())

    def forgotten(self) -> None:
        """A new broker has heard nothing yet."""
        self._told = []

    def go_on(self) -> None:
        """Something has happened: workers may have begun jobs."""
        looks = self._looking is None
        tells = self._telling is None and self._link.bounded
        if not (looks or tells) or not self._foreman.busy():
            return
        if looks:
            self._looking = self._loop.call_later(_LOOK_S, self._look)
        if tells:
            self._telling = self._loop.call_later(_BEGUN_S, self._tell_begun)

    def end(self) -> None:
        """Say nothing any more."""
        for timer in (self._looking, self._telling):
            if timer is not None:
                timer.cancel()
        self._looking = self._telling = None

    def _running(self) -> list[int]:
        return [job_id for ids in self._foreman.running().values() for job_id in ids]

    def _look(self) -> None:
        """While there is work: note the workers' memory four times a second, and say once a second what runs."""
        busy = self._foreman.busy()
        self._memory.look(busy)
        self._looks += 1
        if self._looks % _LOOKS_PER_BEAT == 0 and (busy or self._told):
            self.beat()
        goes_on = busy or self._told
        self._looking = self._loop.call_later(_LOOK_S, self._look) if goes_on else None

    def _tell_begun(self) -> None:
        """A moment after events: say what has begun since, and look again while a worker has yet to begin."""
        running = self._running()
        if running != self._told:
            self.beat()
        waits = len(running) < len(self._foreman.busy())
        self._telling = self._loop.call_later(_BEGUN_S, self._tell_begun) if waits else None
