"""Queues written by hand, object by object, then damaged in one way each."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from msgspec import Raw, json, structs

from osqueue import Broker
from osqueue.core import codec
from osqueue.core.model import Counts, Frame, Job, LeaseLine, Record, SegmentLine, Span, Takeover
from osqueue.core.objects import ObjectName, archive_key, segment_key
from osqueue.storage import ROOT_KEY, MemoryStorage, NotFound, Version, open_reader
from osqueue.verify import verify

EPOCH = 3
SEGMENT = segment_key(7, EPOCH)


class StoredQueue:
    """16 jobs: 1–6 archived, 7 finished inline, 8–13 in a segment, 14 in the tail, 15 deferred, 16 dead.

    Of the segment's jobs 8 was taken and finished too, 9 is leased, 10 came back, 12 was cancelled: a hole.
    """

    def __init__(self) -> None:
        self.storage = MemoryStorage()
        self.segment = codec.encode_segment(7, EPOCH, [job(number) for number in range(8, 14)])
        archived = b"".join(codec.encode_record(record(number)) + b"\n" for number in (1, 2, 3, 4, 5, 6, 8, 12))
        self.archive = archive_key(ObjectName(8, EPOCH, "2026-01-01T10", 1, 12, codec.digest(archived)))
        self.frame = Frame(
            version=40,
            epoch=EPOCH,
            next_id=17,
            next_object=9,
            takeovers=[Takeover(2, 10, 3, "b"), Takeover(EPOCH, 20, 6, "c")],
        )
        self.sections: dict[str, object] = {
            "tasks": {"default": Counts(pushed=16, ready=4, delayed=1, leased=1, succeeded=8, cancelled=1, dead=1)},
            "segments": [self.line()],
            "holes": [(7, 4, 4)],
            "tail": [job(14)],
            "deferred": [job(15)],
            "dead": [job(16)],
            "leases": [LeaseLine(1, "s", [(7, 1, 1, 1, False)])],
            "returned": [(7, 2, 2, 1, False)],
            "finished": [Raw(codec.encode_record(record(7)))],
        }
        self.storage.create(SEGMENT, self.segment)
        self.storage.create(self.archive, archived)
        self.version: Version | None = None
        self.commit()

    def line(self) -> SegmentLine:
        spans = [Span(0, "default", 0, 6, 3)]
        return SegmentLine(7, EPOCH, codec.digest(self.segment), len(self.segment), 8, 13, 1, spans)

    def commit(self) -> None:
        sections = [(name, json.encode(value)) for name, value in self.sections.items()]
        root = codec.encode_root(self.frame, sections)
        self.version = self.storage.compare_and_swap(ROOT_KEY, root, self.version)

    def problems(self) -> list[tuple[str, str]]:
        return [(problem.name, problem.key) for problem in verify(self.storage).problems]

    def replace(self, key: str, data: bytes) -> None:
        self.storage.delete(key)
        self.storage.create(key, data)


def job(number: int) -> Job:
    return Job(id=number, pushed_ms=0, payload=Raw(b"%d" % number))


def record(number: int) -> Record:
    return Record(
        id=number,
        task="default",
        payload=Raw(b"%d" % number),
        state="succeeded",
        attempts=1,
        errors=(),
        result=None,
        pushed_at="",
        started_at=None,
        finished_at="",
        worker=None,
    )


@pytest.fixture
def queue() -> StoredQueue:
    return StoredQueue()


def test_a_sound_queue_has_no_problem_and_every_job_is_counted(queue: StoredQueue) -> None:
    findings = verify(queue.storage)

    assert findings.problems == []
    assert (findings.waiting, findings.dead, findings.finished) == (6, 1, 9)
    assert (findings.segments, findings.archive_objects, findings.leftovers) == (1, 1, 0)


def test_a_flipped_bit_is_found_in_every_object(queue: StoredQueue) -> None:
    for key in (ROOT_KEY, SEGMENT, queue.archive):
        sound, _ = queue.storage.read(key)
        for at in range(0, len(sound), 7):
            damaged = bytearray(sound)
            damaged[at] ^= 1
            queue.replace(key, bytes(damaged))
            assert ("damaged", key) in queue.problems(), (key, at)
        queue.replace(key, sound)
    assert queue.problems() == []


@pytest.mark.parametrize("data", [b"", b"\0" * 500], ids=["truncated", "zeros"])
def test_an_emptied_object_is_damaged(queue: StoredQueue, data: bytes) -> None:
    for key in (ROOT_KEY, SEGMENT, queue.archive):
        sound, _ = queue.storage.read(key)
        queue.replace(key, data)
        assert ("damaged", key) in queue.problems()
        queue.replace(key, sound)


def test_a_lost_root_is_named_and_the_archive_is_checked_all_the_same(queue: StoredQueue) -> None:
    queue.storage.delete(ROOT_KEY)
    queue.replace(queue.archive, b"{}\n")

    assert queue.problems() == [("missing", ROOT_KEY), ("damaged", queue.archive)]


def test_a_lost_segment_is_named(queue: StoredQueue) -> None:
    queue.storage.delete(SEGMENT)

    assert queue.problems() == [("missing", SEGMENT)]


def test_a_lost_archive_object_shows_as_lost_jobs(queue: StoredQueue) -> None:
    queue.storage.delete(queue.archive)

    problems = verify(queue.storage).problems

    assert [problem.detail for problem in problems if problem.name == "lost"] == [
        "jobs 1 to 6 were pushed and stand nowhere",
        "jobs 8 to 8 were pushed and stand nowhere",
        "jobs 12 to 12 were pushed and stand nowhere",
    ]


def test_damage_in_one_object_hides_no_loss_of_another(queue: StoredQueue) -> None:
    queue.replace(SEGMENT, b"")
    queue.storage.delete(queue.archive)

    problems = verify(queue.storage).problems

    assert (problems[0].name, problems[0].key) == ("damaged", SEGMENT)
    lost = [problem.detail for problem in problems if problem.name == "lost"]
    assert "jobs 1 to 6 were pushed and stand nowhere" in lost
    assert [problem for problem in problems if problem.name == "miscounted"] == []


def test_ids_in_a_name_that_is_not_true_cost_no_memory(queue: StoredQueue) -> None:
    far = queue.archive.replace(".1-12.", ".1-900000000000.")
    queue.storage.create(far, b"{}\n")

    assert queue.problems() == [("damaged", far)]


def test_a_foreign_file_among_the_objects_is_named(queue: StoredQueue) -> None:
    queue.storage.create("archive/notes.txt", b"dear diary")

    assert queue.problems() == [("foreign", "archive/notes.txt")]


def test_what_a_crash_left_behind_is_no_damage(queue: StoredQueue) -> None:
    queue.storage.create(archive_key(ObjectName(9, EPOCH, "2026-01-01T10", 14, 14, "ab")), b"in flight")
    queue.storage.create(segment_key(6, 2), b"of a broker that was replaced before its commit landed")

    findings = verify(queue.storage)

    assert findings.problems == []
    assert findings.leftovers == 1


def test_dropped_objects_that_are_not_deleted_yet_are_no_damage(queue: StoredQueue) -> None:
    queue.storage.create(segment_key(6, EPOCH), b"dropped")
    queue.frame.trash.append(segment_key(6, EPOCH))
    queue.commit()

    assert queue.problems() == []


def test_an_old_root_put_back_is_betrayed_by_objects_of_a_later_epoch(queue: StoredQueue) -> None:
    later = segment_key(9, EPOCH + 1)
    queue.storage.create(later, b"of the broker that came after")

    assert queue.problems() == [("newer", later)]


def test_a_segment_that_the_root_should_name_is_a_problem(queue: StoredQueue) -> None:
    queue.storage.create(segment_key(6, EPOCH), queue.segment)

    assert queue.problems() == [("unnamed", segment_key(6, EPOCH))]


def test_a_job_in_two_places_is_a_problem(queue: StoredQueue) -> None:
    queue.sections["tail"] = [job(14), job(3)]
    queue.commit()

    assert ("repeated", queue.archive) in queue.problems()


def test_a_segment_with_other_jobs_than_its_line_says_is_damaged(queue: StoredQueue) -> None:
    queue.sections["segments"] = [structs.replace(queue.line(), last_id=20)]
    queue.commit()

    assert queue.problems() == [("damaged", SEGMENT)]


def test_wrong_counts_are_a_problem(queue: StoredQueue) -> None:
    queue.sections["tasks"] = {"default": Counts(pushed=16, ready=5, delayed=1, leased=1, succeeded=9, dead=1)}
    queue.commit()

    assert queue.problems() == [("miscounted", ROOT_KEY)]


class BusyStorage:
    """A storage whose broker commits between a reader's reads: the first segment is gone once the root was read."""

    def __init__(self, queue: StoredQueue) -> None:
        self._queue = queue
        self._moved = False

    def read(self, key: str) -> tuple[bytes, Version]:
        found = self._queue.storage.read(key)
        if key == ROOT_KEY and not self._moved:
            self._moved = True
            self._move_segment()
        return found

    def _move_segment(self) -> None:
        queue = self._queue
        queue.segment = codec.encode_segment(9, EPOCH, [job(number) for number in range(8, 14)])
        queue.frame.next_object = 10
        queue.sections["segments"] = [structs.replace(queue.line(), number=9)]
        queue.sections |= {"holes": [(9, 4, 4)], "returned": [(9, 2, 2, 1, False)]}
        queue.sections["leases"] = [LeaseLine(1, "s", [(9, 1, 1, 1, False)])]
        queue.storage.create(segment_key(9, EPOCH), queue.segment)
        queue.commit()
        queue.storage.delete(SEGMENT)

    def list(self, prefix: str) -> Iterator[str]:
        return iter(self._queue.storage.list(prefix))

    def close(self) -> None:
        self._queue.storage.close()


