"""Deleting what nobody needs: what landed commits dropped, and what replaced brokers left behind.

Rules:
* A sweep never asks what the root names: it deletes objects of lower epochs that are not real, by name alone. So it
  may run at any time, twice, even by a broker that has been replaced.
* Only a sweep that has run to its end counts.
* A deletion that fails loses nothing: the object is not real, or stays in the trash; a later broker sweeps again.
"""

from __future__ import annotations

import itertools
import logging

from osqueue.broker.loop import CommitLoop
from osqueue.broker.writer import WorkThread
from osqueue.core.model import Frame
from osqueue.core.objects import is_sweepable, parse
from osqueue.storage import Storage

_log = logging.getLogger("osqueue")

AT_ONCE = 100


class Sweep:
    """Deletes in a work thread, in small parts between other work. All methods run on the loop's thread."""

    def __init__(self, storage: Storage, commits: CommitLoop, thread: WorkThread) -> None:
        self._storage = storage
        self._commits = commits
        self._thread = thread

    def start(self, frame: Frame) -> None:
        """Once, after a takeover: delete the trash that it found, and all that is not real."""
        if frame.trash:
            self.delete(list(frame.trash))
        self._thread.submit(
            lambda: self._find(frame), done=lambda keys: self._go_on(keys, frame.epoch), failed=_not_swept
        )

    def delete(self, keys: list[str]) -> None:
        """Delete what a landed commit has dropped."""
        self._thread.submit(
            lambda: self._delete_all(keys), done=lambda _: self._commits.deleted(keys), failed=_not_swept
        )

    def _find(self, frame: Frame) -> list[str]:
        keys = itertools.chain(self._storage.list("segments/"), self._storage.list("archive/"))
        return [key for key in keys if (name := parse(key)) is not None and is_sweepable(name, frame)]

    def _go_on(self, keys: list[str], epoch: int) -> None:
        if not keys:
            self._commits.machine.swept(epoch)
            return
        part, rest = keys[:AT_ONCE], keys[AT_ONCE:]
        self._thread.submit(lambda: self._delete_all(part), done=lambda _: self._go_on(rest, epoch), failed=_not_swept)

    def _delete_all(self, keys: list[str]) -> None:
        for key in keys:
            self._storage.delete(key)


def _not_swept(error: Exception) -> None:
    _log.warning("objects could not be swept, the next broker will try again reason=%s", error)
