"""The blame file: which job each worker of one supervisor is on, known even when everybody has been killed.

    header  64 bytes     magic, number of slots; the supervisor's pid, start time, pid namespace
    slot    64 bytes     word 0  the worker's pid, 0 for none
                              1  its start time (`osqueue.host.start_time`), so that pid and time name one process
                              2  sequence: grows with each job
                              3  job id, 0 while it runs none
                              4  the job's attempt
                              5  when it began, nanoseconds of the boot clock

Words are 64 bits in the host's own byte order: the file never leaves its host.

Rules:
* A worker maps the file and writes its own slot, before the handler is called and after: 0.2 µs, no message.
* The job id is written last in `Slot.begin` and first in `Slot.end`: whenever the writer is killed, the id is right.
* A supervisor's file is there from before its first claim until its last worker has gone; who finds it later and
  knows that supervisor and workers are dead (`owner`, `processes`) may remove it, once no lease names it.
* A reader copies a slot until job id and sequence stood still meanwhile.
* The file is memory: it survives every process, not a power cut, which therefore charges nobody.
"""

from __future__ import annotations

import mmap
import os
import struct
from pathlib import Path

from msgspec import Struct

from osqueue.core.messages import Holder

_MAGIC = b"osqueue blame 1\n"
_HEADER = struct.Struct("=16sQQQ24s")
_WORD_BYTES = 8
_SLOT_BYTES = 64
_SLOT_WORDS = _SLOT_BYTES // _WORD_BYTES
_MAX_SLOTS = 65_536
_READ_TRIES = 1000
_PID, _PROCESS_STARTED, _SEQUENCE, _JOB, _ATTEMPT, _JOB_STARTED = range(6)


class Blamed(Struct, frozen=True):
    """A worker that is on a job, or was when it died."""

    slot: int
    pid: int
    process_started: int
    job_id: int
    attempt: int
    started_ns: int
    """When the job began, on the boot clock."""


class Process(Struct, frozen=True):
    """A worker process: its pid, and its start time in the clock ticks of ``/proc/PID/stat``."""

    pid: int
    started: int


class Slot:
    """A worker's own line in the file. One process writes it, from one thread."""

    def __init__(self, path: Path | str, index: int, *, pid: int, process_started: int) -> None:
        """Take the slot over for this process; it says that no job runs.

        Raises:
            OSError, ValueError: there is no such blame file or slot.
        """
        self._map = _map(path, writable=True)
        first = _first_word(self._map, index)
        self._words = memoryview(self._map).cast("Q")[first : first + _SLOT_WORDS]
        self._words[_JOB] = 0
        self._words[_PID] = pid
        self._words[_PROCESS_STARTED] = process_started

    def begin(self, job_id: int, attempt: int, started_ns: int) -> None:
        """From now on this worker's death is charged to this job. The one before has ended (`end`)."""
        words = self._words
        words[_ATTEMPT] = attempt
        words[_JOB_STARTED] = started_ns
        words[_SEQUENCE] += 1
        words[_JOB] = job_id

    def end(self) -> None:
        """From now on this worker's death is charged to nobody."""
        self._words[_JOB] = 0

    def detach(self) -> None:
        """In a forked child: write into private memory from now on; the slot belongs to the parent."""
        self._words = memoryview(bytearray(_SLOT_BYTES)).cast("Q")


class Blame:
    """The whole file, as its supervisor sees it while the workers write. Any thread may read."""

    def __init__(self, path: Path | str) -> None:
        """Open an existing file.

        Raises:
            OSError, ValueError: there is none, or it is something else.
        """
        self._map = _map(path, writable=False)
        self.slots = _slot_count(self._map)

    @classmethod
    def create(cls, path: Path | str, slots: int, *, owner: Holder) -> Blame:
        """Make the file, for the owner alone, with empty slots. ``owner``: the supervisor's process.

        Raises:
            FileExistsError: the path is taken; give each supervisor's life a name of its own.
        """
        if not 1 <= slots <= _MAX_SLOTS:
            raise ValueError(f"a blame file has 1 to {_MAX_SLOTS} slots, got {slots}")
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(path, flags, 0o600)
        try:
            header = _HEADER.pack(_MAGIC, slots, owner.pid, owner.started, owner.pid_namespace.encode())
            os.write(descriptor, header + bytes(_SLOT_BYTES * slots))
        finally:
            os.close(descriptor)
        return cls(path)

    def current(self, index: int) -> Blamed | None:
        """The job that this slot's worker is on; None for none, and after `close`."""
        return None if self._map.closed else _read_slot(self._map, index)

    def close(self) -> None:
        """Unmap the file; it stays where it is."""
        self._map.close()


