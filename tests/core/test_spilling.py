"""Deferred and dead jobs beyond what the root has room for: each where it belongs, none early, and the root small."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

import pytest

from osqueue.core import commit, sealing
from osqueue.core.messages import MAX_IDS, Granted, Handout, Holder, JobError, Numbered, Outcome, Report
from osqueue.core.objects import segment_key
from osqueue.core.segment import NeedsObjectsError, Segment
from osqueue.errors import Corrupt
from tests.core.queue import Queue, Session

ROOT_BYTES = 128 * 1024
LOCAL = Holder("boot", "namespace", 1, 1)
MINUTE_S = 60
DAY_S = 24 * 60 * MINUTE_S
ERROR = JobError("ValueError", "no such image", "  File handler.py, line 12, in resize\n" * 8)


def segments(queue: Queue, kind: str) -> list[Segment]:
    return [s for s in queue.machine.state.backlog.located.spilled() if s.line.kind == kind]


def worker_of(queue: Queue, name: str = "worker") -> Session:
    """A supervisor that takes whatever there is, at any time; what it got is collected by `work`."""
    worker = queue.sessions.setdefault(name, Session(queue, name))
    worker.hello(holder=LOCAL)
    worker.inbox += [Granted(0, worker.lease, worker.claim(10**9, standing=True))]
    return worker


def work(worker: Session, verdict: Any = "succeeded", jobs_at_once: int = 2000) -> list[Handout]:
    """Run all that was granted, and what that makes room for; which jobs it was.

    Args:
        verdict: of every attempt, or a function of the job that says it.
    """
    ran: list[Handout] = []
    while jobs := worker.granted():
        ran += jobs
        for at in range(0, len(jobs), jobs_at_once):
            part = jobs[at : at + jobs_at_once]
            said = [verdict(job) if callable(verdict) else verdict for job in part]
            worker.report(*[Outcome(j.id, j.attempt, v, 1, 2, b"1", ERROR) for j, v in zip(part, said, strict=True)])
    return ran


def all_pages(session: Session, state: str) -> list[int]:
    ids: list[int] = []
    after = 0
    while True:
        page = session.ask_list(state, after)
        ids += [job.id for job in page.jobs]
        if not page.cursor:
            return ids
        after = int(page.cursor)


# ------------------------------------------------------------------------------------------------------------ deferred


@pytest.mark.timeout(600)
def test_200_000_delayed_jobs_of_all_windows_none_early_and_the_root_within_its_budget() -> None:
    dice = random.Random(1)
    queue = Queue()
    publisher, worker = queue.session(), worker_of(queue)
    horizons_s = [MINUTE_S, 8 * MINUTE_S, 60 * MINUTE_S, 8 * 60 * MINUTE_S, 3 * DAY_S, 30 * DAY_S]
    due: dict[int, float] = {}
    for _ in range(2000):
        delay_s = dice.uniform(0.1, dice.choice(horizons_s))
        ids = publisher.push(*[b'"%d"' % dice.randrange(10**6)] * 100, delay_s=delay_s)
        due.update(dict.fromkeys(ids, queue.now_ms + delay_s * 1000))
    assert publisher.stats().delayed == len(due) == 200_000

    step = 0
    while due:
        step += 1
        queue.now_ms += round(dice.choice([0.2, 5, 40, 300, 3000, 30_000, 200_000]) * 1000)
        if step % 20 == 0:
            queue.reopen()
            publisher.hello()
            worker_of(queue)
        queue.commit()
        assert all(due.pop(job.id) <= queue.now_ms for job in work(worker)), "early"
        assert not [job_id for job_id, at_ms in due.items() if at_ms <= queue.now_ms - 125], "late"

    assert not due
    assert publisher.stats().succeeded == 200_000
    assert queue.biggest_root <= ROOT_BYTES
    assert not segments(queue, "deferred")


@pytest.mark.timeout(600)
def test_100_000_jobs_that_fail_and_retry_none_early_and_the_root_within_its_budget() -> None:
    queue = Queue(max_attempts=4, retry_backoff_s=8.0, retry_jitter=False)
    publisher, worker = queue.session(), worker_of(queue)
    for _ in range(50):
        publisher.push(*[b'{"image":"a.png"}'] * 2000)
    ran_ms: dict[int, list[int]] = defaultdict(list)

    while publisher.stats().succeeded < 100_000:
        for job in work(worker, lambda job: "succeeded" if job.attempt == 3 else "failed"):
            ran_ms[job.id].append(queue.now_ms)
        queue.wait(1.0)
        if len(ran_ms) == 100_000 and queue.now_ms % 5 == 0:
            queue.reopen()
            publisher.hello()
            worker_of(queue)

    assert len(ran_ms) == 100_000
    for first_ms, second_ms, third_ms in ran_ms.values():
        assert second_ms - first_ms >= 8000
        assert third_ms - second_ms >= 16_000
    assert queue.biggest_root <= ROOT_BYTES
    assert not segments(queue, "deferred")


def test_a_delayed_job_that_is_spilled_is_shown_listed_and_cancelled_after_a_restart(queue: Queue) -> None:
    session = queue.session()
    far = session.push(*[b'"%0200d"' % n for n in range(200)], delay_s=2 * DAY_S)
    near = session.push(*[b'"%0200d"' % n for n in range(200)], delay_s=90)
    assert max(segment.line.level for segment in segments(queue, "deferred")) >= 3

    queue.reopen()
    session.hello()

    assert session.get(far[7]).state == session.get(near[7]).state == "delayed"
    assert session.get(far[7]).payload == b'"%0200d"' % 7
    assert all_pages(session, "delayed") == far + near
    assert session.cancel(*far[:200:2]).ids == [(job_id, job_id) for job_id in far[::2]]
    assert all_pages(session, "delayed") == far[1::2] + near
    stats = session.stats()
    assert (stats.delayed, stats.ready, stats.cancelled) == (300, 0, 100)
    queue.wait(100)
    assert session.stats().ready == 200
    assert [job.id for job in session.claim(500)] == near


def test_due_jobs_go_out_by_priority_and_then_in_the_order_in_which_they_were_due(queue: Queue) -> None:
    session = queue.session()
    later = session.push(*[b'"%0200d"' % n for n in range(100)], delay_s=40)
    sooner = session.push(*[b'"%0200d"' % n for n in range(100)], delay_s=20)
    first = session.push(*[b'"%0200d"' % n for n in range(100)], delay_s=41, priority=5)
    queue.wait(45)

    assert [job.id for job in session.claim(300)] == first + sooner + later


def test_a_due_job_that_fails_is_deferred_once_more_and_keeps_its_errors(queue: Queue) -> None:
    publisher, worker = queue.session(), worker_of(queue)
    publisher.push(*[b'"%0200d"' % n for n in range(300)])
    assert len(work(worker, "failed")) == 300
    assert segments(queue, "deferred")
    queue.wait(2)

    assert [job.attempt for job in work(worker, "failed")] == [2] * 300
    queue.reopen()
    publisher.hello()

    record = publisher.get(77)
    assert (record.state, record.attempts, [error.attempt for error in record.errors]) == ("delayed", 2, [1, 2])


def test_what_a_worker_holds_of_a_spilled_segment_survives_merging_and_restarts(queue: Queue) -> None:
    publisher = queue.session()
    worker = Session(queue, "worker")
    queue.sessions["worker"] = worker
    worker.hello(holder=LOCAL)
    held: list[Handout] = []
    for _ in range(30):
        publisher.push(*[b'"%0200d"' % n for n in range(60)], delay_s=1)
        queue.wait(1.2)
        held += worker.claim(20, standing=True)
    queue.reopen()
    worker.hello(held=[(job.id, job.attempt) for job in held], holder=LOCAL)

    assert worker.lost() == []
    assert len(held) == 600
    assert worker.report(*[Outcome(job.id, job.attempt, "succeeded") for job in held]).lost == []
    publisher.hello()
    assert publisher.stats().succeeded == 600
    assert publisher.stats().ready == 30 * 60 - 600


def test_small_spilled_segments_are_merged_so_that_the_root_names_few(queue: Queue) -> None:
    session = queue.session()
    for _ in range(400):
        session.push(*[b'"%0100d"' % n for n in range(40)], delay_s=2 * DAY_S)

    assert len(segments(queue, "deferred")) <= 24
    assert session.stats().delayed == 16_000


def test_a_queue_opened_long_after_its_jobs_were_due_hands_them_all_out(queue: Queue) -> None:
    session = queue.session()
    ids = []
    for delay_s in (30, 400, 4000, 40_000, 400_000, 4_000_000):
        ids += session.push(*[b'"%0200d"' % n for n in range(100)], delay_s=delay_s)
    queue.now_ms += 365 * DAY_S * 1000
    queue.reopen()
    session.hello()

    assert session.stats().ready == 600
    assert sorted(job.id for job in session.claim(1000)) == ids


# ---------------------------------------------------------------------------------------------------------------- dead


@pytest.fixture
def many_dead() -> Queue:
    """50,000 dead jobs with errors, after a restart."""
    queue = Queue(max_attempts=1)
    publisher, worker = queue.session(), worker_of(queue)
    for _ in range(25):
        publisher.push(*[b'{"image":"a.png"}'] * 2000)
        work(worker, "failed")
    queue.reopen()
    publisher.hello()
    assert publisher.stats().dead == 50_000
    return queue


@pytest.mark.timeout(600)
def test_50_000_dead_jobs_are_requeued_and_the_root_stays_within_its_budget(many_dead: Queue) -> None:
    queue = many_dead
    session = queue.session()
    ids = all_pages(session, "dead")
    assert ids == list(range(1, 50_001))

    for at in range(0, len(ids), MAX_IDS):
        session.requeue(*ids[at : at + MAX_IDS])

    assert queue.biggest_root <= ROOT_BYTES
    assert (session.stats().ready, session.stats().dead) == (50_000, 0)
    assert not segments(queue, "dead")
    queue.reopen()
    [lane] = queue.machine.state.backlog.lanes
    assert lane.oldest_ms() is not None, "though no segment is in memory yet"
    session.hello()
    jobs = work(worker_of(queue))
    assert sorted(job.id for job in jobs) == ids
    assert {job.attempt for job in jobs} == {2}
    assert session.stats().succeeded == 50_000
    assert next(record for record in queue.archived() if record.id == 1).errors[0].message == "no such image"


@pytest.mark.timeout(600)
def test_every_second_dead_job_is_discarded_and_the_others_stay_dead(many_dead: Queue) -> None:
    queue = many_dead
    session = queue.session()
    ids = list(range(1, 50_001, 2))

    for at in range(0, len(ids), MAX_IDS):
        assert session.discard(*ids[at : at + MAX_IDS]).unknown == []

    assert queue.biggest_root <= ROOT_BYTES
    queue.reopen()
    session.hello()
    assert all_pages(session, "dead") == list(range(2, 50_001, 2))
    assert session.get(2).state == "dead"
    records = {record.id: record for record in queue.archived()}
    assert sorted(records) == ids
    assert {record.state for record in records.values()} == {"dead"}
    assert records[1].errors[0].message == "no such image"


@pytest.mark.timeout(600)
def test_every_second_of_100_000_waiting_jobs_is_cancelled_and_the_others_wait(queue: Queue) -> None:
    session = queue.session()
    for _ in range(50):
        session.push(*[b'{"image":"a.png"}'] * 2000)
    ids = list(range(1, 100_001, 2))

    for at in range(0, len(ids), MAX_IDS):
        session.cancel(*ids[at : at + MAX_IDS])

    assert queue.biggest_root <= ROOT_BYTES
    queue.reopen()
    session.hello()
    assert session.stats().ready == 50_000
    assert Counter(record.state for record in queue.archived()) == {"cancelled": 50_000}
    assert [job.id for job in work(worker_of(queue))] == list(range(2, 100_001, 2))


def test_a_dead_job_larger_than_the_roots_part_stands_alone_and_is_found(queue: Queue) -> None:
    publisher, worker = queue.session(), worker_of(queue)
    publisher.push(b'"%b"' % (b"-" * 100_000), max_attempts=1)
    work(worker, "failed")
    assert [segment.slots for segment in segments(queue, "dead")] == [1]

    queue.reopen()
    publisher.hello()

    assert publisher.get(1).state == "dead"
    assert publisher.requeue(1).ids == [(1, 1)]
    assert publisher.get(1).state == "ready"


@pytest.mark.parametrize("gone", ["missing", "unreadable", "damaged"])
@pytest.mark.parametrize(("damaged", "delay_s"), [(2, 3600), (4, 50)], ids=["to be split", "to be read"])
def test_damaged_segments_keep_no_later_one_from_its_time(
    queue: Queue, monkeypatch: pytest.MonkeyPatch, damaged: int, delay_s: int, gone: str
) -> None:
    session = queue.session()
    for _ in range(damaged + 1):
        session.push(*[b'"%b"' % (b"-" * 1000)] * 8, delay_s=delay_s)
    lost = {segment.key for segment in [*queue.machine.state.backlog.deferred.segments()][:damaged]}
    assert len(lost) == damaged
    queue.reopen()
    session.hello()

    def load(keys: Iterable[str]) -> None:
        objects = queue.machine.objects
        for key in keys:
            if key not in lost:
                objects.load(key, queue.store[key])
            elif gone == "damaged":
                with suppress(Corrupt):
                    objects.load(key, b"")
            else:
                getattr(objects, gone)(key)

    monkeypatch.setattr(queue, "load", load)
    for _ in range(6):
        queue.now_ms += delay_s * 1000 // 3
        queue.commit()

    assert len(queue.machine.state.backlog.damaged()) == damaged
    assert len(session.claim(100)) == 8
    assert not queue.machine.state.backlog.deferred.awaits({"default"})


def test_a_damaged_spilled_segment_blocks_its_own_jobs_only(queue: Queue) -> None:
    session = queue.session()
    session.push(*[b'"%0200d"' % n for n in range(100)], delay_s=1)
    kept = session.push(*[b'"%0200d"' % n for n in range(100)])
    [segment] = segments(queue, "deferred")
    queue.store[segment.key] = b"{}"
    queue.reopen()
    queue.now_ms += 2000
    queue.machine.settle(queue.now_ms)

    assert queue.machine.objects.take_wanted() == {segment.key}
    with pytest.raises(Corrupt, match=segment.key):
        queue.machine.objects.load(segment.key, queue.store[segment.key])
    session.hello()

    assert [job.id for job in session.claim(500)] == kept
    assert queue.machine.objects.damage([3])[3].key == segment.key
    assert session.ask_list("delayed").damage.code == "corrupt"
    assert session.ask_list("dead").damage is None


# ------------------------------------------------------------------------------------------------ dropping what is lost


def counted(session: Session) -> dict[str, int]:
    stats = session.stats()
    return {"ready": stats.ready, "delayed": stats.delayed, "dead": stats.dead}


def drop(queue: Queue, key: str) -> int:
    """Go on without an object, reading what it takes to count right."""
    dropped: list[int] = []
    queue.retry(lambda: dropped.append(queue.machine.objects.drop(key)))
    queue.commit()
    assert key not in queue.store
    return dropped[0]


def test_a_dropped_segment_of_dead_jobs_leaves_the_others_of_each_task_counted(queue: Queue) -> None:
    publisher, worker = queue.session(), worker_of(queue)
    for _ in range(2):
        publisher.push(*[b'"%0200d"' % n for n in range(100)], max_attempts=1)
        work(worker, "failed")
    key, kept = (segment.key for segment in segments(queue, "dead"))
    queue.reopen()
    publisher.hello()

    assert drop(queue, key) == 100

    assert counted(publisher) == {"ready": 0, "delayed": 0, "dead": 100}
    assert [segment.key for segment in segments(queue, "dead")] == [kept]
    assert publisher.requeue(*range(101, 201)).ids == [(101, 200)]


@pytest.mark.parametrize("waited_s", [0, 10, 40])
def test_a_dropped_segment_of_deferred_jobs_leaves_what_is_ready_and_what_is_delayed_counted(
    queue: Queue, waited_s: int
) -> None:
    session = queue.session()
    soon = session.push(*[b'"%0200d"' % n for n in range(100)], delay_s=5)
    session.push(*[b'"%0200d"' % n for n in range(100)], delay_s=20)
    late = session.push(*[b'"%0200d"' % n for n in range(100)], delay_s=30)
    session.cancel(*soon[:10], *late[:5])
    keys = [segment.key for segment in segments(queue, "deferred")]
    queue.wait(waited_s)
    queue.commit()
    session.push(b"1")
    queue.reopen()
    session.hello()

    assert drop(queue, keys[1]) == 100

    ready = {0: 0, 10: 90, 40: 185}[waited_s]
    assert counted(session) == {"ready": ready + 1, "delayed": 185 - ready, "dead": 0}
    queue.wait(60)
    assert sorted(job.id for job in session.claim(500)) == [*soon[10:], *late[5:], 301]


def test_keys_of_a_dropped_object_are_free_and_what_had_them_takes_them_from_nobody(queue: Queue) -> None:
    session = queue.session()
    for number in range(100):
        session.push(b"1", key=f"order-{number}")
    [one] = queue.machine.state.keys.objects()
    queue.reopen()
    session.hello()

    assert drop(queue, segment_key(one.number, one.epoch)) == 0

    assert session.push(b"2", key="order-7") == [101]
    session.cancel(8)
    assert session.push(b"3", key="order-7") == [101], "the first one that had it lets go of nothing"


# --------------------------------------------------------------------------------------------------------- in memory


def retry_with_little_memory(queue: Queue, action: Callable[[], None]) -> int:
    """Do something with no more segments in memory than it asks for at a time; how often it asked."""
    loaded = queue.machine.state.backlog.loaded
    for asked in range(100):
        try:
            action()
        except NeedsObjectsError as error:
            queue.load(error.keys)
            loaded._limit_bytes = 0
            loaded.trim(set(error.keys))
        else:
            return asked
    raise AssertionError("it asks for ever")


@pytest.fixture
def never_merged(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small segments stay as they are, so that there are many."""
    monkeypatch.setattr(sealing, "_MERGED_AT_ONCE", 1000)


