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
* It only grows: room is written behind the slots first, and counted in the header then (`Blame.grow`).
* A supervisor's file is there from before its first claim until its last worker has gone; who finds it later and
  knows that supervisor and workers are dead (`owner`, `processes`) may remove it, once no lease names it.
* A reader reads a slot until job id and sequence stood still meanwhile; it does not map it.
* The file is memory: it survives every process, not a power cut, which therefore charges nobody.
"""

from __future__ import annotations

import errno
import mmap
import os
import struct
from contextlib import closing
from pathlib import Path

from msgspec import Struct

from osqueue.core.messages import Holder

_MAGIC = b"osqueue blame 1\n"
_HEADER = struct.Struct("=16sQQQ24s")
_SLOT = struct.Struct("=8Q")
_WORD = struct.Struct("=Q")
_SLOT_BYTES = _SLOT.size
_SLOT_WORDS = 8
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
        descriptor = _open(path, os.O_RDWR)
        try:
            slots = _header(descriptor)[1]
            if not 0 <= index < slots:
                raise ValueError(f"the blame file has no such slot slot={index}")
            self._map = mmap.mmap(descriptor, _SLOT_BYTES * (slots + 1), access=mmap.ACCESS_WRITE)
        finally:
            os.close(descriptor)
        first = (index + 1) * _SLOT_WORDS
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
    """The whole file, as its supervisor sees it while the workers write. For one thread."""

    def __init__(self, path: Path | str) -> None:
        """Open an existing file.

        Raises:
            OSError, ValueError: there is none, or it is something else.
        """
        self._path = path
        self._file = _File(path)
        self.slots = self._file.slots

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

    def grow(self, slots: int) -> None:
        """Have at least so many slots; the new ones are empty.

        Raises:
            OSError, ValueError: there is no room for them, or the file is not there any more; nothing has changed.
        """
        if slots <= self.slots:
            return
        if slots > _MAX_SLOTS:
            raise ValueError(f"a blame file has 1 to {_MAX_SLOTS} slots, got {slots}")
        descriptor = _open(self._path, os.O_RDWR)
        try:
            if _header(descriptor)[1] != self.slots:
                raise ValueError("not this supervisor's blame file")
            # Written, not only made longer: a worker that maps a hole dies of SIGBUS when the disk is full.
            new = bytes(_SLOT_BYTES * (slots - self.slots))
            if os.pwrite(descriptor, new, _SLOT_BYTES * (self.slots + 1)) < len(new):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._path))
            os.pwrite(descriptor, _WORD.pack(slots), len(_MAGIC))
        finally:
            os.close(descriptor)
        self.slots = self._file.slots = slots

    def current(self, index: int) -> Blamed | None:
        """The job that this slot's worker is on; None for none, after `close`, and when the file has been cut."""
        return self._file.blamed(index)

    def close(self) -> None:
        """Close the file; it stays where it is."""
        self._file.close()


def read(path: Path | str) -> list[Blamed]:
    """Every worker that is on a job, by slot.

    Raises:
        OSError, ValueError: there is no such file, or it is something else: nothing is known of these workers.
    """
    with closing(_File(path)) as file:
        found = (file.blamed(index) for index in range(file.slots))
        return [blamed for blamed in found if blamed is not None]


def owner(path: Path | str) -> Holder:
    """The supervisor that made the file.

    Raises:
        OSError, ValueError: there is no such blame file.
    """
    with closing(_File(path)) as file:
        return file.owner


def processes(path: Path | str) -> list[Process]:
    """Every worker process that took a slot, alive or not.

    Raises:
        OSError, ValueError: there is no such blame file.
    """
    with closing(_File(path)) as file:
        slots = (file.slot(index) for index in range(file.slots))
        return [Process(words[_PID], words[_PROCESS_STARTED]) for words in slots if words is not None and words[_PID]]


class _File:
    """A blame file to be read. Not mapped: a map of a file that somebody cuts is death by SIGBUS, a read is short."""

    def __init__(self, path: Path | str) -> None:
        self._descriptor = _open(path, os.O_RDONLY)
        try:
            _, self.slots, pid, started, namespace = _header(self._descriptor)
        except BaseException:
            self.close()
            raise
        # The boot is not noted: where a pid and its ticks come again after a reboot, the file only stays a while.
        self.owner = Holder(boot="", pid_namespace=namespace.rstrip(b"\0").decode(), pid=pid, started=started)

    def close(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def slot(self, index: int) -> tuple[int, ...] | None:
        """A slot's words as they are now; None if they are not there any more."""
        if not 0 <= index < self.slots:
            raise ValueError(f"the blame file has no such slot slot={index}")
        if self._descriptor < 0:
            return None
        data = os.pread(self._descriptor, _SLOT_BYTES, (index + 1) * _SLOT_BYTES)
        return _SLOT.unpack(data) if len(data) == _SLOT_BYTES else None

    def blamed(self, index: int) -> Blamed | None:
        """The job that a slot's worker is on."""
        for _ in range(_READ_TRIES):
            # The words of one read may be of several moments; between two reads that agree nothing has moved.
            before, words, after = self.slot(index), self.slot(index), self.slot(index)
            if before is None or words is None or after is None or before[_JOB] == 0:
                return None
            if before[_SEQUENCE : _JOB + 1] == words[_SEQUENCE : _JOB + 1] == after[_SEQUENCE : _JOB + 1]:
                return Blamed(
                    slot=index,
                    pid=words[_PID],
                    process_started=words[_PROCESS_STARTED],
                    job_id=words[_JOB],
                    attempt=words[_ATTEMPT],
                    started_ns=words[_JOB_STARTED],
                )
        return None  # it changes jobs faster than it can be read: no job of its stays long enough to matter


def _open(path: Path | str, access: int) -> int:
    return os.open(path, access | os.O_NOFOLLOW | os.O_CLOEXEC)


def _header(descriptor: int) -> tuple[bytes, int, int, int, bytes]:
    data = os.pread(descriptor, _HEADER.size, 0)
    size = os.fstat(descriptor).st_size
    if len(data) < _HEADER.size:
        raise ValueError(f"not a blame file, too short bytes={size}")
    magic, slots, pid, started, namespace = _HEADER.unpack(data)
    if magic != _MAGIC or not 1 <= slots <= _MAX_SLOTS or size < _SLOT_BYTES * (slots + 1):
        raise ValueError("not a blame file of this version")
    return magic, slots, pid, started, namespace
