"""``max_queued``: how many jobs may wait, who is refused, who is told when there is room."""

from __future__ import annotations

import pytest

from osqueue.core.messages import Ask, Heartbeat, Progress, Push, Refused, Reply, Stats, WaitRoom, Welcome
from tests.core.queue import Queue, Session


def bounded(limit: int = 3) -> tuple[Queue, Session, Session]:
    queue = Queue(max_queued=limit)
    worker = queue.session("worker")
    worker.hello()
    return queue, queue.session("pusher"), worker


def waiting(session: Session) -> int:
    stats = session.stats()
    return stats.ready + stats.delayed


def park(session: Session, ticket: int) -> None:
    session.queue.machine.ask(session.name, Ask(ticket, WaitRoom()), session.queue.now_ms)
    session.queue.commit()


def told(session: Session, ticket: int) -> object:
    replies = [message for message in session.received(Reply) if message.ticket == ticket]
    return replies[0].body if replies else None


def fit(session: Session, *payloads: bytes, **options: object) -> list[int]:
    runs = session.say(Push(list(payloads), fitting=True, **options)).ids  # type: ignore[arg-type]
    return [job_id for first, last in runs for job_id in range(first, last + 1)]


def test_a_push_above_the_bound_is_refused_whole_and_says_what_to_do():
    _, pusher, _ = bounded(3)
    pusher.push(b"1", b"2")

    refused = pusher.say(Push([b"3", b"4"]))

    assert refused.code == "queue_full"
    assert "push_many or map, which wait" in refused.message
    assert "waiting=2 pushing=2 max_queued=3" in refused.message
    assert pusher.push(b"3") == [3]


def test_a_push_that_may_be_cut_adds_the_first_ones_that_fit():
    queue, pusher, _ = bounded(3)

    assert fit(pusher, b"1", b"2", b"3", b"4") == [1, 2, 3]
    assert fit(pusher, b"4") == []

    assert waiting(pusher) == 3
    assert [job.payload_bytes() for job in queue.machine.state.backlog.inline.jobs.values()] == [b"1", b"2", b"3"]


def test_a_cut_push_that_is_said_again_has_its_first_answer():
    queue, pusher, worker = bounded(2)
    first = pusher.say(Push([b"1", b"2", b"3"], fitting=True))
    worker.claim()

    assert pusher.say(Push([b"1", b"2", b"3"], fitting=True), number=pusher.number, acked=0) == first
    assert pusher.stats().pushed == 2
    queue.reopen()
    pusher.hello()
    assert pusher.say(Push([b"1", b"2", b"3"], fitting=True), number=pusher.number, acked=0) == first


def test_what_is_handed_out_waits_until_it_has_begun_and_then_no_more():
    _, pusher, worker = bounded(2)
    pusher.push(b"1", b"2")
    jobs = worker.claim(2, standing=True)
    assert pusher.say(Push([b"3"])).code == "queue_full"

    worker.heartbeat((jobs[0].id,))

    assert waiting(pusher) == 1
    assert pusher.push(b"3") == [3]
    assert pusher.say(Push([b"4"])).code == "queue_full"


def test_what_has_begun_and_ended_makes_no_room_for_what_has_not_begun():
    _, pusher, worker = bounded(2)
    pusher.push(b"1", b"2")
    first, second = worker.claim(2, standing=True)
    worker.heartbeat((first.id,))
    pusher.push(b"3")

    worker.complete(first)

    assert waiting(pusher) == 2, "the second, and the third"
    assert pusher.say(Push([b"4"])).code == "queue_full"
    worker.heartbeat((second.id,))
    assert pusher.push(b"4") == [4]


def test_a_job_whose_end_is_being_reported_does_not_wait_again():
    _, pusher, worker = bounded(2)
    pusher.push(b"1")
    job = worker.claim(2, standing=True)[0]
    worker.heartbeat((job.id,))
    pusher.push(b"2", b"3")

    worker.heartbeat(())

    assert waiting(pusher) == 2
    assert pusher.get(job.id).state == "running"


def test_a_heartbeat_that_names_a_job_that_was_cancelled_makes_no_room():
    _, pusher, worker = bounded(2)
    pusher.push(b"1", b"2")
    first, _ = worker.claim(2, standing=True)
    pusher.cancel(first.id)
    pusher.push(b"3")

    worker.heartbeat((first.id,))

    assert pusher.say(Push([b"4"])).code == "queue_full"


def test_a_heartbeat_that_names_anothers_job_makes_no_room():
    queue, pusher, worker = bounded(2)
    other = queue.session("other")
    pusher.push(b"1", b"2")
    [theirs] = worker.claim(1, standing=True)
    other.claim(1, standing=True)

    other.heartbeat((theirs.id,))

    assert pusher.say(Push([b"3"])).code == "queue_full"


@pytest.mark.parametrize("knows", [True, False], ids=["known", "not known"])
def test_what_runs_is_counted_though_its_segment_has_left_memory(knows: bool):
    queue, pusher, worker = bounded(500)
    pusher.push(*[b'"%0100d"' % number for number in range(250)], task="default")
    pusher.push(*[b'"%0100d"' % number for number in range(250)], task="other")
    jobs = worker.claim(500, tasks=("default", "other"), standing=True)
    ids = tuple(job.id for job in jobs)
    if knows:
        worker.heartbeat(ids)
    queue.unload()

    worker.heartbeat(ids)

    stats = pusher.stats()
    assert (stats.running, stats.tasks["default"].running, stats.tasks["other"].running) == (500, 250, 250)
    assert pusher.push(b"1") == [501]


