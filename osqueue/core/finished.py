"""Finished jobs on their way into the archive: inline in the root first, sealed into an object when they are many."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from osqueue.core import codec
from osqueue.core.messages import JobRecord
from osqueue.core.model import Record
from osqueue.core.objects import ObjectName, archive_key

INLINE_BYTES = 16 * 1024
OBJECT_BYTES = 8 * 1024 * 1024


class Finished:
    """Records that no archive object holds yet, in the order in which their jobs ended."""

    def __init__(self, lines: list[bytes]) -> None:
        self._lines: dict[int, bytes] = {codec.decode_record(line).id: line for line in lines}
        self.size = sum(map(len, lines)) + len(lines)

    def add(self, record: Record) -> None:
        line = self._lines[record.id] = codec.encode_record(record)
        self.size += len(line) + 1

    def get(self, job_id: int) -> JobRecord | None:
        line = self._lines.get(job_id)
        return None if line is None else codec.decode_record(line)

    def records(self) -> Iterator[JobRecord]:
        return (codec.decode_record(line) for line in self._lines.values())

    def seal(self, number: int, epoch: int, hour: str) -> tuple[str, bytes]:
        """Take records out, `OBJECT_BYTES` at most (one larger alone), as an object: its key and bytes."""
        lines = self._take()
        data = b"\n".join(lines.values()) + b"\n"
        self.size -= len(data)
        return archive_key(ObjectName(number, epoch, hour, min(lines), max(lines), codec.digest(data))), data

    def _take(self) -> dict[int, bytes]:
        """Take out the lines of one object."""
        taken = self._lines
        if self.size <= OBJECT_BYTES:
            self._lines = {}
            return taken
        size = count = 0
        for line in taken.values():
            if count and size + len(line) > OBJECT_BYTES:
                break
            size += len(line) + 1
            count += 1
        rest = iter(taken.items())
        first = dict(islice(rest, count))
        self._lines = dict(rest)
        return first

    def __len__(self) -> int:
        return len(self._lines)

    def encoded(self) -> bytes:
        return b"[" + b",".join(self._lines.values()) + b"]"
