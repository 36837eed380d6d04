"""Finished jobs on their way into the archive: inline in the root first, sealed into an object when they are many."""

from __future__ import annotations

from collections.abc import Iterator

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
        line = codec.encode_record(record)
        self._lines[record.id] = line
        self.size += len(line) + 1

    def get(self, job_id: int) -> JobRecord | None:
        line = self._lines.get(job_id)
        return None if line is None else codec.decode_record(line)

    def records(self) -> Iterator[JobRecord]:
        return (codec.decode_record(line) for line in self._lines.values())

    def seal(self, number: int, epoch: int, hour: str) -> tuple[str, bytes]:
        """Take records out, `OBJECT_BYTES` at most (one larger alone), as an object: its key and bytes."""
        ids: list[int] = []
        lines: list[bytes] = []
        size = 0
        for job_id, line in self._lines.items():
            if lines and size + len(line) > OBJECT_BYTES:
                break
            ids.append(job_id)
            lines.append(line)
            size += len(line) + 1
        if len(ids) == len(self._lines):
            self._lines.clear()
        else:
            for job_id in ids:
                del self._lines[job_id]
        self.size -= size
        data = b"\n".join(lines) + b"\n"
        return archive_key(ObjectName(number, epoch, hour, min(ids), max(ids), codec.digest(data))), data

    def __len__(self) -> int:
        return len(self._lines)

    def encoded(self) -> bytes:
        return b"[" + b",".join(self._lines.values()) + b"]"
