"""A broker's beginning: read the root, swap in the next epoch, find out which holders are dead.

Rules:
* Opening reads the root and nothing else, and creates no object. It looks at the names of segments and of what was
  archived since the root was written: an object of a later epoch means that an old root was put back alone, since no
  broker creates anything before its own first root stands.
* A lease of a local holder ends when its process has ended; who ran is read from its blame file, once its workers are
  gone too. After a reboot nothing is known, and nobody pays.
* A supervisor removes its blame file when its last worker has gone. If its process lives on without that file, the
  supervisor has ended without a broker to tell: nothing of it runs, nobody pays.
"""

from __future__ import annotations

import os
import select
from contextlib import suppress
from pathlib import Path

from msgspec import Struct, structs

from osqueue import blame, host
from osqueue.broker.writer import RootWriter
from osqueue.clock import QueueClock, boot_ns
from osqueue.core import codec
from osqueue.core.ending import Attempt
from osqueue.core.machine import QueueMachine
from osqueue.core.messages import Holder
from osqueue.core.model import Frame, Root
from osqueue.core.objects import parse
from osqueue.core.settings import QueueSettings
from osqueue.errors import Corrupt
from osqueue.storage import ROOT_KEY, Standing, Storage, Version, find_queue, mark

_NS_PER_S = 1_000_000_000
_NS_PER_MS = 1_000_000
_MS_PER_HOUR = 3_600_000
_HOURS = 1_000
WORKERS_END_S = 2.0
"""How long all workers of a dead holder are waited for; on Linux they die within milliseconds."""


class Taken(Struct):
    """A queue that has just been taken over."""

    machine: QueueMachine
    frame: Frame
    writer: RootWriter
    clock: QueueClock


class Ended(Struct, frozen=True):
    """A holder that is gone: the attempts that its workers were on, and whether that is known at all."""

    charged: list[Attempt]
    known: bool
    blame_path: str


def nonce() -> str:
    """Random text that makes two roots differ."""
    return os.urandom(8).hex()


def take_over(storage: Storage, settings: QueueSettings, *, identity: str | None = None) -> Taken:
    """Make the queue this broker's own.

    Args:
        storage: where the queue is.
        settings: what the opener states.
        identity: the owner's name in the root; None for a random one.

    Raises:
        Corrupt: the root is damaged, missing, older than objects beside it, or of a format that this version does not
            read.
        WriteFailed, WriteUnknown, Fenced: the takeover could not be written.
    """
    standing = find_queue(storage)
    version: Version | None = None
    root = Root()
    if standing is not Standing.EMPTY:
        data, version = storage.read(ROOT_KEY)
        root = codec.decode_root(data)
    clock = QueueClock(not_before_ms=root.now_ms)
    _refuse_old(storage, root, clock.now_ms())
    machine = QueueMachine(root, settings, now_ms=clock.now_ms(), seed=nonce())
    commit = machine.take_over(identity or nonce(), now_ms=clock.now_ms(), nonce=nonce())
    writer = RootWriter(storage, version)
    writer.swap(commit)
    if standing is not Standing.QUEUE:
        mark(storage)
    machine.landed(commit, clock.now_ms())
    return Taken(machine, structs.replace(machine.state.frame), writer, clock)


def _refuse_old(storage: Storage, root: Root, now_ms: int) -> None:
    for prefix in ("segments/", *_archived_since(root.now_ms, now_ms)):
        if (newer := _newer_than(storage, root.epoch, prefix)) is not None:
            error = Corrupt(
                "the root is older than objects beside it: put back the newest queue.json, or what this one goes with, "
                f"and move the newer objects elsewhere; `osqueue verify` lists them epoch={root.epoch} found={newer}"
            )
            error.key = ROOT_KEY
            raise error


def _newer_than(storage: Storage, epoch: int, prefix: str) -> str | None:
    """An object of a later epoch; what cannot be listed, since something else stands there, is passed over."""
    with suppress(Corrupt):
        for key in storage.list(prefix):
            if (name := parse(key)) is not None and name.epoch > epoch:
                return key
    return None


def _archived_since(since_ms: int, now_ms: int) -> list[str]:
    """Prefixes of the archive objects that have been made since; all of them, if those would be too many."""
    hours = range(since_ms // _MS_PER_HOUR, now_ms // _MS_PER_HOUR + 1)
    if len(hours) > _HOURS:
        return ["archive/"]
    return [f"archive/{codec.hour(hour * _MS_PER_HOUR)}/" for hour in hours]


def has_ended(holder: Holder, directory: str) -> bool | None:
    """Whether a holder is gone, or its supervisor has retired; None if nobody here can tell."""
    running = host.is_running(holder)
    return None if running is None else not running or _has_retired(holder, directory)


def _has_retired(holder: Holder, directory: str) -> bool:
    here = host.is_running(holder) is True
    return here and bool(holder.blame and directory) and not Path(directory, holder.blame).exists()


def look_at(holder: Holder, directory: str) -> Ended:
    """Find out what a dead holder's workers were on."""
    path = str(Path(directory, holder.blame)) if holder.blame and directory else ""
    if _has_retired(holder, directory):
        return Ended([], known=True, blame_path="")
    if not path or holder.boot != host.boot_id():
        return Ended([], known=False, blame_path=path)
    try:
        until_ns = boot_ns() + round(WORKERS_END_S * _NS_PER_S)
        for process in blame.processes(path):
            _wait_for_end(structs.replace(holder, pid=process.pid, started=process.started), until_ns)
        attempts = [(blamed.job_id, blamed.attempt) for blamed in blame.read(path)]
        return Ended(attempts, known=True, blame_path=path)
    except (OSError, ValueError):
        return Ended([], known=False, blame_path=path)


def _wait_for_end(worker: Holder, until_ns: int) -> None:
    descriptor = host.open_pidfd(worker.pid)
    if descriptor is None:
        return
    try:
        if host.is_running(worker):
            poll = select.poll()
            poll.register(descriptor, select.POLLIN)
            poll.poll(max(0, until_ns - boot_ns()) / _NS_PER_MS)
    finally:
        os.close(descriptor)