def read(path: Path | str) -> list[Blamed]:
    """Every worker that is on a job, by slot.

    Raises:
        OSError, ValueError: there is no such file, or it is something else: nothing is known of these workers.
    """
    mapped = _map(path, writable=False)
    try:
        found = (_read_slot(mapped, index) for index in range(_slot_count(mapped)))
        return [blamed for blamed in found if blamed is not None]
    finally:
        mapped.close()


def owner(path: Path | str) -> Holder:
    """The supervisor that made the file.

    Raises:
        OSError, ValueError: there is no such blame file.
    """
    mapped = _map(path, writable=False)
    try:
        _, _, pid, started, namespace = _HEADER.unpack_from(mapped)
        # The boot is not noted: where a pid and its ticks come again after a reboot, the file only stays a while.
        return Holder(boot="", pid_namespace=namespace.rstrip(b"\0").decode(), pid=pid, started=started)
    finally:
        mapped.close()


def processes(path: Path | str) -> list[Process]:
    """Every worker process that took a slot, alive or not.

    Raises:
        OSError, ValueError: there is no such blame file.
    """
    mapped = _map(path, writable=False)
    try:
        with memoryview(mapped) as whole, whole.cast("Q") as words:
            firsts = [_first_word(mapped, index) for index in range(_slot_count(mapped))]
            return [
                Process(words[first + _PID], words[first + _PROCESS_STARTED]) for first in firsts if words[first + _PID]
            ]
    finally:
        mapped.close()


def _read_slot(mapped: mmap.mmap, index: int) -> Blamed | None:
    first = _first_word(mapped, index)
    with memoryview(mapped) as whole, whole.cast("Q") as words:
        for _ in range(_READ_TRIES):
            job, sequence = words[first + _JOB], words[first + _SEQUENCE]
            if job == 0:
                return None
            blamed = Blamed(
                slot=index,
                pid=words[first + _PID],
                process_started=words[first + _PROCESS_STARTED],
                job_id=job,
                attempt=words[first + _ATTEMPT],
                started_ns=words[first + _JOB_STARTED],
            )
            if words[first + _JOB] == job and words[first + _SEQUENCE] == sequence:
                return blamed
    return None  # it changes jobs faster than it can be read: no job of its stays long enough to matter


def _map(path: Path | str, *, writable: bool) -> mmap.mmap:
    flags = (os.O_RDWR if writable else os.O_RDONLY) | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(path, flags)
    try:
        access = mmap.ACCESS_WRITE if writable else mmap.ACCESS_READ
        mapped = mmap.mmap(descriptor, 0, access=access)
    finally:
        os.close(descriptor)
    try:
        _slot_count(mapped)
    except ValueError:
        mapped.close()
        raise
    return mapped


def _slot_count(mapped: mmap.mmap) -> int:
    if len(mapped) < _SLOT_BYTES:
        raise ValueError(f"not a blame file, too short bytes={len(mapped)}")
    magic, slots, *_ = _HEADER.unpack_from(mapped)
    if magic != _MAGIC or not 1 <= slots <= _MAX_SLOTS or len(mapped) != _SLOT_BYTES * (slots + 1):
        raise ValueError("not a blame file of this version")
    return int(slots)


def _first_word(mapped: mmap.mmap, index: int) -> int:
    if not 0 <= index < _slot_count(mapped):
        raise ValueError(f"the blame file has no such slot slot={index}")
    return (index + 1) * _SLOT_WORDS
