"""Watching the local processes that hold leases: a lease ends with its holder's process, however connections fare."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable

from osqueue import host
from osqueue.broker.loop import CommitLoop
from osqueue.broker.takeover import Ended, has_ended, look_at
from osqueue.broker.writer import WorkThread
from osqueue.clock import QueueClock
from osqueue.core.messages import Holder

_log = logging.getLogger("osqueue")


class Holders:
    """The processes that are watched, each by one descriptor. All methods run on the loop's thread.

    Args:
        loop: where they are watched.
        commits: is told which leases have ended.
        reader: looks at blame files, which may take until a dead holder's workers are gone too.
        clock: the queue's time.
        directory: the queue's directory, where blame files are.
        on_ended: called when leases have ended.
        failed: called if a holder cannot be looked at.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        commits: CommitLoop,
        reader: WorkThread,
        *,
        clock: QueueClock,
        directory: str,
        on_ended: Callable[[], None],
        failed: Callable[[Exception], None],
    ) -> None:
        self._loop = loop
        self._commits = commits
        self._reader = reader
        self._clock = clock
        self._directory = directory
        self._on_ended = on_ended
        self._failed = failed
        self._descriptors: dict[Holder, int] = {}

    def watch(self, holder: Holder) -> bool:
        """See to it that the holder's leases end with its process; False if nobody here can tell when that is."""
        if holder in self._descriptors:
            return True
        descriptor = host.open_pidfd(holder.pid)
        ended = has_ended(holder, self._directory)
        if ended is False and descriptor is not None:
            self._descriptors[holder] = descriptor
            self._loop.add_reader(descriptor, self._holder_ended, holder)
            return True
        if descriptor is not None:
            os.close(descriptor)
        if ended:
            self._look_at(holder)
        elif ended is None:
            for lease in self._leases_of(holder):
                self._commits.machine.treat_as_remote(lease, self._clock.now_ms())
        return ended is not None

    def close(self) -> None:
        """Watch nobody any more."""
        for descriptor in self._descriptors.values():
            self._loop.remove_reader(descriptor)
            os.close(descriptor)
        self._descriptors.clear()

    def _holder_ended(self, holder: Holder) -> None:
        descriptor = self._descriptors.pop(holder)
        self._loop.remove_reader(descriptor)
        os.close(descriptor)
        self._look_at(holder)

    def _leases_of(self, holder: Holder) -> list[int]:
        return [x.number for x in self._commits.machine.state.leases.all() if x.holder == holder]

    def _look_at(self, holder: Holder) -> None:
        leases = self._leases_of(holder)
        self._reader.submit(
            lambda: [look_at(lease, holder, self._directory) for lease in leases],
            done=self._end,
            failed=self._failed,
        )

    def _end(self, ended: list[Ended]) -> None:
        for end in ended:
            _log.info("holder ended lease=%d known=%s charged=%d", end.lease, end.known, len(end.charged))
            self._commits.lease_ended(end.lease, end.charged, marks=not end.known, blame_path=end.blame_path)
        if ended:
            self._on_ended()