def test_a_broker_that_commits_meanwhile_is_no_problem(queue: StoredQueue) -> None:
    storage = BusyStorage(queue)

    findings = verify(storage)

    assert findings.problems == []
    assert findings.waiting == 6
    with pytest.raises(NotFound):
        storage.read(SEGMENT)


@pytest.mark.parametrize("pruned", [7, 8, 9])
def test_what_was_pruned_must_add_up(queue: StoredQueue, pruned: int) -> None:
    queue.storage.delete(queue.archive)
    queue.frame.pruned = pruned
    queue.commit()

    names = [name for name, _ in queue.problems()]

    assert names == {7: ["lost", "miscounted"], 8: [], 9: ["miscounted"]}[pruned]


def test_a_broker_that_prunes_meanwhile_is_no_problem(queue: StoredQueue) -> None:
    class Pruning(MemoryStorage):
        """The root is read, and before anything else is, the only archive object is pruned."""

        def list(self, prefix: str) -> Iterator[str]:
            if not queue.frame.pruned:
                queue.frame.pruned = 8
                queue.storage.delete(queue.archive)
                queue.commit()
            return super().list(prefix)

    queue.storage.__class__ = Pruning

    assert queue.problems() == []
    assert queue.frame.pruned == 8


def test_a_file_in_the_place_of_the_archive_is_damage_and_loses_nobody(tmp_path: Path) -> None:
    with Broker.open(tmp_path / "queue") as broker:
        broker.push(b"1")
        job = broker.claim()
        assert job is not None
        broker.complete(job)
    shutil.rmtree(tmp_path / "queue" / "archive")
    (tmp_path / "queue" / "archive").write_text("")

    with closing(open_reader(tmp_path / "queue")) as reader:
        problems = verify(reader).problems

    assert [(problem.name, problem.key) for problem in problems] == [("damaged", "archive/")]