def test_what_a_lease_holds_no_more_is_not_counted_though_its_segment_has_left_memory():
    queue, pusher, worker = bounded(500)
    pusher.push(*[b'"%0100d"' % number for number in range(500)])
    jobs = worker.claim(500, standing=True)
    worker.heartbeat(tuple(job.id for job in jobs))
    worker.complete(jobs[7])
    pusher.cancel(jobs[8].id)
    queue.unload()

    worker.heartbeat(tuple(job.id for job in jobs))

    assert pusher.stats().running == 498


def test_of_a_bare_claim_all_has_begun():
    _, pusher, worker = bounded(1)
    pusher.push(b"1")
    worker.claim()

    assert pusher.push(b"2") == [2]


def test_delayed_jobs_and_those_of_any_task_count():
    _, pusher, _ = bounded(2)
    pusher.push(b"1", delay_s=60)
    pusher.push(b"2", task="other")

    assert pusher.say(Push([b"3"])).code == "queue_full"


def test_retries_and_requeued_jobs_always_find_room():
    queue, pusher, worker = bounded(1)
    pusher.push(b"1")
    job = worker.claim(standing=True)[0]
    worker.heartbeat((job.id,))
    pusher.push(b"2")

    assert worker.fail(job) == []
    assert waiting(pusher) == 2, "the retry is above the bound"
    queue.wait(5)
    assert pusher.say(Push([b"3"])).code == "queue_full"


def test_who_waits_for_room_is_told_at_once_where_there_is_some():
    _, pusher, _ = bounded(1)

    park(pusher, 7)

    assert isinstance(told(pusher, 7), Stats)


def test_who_waits_for_room_is_told_when_a_job_begins():
    _, pusher, worker = bounded(1)
    pusher.push(b"1")
    park(pusher, 7)
    job = worker.claim(standing=True)[0]
    assert told(pusher, 7) is None

    worker.heartbeat((job.id,))

    assert isinstance(told(pusher, 7), Stats)


def test_who_waits_for_room_is_told_when_a_job_is_cancelled():
    _, pusher, worker = bounded(1)
    pusher.push(b"1")
    park(pusher, 7)

    worker.cancel(1)

    assert isinstance(told(pusher, 7), Stats)


def test_all_who_wait_are_told_so_that_one_that_has_given_up_keeps_nobody_waiting():
    queue, pusher, worker = bounded(1)
    other = queue.session("other")
    pusher.push(b"1")
    park(pusher, 7)
    park(other, 8)

    worker.claim()
    queue.commit()

    assert isinstance(told(pusher, 7), Stats)
    assert isinstance(told(other, 8), Stats)


def test_a_question_goes_with_its_connection():
    queue, pusher, worker = bounded(1)
    pusher.push(b"1")
    park(pusher, 7)

    queue.machine.disconnected(pusher.name)
    worker.claim()

    assert told(pusher, 7) is None
    assert queue.machine._parked_questions._questions == []


def test_nobody_waits_for_room_that_only_damaged_segments_could_make():
    queue, pusher, _ = bounded(3)
    pusher.push(*[b'"%b"' % (b"x" * 30_000)] * 3)
    queue.commit()
    [key] = [key for key in queue.store if key.startswith("segments/")]
    queue.unload()
    assert queue.machine.objects.missing(key)

    park(pusher, 7)

    refused = told(pusher, 7)
    assert isinstance(refused, Refused)
    assert refused.code == "corrupt"


def test_a_client_is_told_whether_the_queue_is_bounded():
    _, pusher, _ = bounded(1)
    pusher.hello()
    assert pusher.received(Welcome)[0].bounded

    unbounded = Queue().session("a")
    unbounded.hello()
    assert not unbounded.received(Welcome)[0].bounded


def test_progress_is_shown_of_a_job_that_runs_and_goes_with_its_lease():
    queue, pusher, worker = bounded(5)
    pusher.push(b"1", b"2")
    first, second = worker.claim(2, standing=True)
    root = queue.root

    queue.machine.heartbeat(
        worker.name, _beat(worker, first.id, Progress(first.id, 0.5, "half"), Progress(9, 1)), queue.now_ms
    )
    queue.commit()

    assert queue.root == root, "no commit"
    record = pusher.get(first.id)
    assert (record.state, record.progress, record.progress_message) == ("running", 0.5, "half")
    assert [job.progress for job in pusher.list("running")] == [0.5]
    assert pusher.get(second.id).progress is None
    worker.fail(first)
    assert (pusher.get(first.id).progress, pusher.get(first.id).progress_message) == (None, "")
    assert worker.queue.machine.state.leases.get(worker.lease).progress == {}  # type: ignore[union-attr]


def _beat(worker: Session, running: int, *progress: Progress) -> Heartbeat:
    return Heartbeat(0, worker.lease, [running], list(progress))


def test_a_standing_claim_for_no_tasks_takes_back_what_was_asked():
    queue, pusher, worker = bounded(9)
    assert worker.claim(4, standing=True) == []

    worker.claim(0, (), standing=True)
    pusher.push(b"1", b"2", b"3")
    assert pusher.stats().ready == 3
    assert queue.machine.state.leases.standing(worker.name) is None

    assert len(worker.claim(1, standing=True)) == 1, "and not one more for each that was asked before"
