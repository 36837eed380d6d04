"""Reading finished jobs: by name which objects, by the number line which are real, repeated ids once."""

from __future__ import annotations

from collections.abc import Iterator

from osqueue import clock
from osqueue.core import codec
from osqueue.core.messages import History, JobRecord
from osqueue.core.model import Frame
from osqueue.core.objects import ObjectName, is_real, parse
from osqueue.storage.base import NotFound, Reader


def real_objects(storage: Reader, frame: Frame, prefix: str = "archive/") -> Iterator[tuple[str, ObjectName]]:
    """The archive objects whose commits landed, oldest first."""
    for key in storage.list(prefix):
        name = parse(key)
        if name is not None and name.hour and is_real(name, frame):
            yield key, name


def find(storage: Reader, frame: Frame, ids: list[int]) -> list[JobRecord]:
    """The records of some jobs; those that are nowhere are left out."""
    wanted = set(ids)
    found: list[JobRecord] = []
    for key, name in sorted(real_objects(storage, frame), reverse=True):
        if not any(name.first_id <= job_id <= name.last_id for job_id in wanted):
            continue
        for record in read_object(storage, key, name):
            if record.id in wanted:
                wanted.discard(record.id)
                found.append(record)
        if not wanted:
            break
    return found


def page(storage: Reader, frame: Frame, history: History) -> tuple[list[JobRecord], str]:
    """The records of the next archive object after the cursor, and the cursor behind it; empty after the last."""
    oldest = codec.hour(history.since_ms)
    for key, name in real_objects(storage, frame):
        if key <= history.cursor or name.hour < oldest:
            continue
        since = history.since_ms
        records = [r for r in read_object(storage, key, name) if clock.from_iso(r.finished_at or "") >= since]
        return records, key
    return [], ""


def read_object(storage: Reader, key: str, name: ObjectName) -> list[JobRecord]:
    """An archive object's records; none if it has been pruned meanwhile.

    Raises:
        Corrupt: its bytes are not those that its name promises.
    """
    try:
        data, _ = storage.read(key)
    except NotFound:
        return []
    codec.check_digest(data, name.digest, key=key)
    return [codec.decode_record(line, key=key) for line in data.splitlines()]
