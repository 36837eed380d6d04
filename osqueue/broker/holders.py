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
RETIRED_S = 1.0


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
        self._descriptors: dict[Holder, int | None] = {}
        """None where the system has no descriptors of processes: then only a later takeover finds out."""
        self._alarm: asyncio.TimerHandle | None = None
        self._looking: set[Holder] = set()
        self._ending: set[int] = set()
        """Leases that the commit loop was told of, and that are still there."""

    def watch_all(self) -> None:
        """Watch the holder of every lease; to be called whenever there may be new ones."""
        held = [lease for lease in self._commits.machine.state.leases.all() if lease.holder and not lease.is_remote]
        self._ending.intersection_update(lease.number for lease in held)
        for lease in held:
            if lease.holder is not None and lease.number not in self._ending:
                self.watch(lease.holder)
        if self._alarm is None and any(not self._commits.serves(lease.session) for lease in held):
            self._alarm = self._loop.call_later(RETIRED_S, self._look_for_retired)

    def _look_for_retired(self) -> None:
        """A supervisor that found no way here may end without its process: its blame file is gone then."""
        self._alarm = None
        absent = {x.holder for x in self._commits.machine.state.leases.all() if not self._commits.serves(x.session)}
        for holder in absent & self._descriptors.keys():
            if holder is not None and has_ended(holder, self._directory):
                self._holder_ended(holder)
        self.watch_all()

    def watch(self, holder: Holder) -> bool:
        """See to it that the holder's leases end with its process; False if nobody here can tell when that is."""
        if holder in self._descriptors or holder in self._looking:
            return True
        descriptor = host.open_pidfd(holder.pid)
        ended = has_ended(holder, self._directory)
        if ended is False:
            self._descriptors[holder] = descriptor
            if descriptor is not None:
                self._loop.add_reader(descriptor, self._holder_ended, holder)
            return True
        if descriptor is not None:
            os.close(descriptor)
        if ended:
            self._look_at(holder)
        else:
            for lease in self._leases_of(holder):
                self._commits.machine.treat_as_remote(lease, self._clock.now_ms())
        return ended is not None

    def close(self) -> None:
        """Watch nobody any more."""
        if self._alarm is not None:
            self._alarm.cancel()
        for holder in list(self._descriptors):
            self._unwatch(holder)

    def _holder_ended(self, holder: Holder) -> None:
        self._unwatch(holder)
        self._look_at(holder)

    def _unwatch(self, holder: Holder) -> None:
        descriptor = self._descriptors.pop(holder)
        if descriptor is not None:
            self._loop.remove_reader(descriptor)
            os.close(descriptor)

    def _leases_of(self, holder: Holder) -> list[int]:
        return [x.number for x in self._commits.machine.state.leases.all() if x.holder == holder]

    def _look_at(self, holder: Holder) -> None:
        self._looking.add(holder)
        self._reader.submit(
            lambda: look_at(holder, self._directory), done=lambda ended: self._end(holder, ended), failed=self._failed
        )

    def _end(self, holder: Holder, ended: Ended) -> None:
        self._looking.discard(holder)
        for lease in self._leases_of(holder):
            self._ending.add(lease)
            _log.info("holder ended lease=%d known=%s charged=%d", lease, ended.known, len(ended.charged))
            self._commits.lease_ended(lease, ended.charged, marks=not ended.known, blame_path=ended.blame_path)
        self._on_ended()
