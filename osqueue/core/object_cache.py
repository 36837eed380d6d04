"""Objects in memory: which are wanted, what came of reading them, which may leave, what is lost with one.

    wanted ──read──▶ load ──▶ in memory ──trim──▶ wanted again when it is needed
                      └─ damaged, missing, unreadable for long ─▶ its jobs are blocked ──load──▶ as before
                                                                                      └─drop──▶ discarded

Rules:
* Nobody waits for an object that nobody can read: it blocks its own jobs, and no others.
* Its jobs stay what they were until it is read after all, or dropped.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from osqueue.core import codec
from osqueue.core.messages import refused_as_corrupt
from osqueue.core.objects import parse
from osqueue.core.segment import NeedsObjectsError, Segment
from osqueue.core.state import QueueState
from osqueue.errors import Corrupt


class ObjectCache:
    """Segments and objects of keys, as far as they are in memory. Not thread-safe; owned by the machine."""

    def __init__(self, state: QueueState) -> None:
        self._state = state

    def want(self, keys: Iterable[str]) -> None:
        """Something waits for these objects."""
        self._state.wanted.update(keys)

    def take_wanted(self) -> set[str]:
        """Keys of objects that a claim or a chore waits for; give them to `load` and settle."""
        wanted, self._state.wanted = self._state.wanted, set()
        return wanted

    def trim(self, keep: Iterable[str] = ()) -> None:
        """Let the segments that were not used for long leave memory, as far as they are too many.

        Args:
            keep: keys of objects that somebody waits to use all together.
        """
        loaded = self._state.backlog.loaded
        if loaded.are_many():
            to_split = {segment.key for segment in self._state.backlog.deferred.to_split()}
            loaded.trim(to_split.union(keep, self._state.leases.needs(), self._state.wanted))

    def landed(self, keys: Iterable[str]) -> None:
        """Objects are in the store, so that they can be read again."""
        for key in keys:
            if (segment := self._segment(key)) is not None:
                segment.stored = True

    # -------------------------------------------------------------------------------------------------------- reading

    def load(self, key: str, data: bytes) -> None:
        """An object's bytes have been read.

        Raises:
            Corrupt: they are not what was written; a segment's jobs are blocked, the others go on.
        """
        if self._state.keys.load(key, data):
            return
        segment = self._segment(key)
        if segment is None or segment.jobs is not None:
            return
        try:
            segment.load(codec.decode_segment(data, expected_digest=segment.line.digest, key=key))
        except Exception:
            self._block(segment)
            raise
        segment.damaged = False
        self._state.backlog.loaded.touch(segment)
        self._state.backlog.deferred.look_again()

    def missing(self, key: str) -> bool:
        """A named object is not in the store; says whether the root still names it, so that it is damage."""
        if self._state.keys.lack(key):
            return True
        segment = self._segment(key)
        if segment is None or not segment.stored or segment.jobs is not None:
            return False
        self._block(segment)
        return True

    def unreadable(self, key: str) -> bool:
        """Nobody is to wait for an object until `load` makes it good again; False if nobody does, or none is there."""
        if self._state.keys.lack(key):
            return True
        segment = self._segment(key)
        if segment is None or segment.jobs is not None or segment.damaged:
            return False
        self._block(segment)
        return True

    def _segment(self, key: str) -> Segment | None:
        name = parse(key)
        segment = self._state.backlog.segments.get(name.number) if name is not None else None
        return segment if segment is not None and segment.key == key else None

    # --------------------------------------------------------------------------------------------------------- damage

    def damage(self, ids: Iterable[int]) -> dict[int, Corrupt]:
        """Those of these jobs of which it is not known whether they wait or run, and why."""
        backlog = self._state.backlog
        return backlog.located.damage(ids) if backlog.harmed else {}

    def _block(self, segment: Segment) -> None:
        """Nobody can read a segment: its jobs are nobody's and stay where they are, and nobody waits for them."""
        state = self._state
        segment.damaged = True
        state.backlog.harmed = True
        for lease in state.leases.all():
            if runs := lease.runs.pop_object(segment.number):
                state.give_back((segment.number, *run) for run in runs)
                slots = sum(last - first + 1 for first, last, _, _ in runs)
                lease.payload_bytes = max(0, lease.payload_bytes - segment.line.length * slots // segment.slots)
                state.changed = True
                if not lease.standing and not lease.runs:
                    state.leases.end(lease)
        first_id, last_id = segment.line.first_id, segment.line.last_id
        why = refused_as_corrupt(segment.damage())
        state.watchers.blocked(first_id, last_id, lambda job_id: self._is_unharmed(job_id, segment), why)
        state.backlog.deferred.look_again()

    def _is_unharmed(self, job_id: int, damaged: Segment) -> bool:
        """Whether a job is known not to be in a damaged segment that it may have been in."""
        try:
            place = self._state.find(job_id)
        except NeedsObjectsError:
            return False
        return place is not None and place.object != damaged.number

    def drop(self, key: str) -> int:
        """Nobody will ever read an object again: its jobs count as discarded, without a record; how many they were.

        Raises:
            NeedsObjectsError: these segments must be in memory first, or be dropped before.
        """
        state = self._state
        if state.keys.drop(key, state.frame.next_id):
            state.frame.keys_since = state.frame.next_id
            state.changed = True
            return 0
        segment = self._segment(key)
        if segment is None:
            return 0
        if segment.line.kind == "deferred" and (needed := state.backlog.deferred.unknown(but=segment)):
            raise NeedsObjectsError(needed)
        keyed = self._keyed_in(segment)
        self._block(segment)
        jobs = self._discard_all(segment)
        state.keys.forget(keyed)
        state.forgo_records(jobs)
        return jobs

    def _keyed_in(self, segment: Segment) -> list[int]:
        """Unfinished jobs with keys that are in a segment which nobody can read, since they are nowhere else."""
        try:
            ids = self._state.keys.holders_within(segment.line.first_id, segment.line.last_id)
        except Corrupt:
            return []  # that object of keys is to be dropped as well, and all keys with it
        places = dict(zip(ids, self._state.locate(ids), strict=True))
        return [job_id for job_id, place in places.items() if place is None or place.object == segment.number]

    def _discard_all(self, segment: Segment) -> int:
        """A blocked segment goes, with the jobs that wait in it or came back, by what the root says of it."""
        state = self._state
        returned = (run for run in state.backlog.lanes.returned() if run[0] == segment.number)
        jobs = Counter[str]()
        for task, count in (*state.backlog.by_task(returned), *state.backlog.untaken([segment])):
            jobs[task] += count
        state.backlog.drop(segment)
        for task, count in jobs.items():
            state.counts.move(task, "dead" if segment.line.kind == "dead" else "ready", "discarded", count)
        if segment.line.kind == "deferred":
            # How many of them were ready only their times could say; what is left says it.
            state.counts.recount_delayed(state.backlog.delayed())
        return jobs.total()
