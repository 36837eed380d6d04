"""Keys of unfinished jobs: which job has which, so that a key is pushed once at a time.

    push(key) ── take ──▶ log (inline) ── too long ──▶ objects, each merged with older ones that are not much longer
    job ended ─ release ─▶

Rules:
* A key is held from its push until its job has ended or is dead; `requeue` takes it again.
* The log says what was taken and released, by hash, in order. The last word on a hash counts; whoever has read all
  objects, oldest first, and then the inline log, knows every holder. Opening does not: the first keyed push does.
* Only a holder releases. When an object is lost, all keys are forgotten, and the jobs that are there have none any more
  (``since``): else one could release what another has taken meanwhile.
* An object is merged into the new one if it is at most twice as long, so that there are few, and an entry is written
  again a few times in its life (the logarithmic method: J. L. Bentley and J. B. Saxe, *Decomposable searching
  problems*, 1980).
"""

from __future__ import annotations

import hashlib
from base64 import urlsafe_b64encode
from collections.abc import Callable, Collection, Iterable

from osqueue.core import codec
from osqueue.core.model import Job, KeyLine, KeyObject
from osqueue.core.objects import segment_key
from osqueue.core.segment import NeedsObjectsError
from osqueue.errors import Corrupt

MAX_KEYS = 100_000
"""Unfinished jobs that may have one."""
MAX_KEY_BYTES = 256
INLINE_KEYS = 80
"""Entries in the root: 36 bytes each make 3 KiB."""
_FEW_OBJECTS = 20
_HASH_BYTES = 16

Allocate = Callable[[], tuple[int, int]]


