"""Reading finished jobs: by name which objects, by the number line which are real.

Rules:
* The archive is listed once, when it is first asked; afterwards the broker knows what it has added itself.
* An object's bytes are compared with the digest in its name whenever they are read.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections import deque
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from osqueue import clock
from osqueue.core import codec
from osqueue.core.messages import History, JobRecord, Prune, Pruned
from osqueue.core.model import Frame
from osqueue.core.objects import ObjectName, is_real, parse
from osqueue.errors import Corrupt
from osqueue.storage.base import NotFound, Reader

PRUNED_OBJECTS = 8
"""So many at once, since their keys stand in the root until they are deleted."""
PRUNED_BYTES = 8 * 1024 * 1024


class Found(NamedTuple):
    """``records``, and the damage because of which some may be lacking."""

    records: list[JobRecord]
    damage: Corrupt | None = None


class Old(NamedTuple):
    """Objects that may be pruned, and what is said of them."""

    keys: list[str]
    pruned: Pruned


class Archive:
    """The finished jobs of one queue. `landed`, `dropped`, `ask` are for the loop's thread, the rest for a reader's."""

    def __init__(self, storage: Reader) -> None:
        self._storage = storage
        self._keys: list[str] | None = None
        self._names: dict[str, ObjectName] = {}
        self._asked = False
        self._landed: deque[str] = deque()
        self._dropped: deque[str] = deque()
        self._going: set[str] = set()
        """Objects that `old` has named, until the commit has landed that drops them."""
        self._recent = ("", b"")

    def landed(self, keys: Iterable[str]) -> None:
        """Objects whose commit has just landed."""
        if self._asked:
            self._landed.extend(key for key in keys if key.startswith("archive/"))

    def dropped(self, keys: Iterable[str]) -> None:
        """Objects that the commit which has just landed dropped: they are about to be deleted."""
        if self._asked:
            self._dropped.extend(key for key in keys if key.startswith("archive/"))

    def ask(self) -> None:
        """A question is to come: what lands from now on may not be in the listing that it begins with."""
        self._asked = True

    def find(self, frame: Frame, ids: list[int]) -> Found:
        """The records of some jobs; those that are nowhere are left out, and those that a damaged object may have."""
        try:
            return self._find(self._known(frame), ids)
        except Corrupt as error:  # not even the objects' names can be read
            return Found([], error)

    def _find(self, keys: list[str], ids: list[int]) -> Found:
        wanted = set(ids)
        found: list[JobRecord] = []
        damage: Corrupt | None = None
        for key in reversed(keys):
            name = self._names[key]
            covered = [job_id for job_id in wanted if name.first_id <= job_id <= name.last_id]
            try:
                records = list(self._records(key, covered)) if covered else []
            except Corrupt as error:
                damage = error
                continue
            wanted.difference_update(record.id for record in records)
            found += records
            if not wanted:
                return Found(found)
        return Found(found, damage)

    def page(self, frame: Frame, history: History) -> tuple[Found, str]:
        """The records of the next object after the cursor, and the cursor behind it; empty after the last.

        Raises:
            Corrupt: not even the objects' names can be read.
        """
        oldest = codec.hour(min(max(history.since_ms, 0), codec.LAST_MS))
        keys = self._known(frame)
        for key in keys[bisect_right(keys, history.cursor) :]:
            if self._names[key].hour < oldest:
                continue
            try:
                records = [codec.decode_record(line, key=key) for line in self._read(key).splitlines()]
            except Corrupt as error:
                return Found([], error), key
            return Found(ended_since(records, history.since_ms)), key
        return Found([]), ""

    def old(self, frame: Frame, prune: Prune) -> Old:
        """The next objects all of whose records had ended by then: its name's hour is never before a record's end.

        Raises:
            Corrupt: not even the objects' names can be read.
        """
        end = codec.hour(min(max(prune.before_ms, 0), codec.LAST_MS))
        keys = self._known(frame)
        old: list[str] = []
        pruned = Pruned()
        size = 0
        for key in keys[bisect_right(keys, prune.cursor) :]:
            if self._names[key].hour >= end:
                break
            if len(old) >= PRUNED_OBJECTS or size >= PRUNED_BYTES:
                pruned.cursor = old[-1]
                break
            if key in self._going:
                continue
            try:
                data = self._read(key)
            except Corrupt:
                pruned.damaged += 1
                continue
            if data:
                old.append(key)
                pruned.jobs += data.count(b"\n")
                size += len(data)
        pruned.objects = len(old)
        self._going.update(old)
        return Old(old, pruned)

    # ---------------------------------------------------------------------------------------------------------- private

    def _known(self, frame: Frame) -> list[str]:
        if self._keys is None:
            keys: list[str] = []
            dropped = set(frame.trash)
            for key in self._storage.list("archive/"):
                name = parse(key)
                if name is not None and key not in dropped and is_real(name, frame):
                    self._add(keys, key, name)
            self._keys = keys  # last, since a listing may fail in the middle
        while self._landed:
            key = self._landed.popleft()
            if key not in self._names and (name := parse(key)) is not None:
                self._add(self._keys, key, name)
        while self._dropped:
            self._drop(self._keys, self._dropped.popleft())
        return self._keys

    def _drop(self, keys: list[str], key: str) -> None:
        self._going.discard(key)
        if self._names.pop(key, None) is not None:
            keys.remove(key)

    def _add(self, keys: list[str], key: str, name: ObjectName) -> None:
        self._names[key] = name
        insort(keys, key)

    def _records(self, key: str, ids: list[int]) -> Iterator[JobRecord]:
        """The lines of these jobs; only they are decoded."""
        data = b"\n" + self._read(key)
        for job_id in ids:
            at = data.find(b'\n{"id":%d,' % job_id)
            if at >= 0:
                yield codec.decode_record(data[at + 1 : data.index(b"\n", at + 1)], key=key)

    def _read(self, key: str) -> bytes:
        """An object's bytes; none if it has been pruned. The last one is kept: whoever reads one job reads the next."""
        if self._recent[0] != key:
            try:
                data, _ = self._storage.read(key)
            except NotFound:
                return b""
            codec.check_digest(data, self._names[key].digest, key=key)
            self._recent = (key, data)
        return self._recent[1]


def ended_since(records: Iterable[JobRecord], since_ms: int) -> list[JobRecord]:
    """Those that ended at or after a time."""
    return [record for record in records if clock.from_iso(record.finished_at or "") >= since_ms]
