"""Deleting what nobody needs: what landed commits dropped, and what replaced brokers and killed pools left behind.

Rules:
* A sweep never asks what the root names: it deletes objects of lower epochs that are not real, by name alone. So it
  may run at any time, twice, even by a broker that has been replaced.
* Only a sweep that has run to its end, without an error, counts.
* A deletion that fails loses nothing: the object is not real, or stays in the trash, and is tried again with later
  deletions; a later broker sweeps again.
* A blame file is removed when its supervisor and workers are dead for certain, and no lease names it.
"""

from __future__ import annotations

import itertools
import logging
import os
from collections.abc import Callable
from pathlib import Path

from msgspec import structs

from osqueue import blame, host
from osqueue.broker.loop import CommitLoop
from osqueue.broker.writer import WorkThread
from osqueue.core.model import Frame
from osqueue.core.objects import is_sweepable, parse
from osqueue.storage import Storage
from osqueue.storage.tree import BLAME_DIRECTORY

_log = logging.getLogger("osqueue")

AT_ONCE = 100


class Sweep:
    """Deletes in a work thread, in small parts between other work. All methods run on the loop's thread.

    Args:
        directory: the queue's directory, for blame files; empty if there is none.
        on_deleted: told after each deletion.
    """

    def __init__(
        self,
        storage: Storage,
        commits: CommitLoop,
        thread: WorkThread,
        directory: str = "",
        *,
        on_deleted: Callable[[], None],
    ) -> None:
        self._storage = storage
        self._commits = commits
        self._thread = thread
        self._directory = directory
        self._on_deleted = on_deleted
        self._left: list[str] = []
        """Keys of the trash that could not be deleted."""

    def start(self, frame: Frame) -> None:
        """Once, after a takeover: delete the trash that it found, all that is not real, and what dead pools left."""
        if frame.trash:
            self.delete(list(frame.trash))
        self._thread.submit(
            lambda: self._find(frame), done=lambda keys: self._go_on(keys, frame.epoch), failed=_not_swept
        )
        if self._directory:
            self._thread.submit(lambda: _names_below(self._directory), done=self._look_at_blame, failed=_not_swept)

    def delete(self, keys: list[str]) -> None:
        """Delete what a landed commit has dropped, and some of what could not be deleted before."""
        keys = keys + self._left[:AT_ONCE]
        del self._left[:AT_ONCE]
        self._thread.submit(
            lambda: self._delete_all(keys), done=lambda failed: self._deleted(keys, failed), failed=_not_swept
        )

    def _deleted(self, keys: list[str], failed: list[str]) -> None:
        self._left += failed
        self._commits.not_deleted(failed)
        self._commits.deleted(set(keys).difference(failed))
        self._on_deleted()

    def _find(self, frame: Frame) -> list[str]:
        keys = itertools.chain(self._storage.list("segments/"), self._storage.list("archive/"))
        return [key for key in keys if (name := parse(key)) is not None and is_sweepable(name, frame)]

    def _go_on(self, keys: list[str], epoch: int, failures: int = 0) -> None:
        if not keys:
            if not failures:
                self._commits.machine.swept(epoch)
            return
        part, rest = keys[:AT_ONCE], keys[AT_ONCE:]
        self._thread.submit(
            lambda: self._delete_all(part),
            done=lambda failed: self._go_on(rest, epoch, failures + len(failed)),
            failed=_not_swept,
        )

    def _delete_all(self, keys: list[str]) -> list[str]:
        """Delete these; says which could not be deleted."""
        failed = []
        for key in keys:
            try:
                self._storage.delete(key)
            except Exception as error:  # noqa: BLE001 - logged and tried again; the others must not wait for this one
                _log.warning("object could not be deleted, it is tried again later key=%s reason=%s", key, error)
                failed.append(key)
        return failed

    # ---------------------------------------------------------------------------------------------------- blame files

    def _look_at_blame(self, names: list[str]) -> None:
        if names:
            part, rest = names[:AT_ONCE], names[AT_ONCE:]
            self._thread.submit(
                lambda: [name for name in part if _is_dead(Path(self._directory, name))],
                done=lambda dead: self._remove_blame(dead, rest),
                failed=_not_swept,
            )

    def _remove_blame(self, dead: list[str], rest: list[str]) -> None:
        # Asked after they were found dead: nobody dead takes a lease that names one of these.
        named = {lease.holder.blame for lease in self._commits.machine.state.leases.all() if lease.holder}
        nobodys = [Path(self._directory, name) for name in dead if name not in named]
        self._thread.submit(
            lambda: _remove(nobodys),
            done=lambda _: self._look_at_blame(rest),
            failed=_not_swept,
        )


def _names_below(directory: str) -> list[str]:
    """The blame files of a queue, as leases name them."""
    try:
        return [f"{BLAME_DIRECTORY}/{name}" for name in os.listdir(Path(directory, BLAME_DIRECTORY))]
    except FileNotFoundError:
        return []


def _is_dead(path: Path) -> bool:
    """Whether whoever made a blame file, and whoever writes to it, is gone for certain."""
    try:
        owner = blame.owner(path)
        workers = blame.processes(path)
    except (OSError, ValueError):
        return False  # just being made, or nothing of ours
    if not owner.pid:
        return False  # by a version that did not say whose it is
    everybody = [owner, *(structs.replace(owner, pid=worker.pid, started=worker.started) for worker in workers)]
    return all(host.is_running(process) is False for process in everybody)


def _remove(paths: list[Path]) -> None:
    for path in paths:
        path.unlink(missing_ok=True)


def _not_swept(error: Exception) -> None:
    _log.warning("objects could not be swept, the next broker will try again reason=%s", error)