class Keys:
    """All keys that are held. Not thread-safe; owned by the machine."""

    def __init__(self, lines: Iterable[KeyLine], objects: Iterable[KeyObject], since: int = 1) -> None:
        self.since = since
        """Keys of jobs below this id are forgotten."""
        self._log = list(lines)
        self._objects = list(objects)
        self._entries: dict[int, list[KeyLine]] = {}
        """Of the objects that are in memory."""
        self._held: dict[str, int] | None = None
        """The holder of each hash, once all objects have been in memory."""
        self._damage: tuple[str, str] | None = None
        """Of an object that cannot be read: its key, and what is wrong. Not as an error: that would keep its frames."""
        self._trash: list[str] = []

    # ------------------------------------------------------------------------------------------------------- who holds

    def holder(self, key: str) -> int | None:
        """The unfinished job that has the key; nobody has the empty one.

        Raises:
            NeedsObjectsError: the objects must be in memory first.
            Corrupt: one of them is damaged or missing.
        """
        return self._all().get(_hash(key)) if key else None

    def have_room(self, keys: int) -> bool:
        """Whether so many more unfinished jobs may have keys; ask after `holder`."""
        return len(self._all()) + keys <= MAX_KEYS

    def holders_within(self, first_id: int, last_id: int) -> list[int]:
        """Jobs with ids in a range that have keys.

        Raises:
            NeedsObjectsError, Corrupt: as `holder`.
        """
        return sorted(job_id for job_id in self._all().values() if first_id <= job_id <= last_id)

    def forget(self, ids: Collection[int]) -> None:
        """These jobs are lost: their keys are free. `holders_within` has named them, unless there are none."""
        if not ids:
            return
        gone = set(ids)
        for key_hash, job_id in [held for held in self._all().items() if held[1] in gone]:
            self._note(KeyLine(key_hash, -job_id))

    def take(self, job: Job) -> None:
        """The job, if it has a key, holds it from now on."""
        if job.key and job.id >= self.since:
            self._note(KeyLine(_hash(job.key), job.id))

    def release(self, job: Job) -> None:
        """The job, if it has a key, which it then holds, lets go of it."""
        if job.key and job.id >= self.since:
            self._note(KeyLine(_hash(job.key), -job.id))

    def _note(self, line: KeyLine) -> None:
        self._log.append(line)
        if self._held is not None:
            _apply(self._held, line)

    def _all(self) -> dict[str, int]:
        if self._held is None:
            if self._damage is not None:
                raise codec.corrupt(*self._damage)
            if missing := self._missing():
                raise NeedsObjectsError(missing)
            self._held = {}
            for line in (*(line for one in self._objects for line in self._entries[one.number]), *self._log):
                _apply(self._held, line)
        return self._held

    def _missing(self) -> list[str]:
        return [_key(one) for one in self._objects if one.number not in self._entries]

    # --------------------------------------------------------------------------------------------------------- objects

    def load(self, key: str, data: bytes) -> bool:
        """An object has been read; False if it is none of keys.

        Raises:
            Corrupt: it is not what was written; keyed pushes are refused until it is.
        """
        one = self._named(key)
        if one is None:
            return False
        try:
            self._entries[one.number] = codec.decode_keys(data, expected_digest=one.digest, key=key)
        except Corrupt:
            self._damage = key, "it is not what was written"
            raise
        self._damage = None
        return True

    def lack(self, key: str) -> bool:
        """An object of this key cannot be read: keyed pushes are refused until it can; False if it is none of keys."""
        one = self._named(key)
        if one is None or one.number in self._entries:
            return False
        self._damage = key, "it cannot be read, or is missing"
        return True

    def drop(self, key: str, since: int) -> bool:
        """Nobody will ever read an object again: all keys of jobs below an id are free; False if it is none of keys."""
        if self._named(key) is None:
            return False
        self._trash += map(_key, self._objects)
        self._objects.clear()
        self._entries.clear()
        self._log.clear()
        self._held, self._damage, self.since = {}, None, since
        return True

    def _named(self, key: str) -> KeyObject | None:
        return next((one for one in self._objects if _key(one) == key), None)

    def seal(self, allocate: Allocate) -> dict[str, bytes]:
        """Write the inline log out if it is too long, merged with what is in memory of objects not much longer."""
        if len(self._log) <= INLINE_KEYS:
            return {}
        entries, self._log = self._log, []
        while self._objects and self._is_short(self._objects[-1], 2 * len(entries)):
            older = self._objects.pop()
            entries = [*self._entries.pop(older.number), *entries]
            self._trash.append(_key(older))
        entries = _folded(entries, oldest=not self._objects)
        if not entries:
            return {}
        number, epoch = allocate()
        data = codec.encode_keys(number, epoch, entries)
        self._objects.append(KeyObject(number, epoch, codec.digest(data), len(data), len(entries)))
        self._entries[number] = entries
        return {segment_key(number, epoch): data}

    def _is_short(self, one: KeyObject, most: int) -> bool:
        return one.number in self._entries and one.count <= most

    @property
    def crowded(self) -> list[str]:
        """Keys of objects that should be read, since there are more of them than merging would leave."""
        return self._missing() if len(self._objects) > _FEW_OBJECTS and self._damage is None else []

    def take_trash(self) -> list[str]:
        """Keys of objects that are named no longer."""
        trash, self._trash = self._trash, []
        return trash

    def lines(self) -> list[KeyLine]:
        """The inline log, as it stands in the root."""
        return self._log

    def objects(self) -> list[KeyObject]:
        """The objects, oldest first, as the root names them."""
        return self._objects


def _hash(key: str) -> str:
    return urlsafe_b64encode(hashlib.blake2b(key.encode(), digest_size=_HASH_BYTES).digest()).rstrip(b"=").decode()


def _key(one: KeyObject) -> str:
    return segment_key(one.number, one.epoch)


def _apply(held: dict[str, int], line: KeyLine) -> None:
    if line.id > 0:
        held[line.hash] = line.id
    else:
        held.pop(line.hash, None)


def _folded(entries: Iterable[KeyLine], *, oldest: bool) -> list[KeyLine]:
    """The last word on each hash; where nothing is older, released ones need not be told."""
    last = {line.hash: line for line in entries}
    return [line for line in last.values() if line.id > 0 or not oldest]
