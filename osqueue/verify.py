"""Checks a stored queue: every byte against its digest, every job in exactly one place.

    queue.json ──names──▶ segments/…    there, of the right length and digest, the right jobs
         │ decides
         ▼ which are real
    archive/…                           digest as in the name, every line a record, no job twice

Rules:
* Nothing is changed, nothing is locked: it works beside a running broker. What the broker has changed since the root
  was read is looked up again before it counts as a problem.
* Leftovers of a crash, which the next opening sweeps, are counted and no damage.
* Memory: a byte for each job that was ever pushed, and eight for each one in a segment.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence

from msgspec import Struct

from osqueue.core import codec
from osqueue.core.messages import JobRecord
from osqueue.core.model import Root, SegmentLine
from osqueue.core.objects import ObjectName, is_real, parse, segment_key
from osqueue.core.runs import Runs, expand
from osqueue.errors import Corrupt
from osqueue.storage import ROOT_KEY, NotFound, Reader, Version

_ROOTS_READ = 20
_ANY_ID = 1 << 62


class Problem(Struct, frozen=True):
    """What is wrong with one object.

    ``name``: ``damaged``, ``missing``, ``foreign`` (no object of a queue), ``newer`` (of a broker that this root does
    not know: an old root was put back), ``unnamed`` (the root should name it), ``repeated`` (jobs that stand elsewhere
    too), ``lost`` (jobs that stand nowhere), ``miscounted``.
    """

    name: str
    key: str
    detail: str


class Findings(Struct):
    """What a verification saw. ``leftovers``: objects of commits that never landed; ``lost``: jobs that stand nowhere
    and should.
    """

    problems: list[Problem] = []
    waiting: int = 0
    dead: int = 0
    finished: int = 0
    segments: int = 0
    archive_objects: int = 0
    leftovers: int = 0
    lost: int = 0


def verify(reader: Reader) -> Findings:
    """Check a whole queue.

    Raises:
        ReadFailed: an object cannot be read now, which says nothing of what is in it.
    """
    verification = _Verification(reader)
    root = verification.check_root_and_segments()
    verification.check_archive(root)
    if root is not None:
        verification.check_sums(root)
    return verification.findings


class _Verification:
    """One pass over one queue."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self.findings = Findings()
        self._seen = bytearray()
        self._excused: list[tuple[int, int]] = []
        self._sound: dict[str, Sequence[int]] = {}

    # ------------------------------------------------------------------------------------------- root and segments

    def check_root_and_segments(self) -> Root | None:
        """Find a root whose segments were all there while it stood; None if the root itself is damaged."""
        for _ in range(_ROOTS_READ):
            self.findings, self._seen, self._excused = Findings(), bytearray(), []
            try:
                data, version = self._reader.read(ROOT_KEY)
                root = codec.decode_root(data)
            except (NotFound, Corrupt) as error:
                self._add(_name_of(error), ROOT_KEY, str(error))
                return None
            self._check_segments(root)
            self._check_keys(root)
            if not self.findings.problems or self._stands(version):
                break
        self._check_inline(root)
        return root

    def _stands(self, version: Version) -> bool:
        try:
            return self._reader.read(ROOT_KEY)[1] == version
        except (NotFound, Corrupt):
            return False

    def _check_segments(self, root: Root) -> None:
        lines = [line for lease in root.leases for line in lease.runs] + root.returned
        held = Runs(expand(lines))
        holes = Runs(expand(root.holes))
        for line in root.segments:
            key = segment_key(line.number, line.epoch)
            try:
                ids = self._segment_ids(line, key)
            except (NotFound, Corrupt) as error:
                self._add(_name_of(error), key, str(error))
                self._excuse(line.first_id, line.last_id)
                continue
            live = [ids[slot] for slot in _live_slots(line, held, holes)]
            self._mark(live, key)
            if line.kind == "dead":
                self.findings.dead += len(live)
            else:
                self.findings.waiting += len(live)
            self.findings.segments += 1

    def _check_keys(self, root: Root) -> None:
        for one in root.key_objects:
            key = segment_key(one.number, one.epoch)
            try:
                data, _ = self._reader.read(key)
                codec.decode_keys(data, expected_digest=one.digest, key=key)
            except (NotFound, Corrupt) as error:
                self._add(_name_of(error), key, str(error))

    def _segment_ids(self, line: SegmentLine, key: str) -> Sequence[int]:
        if key in self._sound:
            return self._sound[key]
        data, _ = self._reader.read(key)
        jobs = codec.decode_segment(data, expected_digest=line.digest, key=key)
        ids = array("Q", (job.id for job in jobs))
        slots = sum(span.count for span in line.spans)
        if (len(data), slots, min(ids), max(ids)) != (line.length, len(ids), line.first_id, line.last_id):
            raise Corrupt("it does not hold the jobs that the root says it holds")
        self._sound[key] = ids
        return ids

    def _check_inline(self, root: Root) -> None:
        self._mark((job.id for job in (*root.tail, *root.deferred, *root.dead)), ROOT_KEY)
        self.findings.waiting += len(root.tail) + len(root.deferred)
        self.findings.dead += len(root.dead)
        self._check_records([bytes(line) for line in root.finished], ROOT_KEY)

    # ----------------------------------------------------------------------------------------------------- archive

    def check_archive(self, root: Root | None) -> None:
        """Check every object that no root has to name."""
        named = _named(root) if root else set()
        for key in self._keys():
            name = parse(key)
            if name is None:
                self._add("foreign", key, "no object of a queue is called so")
            elif root is None:
                self._check_archive_object(name, key)
            elif key not in named:
                self._check_unnamed(name, key, root)

    def _keys(self) -> Iterator[str]:
        for prefix in ("segments/", "archive/"):
            try:
                yield from self._reader.list(prefix)
            except Corrupt as error:  # no directory stands there: nobody can say which objects it had
                self._add("damaged", prefix, str(error))
                self._excuse(0, _ANY_ID)

    def _check_unnamed(self, name: ObjectName, key: str, root: Root) -> None:
        if name.epoch > root.epoch and not self._broker_has_changed(root):
            self._add("newer", key, f"of epoch {name.epoch}, and the root of epoch {root.epoch} is an old one put back")
        elif name.epoch >= root.epoch and name.number >= root.next_object:
            return  # made since the root was read, or by a commit in flight
        elif not is_real(name, root):
            self.findings.leftovers += 1
        elif name.digest:
            self._check_archive_object(name, key)
        else:
            self._add("unnamed", key, "the root names no such segment, and did not drop it")

    def _broker_has_changed(self, root: Root) -> bool:
        try:
            return codec.decode_root(self._reader.read(ROOT_KEY)[0]).epoch > root.epoch
        except (NotFound, Corrupt):
            return False

    def _check_archive_object(self, name: ObjectName, key: str) -> None:
        if not name.digest:
            return
        try:
            data, _ = self._reader.read(key)
            if codec.digest(data) != name.digest:
                raise Corrupt("its digest is not the one in its name")
        except NotFound:
            return  # deleted since it was listed
        except Corrupt as error:
            self._add("damaged", key, str(error))
            self._excuse(name.first_id, name.last_id)
            return
        self.findings.archive_objects += 1
        lines = data.removesuffix(b"\n").split(b"\n")
        ids = self._check_records(lines, key)
        if len(ids) < len(lines):
            self._excuse(name.first_id, name.last_id)
        elif ids and (min(ids), max(ids)) != (name.first_id, name.last_id):
            self._add("damaged", key, f"it holds jobs {min(ids)} to {max(ids)}, which are not those in its name")

    def _check_records(self, lines: Iterable[bytes], key: str) -> list[int]:
        ids = []
        try:
            for line in lines:
                record: JobRecord = codec.decode_record(line, key=key)
                ids.append(record.id)
        except Corrupt as error:
            self._add("damaged", key, str(error))
        self.findings.finished += len(ids)
        self._mark(ids, key)
        return ids

    # -------------------------------------------------------------------------------------------------------- sums

    def check_sums(self, root: Root) -> None:
        """Every job that was pushed stands somewhere, and the root counts right."""
        damaged = any(problem.name in ("damaged", "missing") for problem in self.findings.problems)
        self._seen.extend(bytes(max(root.next_id - len(self._seen), 0)))
        for first, last in self._excused:
            end = min(last + 1, root.next_id)
            self._seen[first:end] = b"\1" * max(0, end - first)
        pruned = root.pruned or 0, self._pruned_now(root)
        self._check_lost(root, pruned)
        if damaged:
            return  # how many jobs stand in what is damaged is not known
        there = {"waiting": self.findings.waiting, "dead": self.findings.dead, "finished": self.findings.finished}
        counted = {
            "waiting": sum(of.ready + of.delayed + of.leased for of in root.tasks.values()),
            "dead": sum(of.dead for of in root.tasks.values()),
            "finished": sum(of.succeeded + of.discarded + of.cancelled for of in root.tasks.values()),
        }
        for name, count in counted.items():
            least, most = pruned if name == "finished" else (0, 0)
            if not least <= count - there[name] <= most:
                less = f", {most} of them pruned" if most else ""
                self._add("miscounted", ROOT_KEY, f"it counts {count} {name} jobs{less}; {there[name]} are there")

    def _check_lost(self, root: Root, pruned: tuple[int, int]) -> None:
        """Jobs that stand nowhere are as many as were pruned, which the root counts and does not name."""
        lost = sum(last - first + 1 for first, last in _gaps(self._seen, root.next_id))
        self.findings.lost = max(0, lost - pruned[1])
        if lost <= pruned[1]:
            return
        for first, last in _gaps(self._seen, root.next_id):
            if pruned[1]:
                some = (
                    f"{lost} jobs stand nowhere, and {pruned[1]} of them were pruned; the first are {first} to {last}"
                )
                self._add("lost", ROOT_KEY, some)
                return
            self._add("lost", ROOT_KEY, f"jobs {first} to {last} were pushed and stand nowhere")

    def _pruned_now(self, root: Root) -> int:
        """How many jobs a broker has pruned by now: some of them since the root was read."""
        try:
            return max(root.pruned or 0, codec.decode_root(self._reader.read(ROOT_KEY)[0]).pruned or 0)
        except (NotFound, Corrupt):
            return root.pruned or 0

    def _mark(self, ids: Iterable[int], key: str) -> None:
        repeated = []
        for job_id in ids:
            if job_id >= len(self._seen):
                self._seen.extend(bytes(job_id + 1024 - len(self._seen)))
            if self._seen[job_id]:
                repeated.append(job_id)
            self._seen[job_id] = 1
        if repeated:
            self._add("repeated", key, f"{len(repeated)} of its jobs stand elsewhere too, the first is {repeated[0]}")

    def _excuse(self, first_id: int, last_id: int) -> None:
        """Jobs of these ids may stand in something damaged: that they stand nowhere cannot be said."""
        self._excused.append((first_id, last_id))

    def _add(self, name: str, key: str, detail: str) -> None:
        self.findings.problems.append(Problem(name, key, detail))


def _named(root: Root) -> set[str]:
    """Keys of what the root names, or has dropped."""
    segments = {segment_key(line.number, line.epoch) for line in root.segments}
    return segments | {segment_key(one.number, one.epoch) for one in root.key_objects} | set(root.trash)


def _name_of(error: NotFound | Corrupt) -> str:
    return "missing" if isinstance(error, NotFound) else "damaged"


def _live_slots(line: SegmentLine, held: Runs, holes: Runs) -> Iterator[int]:
    """Slots that wait, are leased, or came back."""
    for span in line.spans:
        for slot in range(span.first + span.taken, span.first + span.count):
            if not holes.find(line.number, slot):
                yield slot
    for first, last, _, _ in held.of(line.number):
        yield from range(first, last + 1)


def _gaps(seen: bytearray, end: int) -> Iterator[tuple[int, int]]:
    """Runs of ids below ``end`` that were not seen."""
    first = seen.find(0, 1, end)
    while first != -1:
        after = seen.find(1, first, end)
        last = (after if after != -1 else end) - 1
        yield first, last
        first = seen.find(0, last + 1, end)