@pytest.mark.usefixtures("never_merged")
def test_a_report_on_many_spilled_segments_is_applied_however_little_stays_in_memory(queue: Queue) -> None:
    publisher, worker = queue.session(), worker_of(queue)
    for minutes in range(1, 31):
        publisher.push(*[b'"%0900d"' % n for n in range(30)], delay_s=60 * minutes)
    jobs: list[Handout] = []
    for _ in range(32):
        queue.wait(60)
        jobs += worker.granted()
    assert len(jobs) == 900
    assert len({place.object for place in queue.machine.state.locate([job.id for job in jobs]) if place}) > 12
    queue.reopen()
    worker.hello(held=[(job.id, job.attempt) for job in jobs], holder=LOCAL)
    queue.unload()
    report = Numbered(1, 0, Report(worker.lease, [Outcome(job.id, job.attempt, "succeeded") for job in jobs[::2]]))

    retry_with_little_memory(
        queue, lambda: queue.machine.numbered(worker.name, worker.birth, report, queue.now_ms) and None
    )

    queue.commit()
    publisher.hello()
    assert publisher.stats().succeeded == 450


@pytest.mark.usefixtures("never_merged")
def test_a_job_that_ended_is_looked_for_in_many_spilled_segments_a_few_at_a_time(queue: Queue) -> None:
    publisher, worker = queue.session(), worker_of(queue)
    first = publisher.push(*[b'"%0900d"' % n for n in range(20)], max_attempts=1, task="first")
    publisher.push(*[b"1"] * 50)
    last = publisher.push(*[b'"%0900d"' % n for n in range(20)], max_attempts=1, task="last")
    work(worker)
    dead = queue.session("dead")
    for task in ("first", "last") * 20:  # a segment of dead jobs lies around the others
        [job] = dead.claim(tasks=(task,))
        dead.report(Outcome(job.id, job.attempt, "dead", error=ERROR))
    assert len(segments(queue, "dead")) > 8
    queue.reopen()
    publisher.hello()

    asked = retry_with_little_memory(queue, lambda: queue.machine.state.locate([30]) and None)

    assert asked >= 2
    assert queue.machine.state.locate([30]) == [None]
    assert {publisher.get(job_id).state for job_id in (*first, *last)} == {"dead"}


def test_a_job_that_stands_in_two_merged_segments_is_written_once(
    queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commit, "DEFERRED_BYTES", 200)
    publisher = queue.session()
    worker = Session(queue, "worker")
    queue.sessions["worker"] = worker
    worker.hello(holder=LOCAL)
    publisher.push(*[b'"%0100d"' % n for n in range(6)])
    for jobs in (6, 4):  # of six jobs that are deferred together four fail again
        failed = [
            Outcome(job.id, job.attempt, "failed", error=ERROR, retry_delay_s=1)
            for job in worker.claim(jobs, standing=True)
        ]
        worker.report(*failed)
        queue.wait(2)
    held = worker.claim(6, standing=True)
    assert len(held) == 6
    monkeypatch.setattr(sealing, "_MERGED_AT_ONCE", 3)
    publisher.push(*[b'"%0100d"' % n for n in range(6)], delay_s=1)
    queue.wait(2)

    slots = [job.id for segment in segments(queue, "deferred") for job in segment.loaded()]

    assert len(slots) == len(set(slots)) >= 6
    assert worker.report(*[Outcome(job.id, job.attempt, "succeeded") for job in held]).lost == []
