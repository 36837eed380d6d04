"""Keys: one unfinished job each, across restarts, failures and requeues, in bounded room."""

from __future__ import annotations

import pytest

from osqueue.core import keys
from osqueue.core.messages import JobError, Outcome, Push
from osqueue.errors import Corrupt
from tests.core.queue import Queue, Session


def key_objects(queue: Queue) -> list[str]:
    return [key for key in queue.store if b'"format":1' in queue.store[key] and b'\n["' in queue.store[key]]


def finish(session: Session, verdict: str = "succeeded") -> None:
    [job] = session.claim()
    session.report(Outcome(job.id, job.attempt, verdict, error=JobError("ValueError")))  # type: ignore[arg-type]


def test_a_key_is_pushed_once_until_its_job_has_ended(queue: Queue) -> None:
    session = queue.session()
    assert session.push(b'"first"', key="order-7") == [1]

    assert session.push(b'"second"', key="order-7") == [1]
    assert session.push(b'"other"', key="order-8") == [2]
    queue.reopen()
    session.hello()
    assert session.push(b'"third"', key="order-7", delay_s=5) == [1]
    assert session.stats().pushed == 2
    assert session.get(1).payload == b'"first"'
    assert session.get(1).key == "order-7"

    finish(session)
    assert session.push(b'"fourth"', key="order-7") == [3]
    record = next(record for record in queue.archived() if record.id == 1)
    assert record.key == "order-7"


@pytest.mark.parametrize("how", ["cancelled", "dead", "discarded"])
def test_a_job_that_ends_without_success_lets_its_key_go(queue: Queue, how: str) -> None:
    session = queue.session()
    session.push(b"1", key="k")
    if how == "cancelled":
        session.cancel(1)
    else:
        finish(session, "dead")
    if how == "discarded":
        session.discard(1)

    assert session.push(b"2", key="k") == [2]


def test_a_job_that_fails_and_is_tried_again_keeps_its_key(queue: Queue) -> None:
    session = queue.session()
    session.push(b"1", key="k")
    finish(session, "failed")

    assert session.get(1).state == "delayed"
    assert session.push(b"2", key="k") == [1]


def test_requeue_takes_the_key_again_and_leaves_a_job_dead_whose_key_another_has(queue: Queue) -> None:
    session = queue.session()
    session.push(b"1", key="k")
    finish(session, "dead")
    assert session.requeue(1).ids == [(1, 1)]
    assert session.push(b"2", key="k") == [1]
    finish(session, "dead")
    assert session.push(b"3", key="k") == [2]

    answer = session.requeue(1)

    assert (answer.ids, answer.held) == ([], [(1, 2)])
    assert session.get(1).state == "dead"
    session.discard(1)
    assert session.push(b"4", key="k") == [2], "a discarded job lets go of nothing that it does not hold"


def test_a_push_with_a_key_that_is_watched_tells_every_watcher_of_the_end(queue: Queue) -> None:
    one, two = queue.session("one"), queue.session("two")
    assert one.push(b"1", key="k", watch=True) == two.push(b"2", key="k", watch=True) == [1]

    finish(queue.session("three"))

    assert [len(session.received_ends()) for session in (one, two)] == [1, 1]


def test_a_key_is_for_one_job_and_not_too_long(queue: Queue) -> None:
    session = queue.session()

    assert session.say(Push([b"1", b"2"], key="k")).code == "rejected"
    assert session.say(Push([b"1"], key="k" * 257)).code == "rejected"
    assert session.stats().pushed == 0


def test_many_keys_take_bounded_room_in_the_root_and_few_objects(queue: Queue) -> None:
    session = queue.session()
    for number in range(3000):
        session.push(b"1", key=f"order-{number}")

    assert len(queue.root_values()["keys"]) <= 3 * 1024  # type: ignore[arg-type]
    assert len(key_objects(queue)) <= 12
    queue.reopen()
    session.hello()
    assert session.push(b"1", key="order-5") == [6]
    for _ in range(3000):
        finish(session)
    assert session.push(b"1", key="order-5") == [3001]
    assert sum(len(queue.store[key]) for key in key_objects(queue)) < 60 * 3000


def test_keys_that_are_released_before_they_have_been_read_are_merged_in_the_end(queue: Queue) -> None:
    session = queue.session()
    for number in range(3000):
        session.push(b"1", key=f"order-{number}")
    for _ in range(30):
        queue.reopen()
        session.hello()
        for _ in range(100):
            finish(session)

    assert len(key_objects(queue)) <= keys._FEW_OBJECTS + 2
    assert session.push(b"1", key="order-7") == [3001]


def test_as_many_jobs_may_have_keys_as_the_limit_says(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys, "MAX_KEYS", 3)
    session = queue.session()
    for number in range(3):
        session.push(b"1", key=f"{number}")

    refusal = session.say(Push([b"1"], key="one more"))

    assert refusal.code == "queue_full"
    assert "limit" in refusal.message
    assert session.push(b"1", key="2") == [3]
    finish(session)
    assert session.push(b"1", key="one more") == [4]


def test_a_damaged_object_of_keys_refuses_keyed_pushes_alone_until_it_is_whole_again(queue: Queue) -> None:
    session = queue.session()
    for number in range(200):
        session.push(b"1", key=f"order-{number}")
    [name] = key_objects(queue)
    whole, queue.store[name] = queue.store[name], b"{}"
    queue.reopen()
    session.hello()

    with pytest.raises(Corrupt, match=name):
        session.push(b"1", key="order-1")
    session.number -= 1
    refusal = session.say(Push([b"1"], key="order-1"))

    assert (refusal.code, refusal.key) == ("corrupt", name)
    assert session.push(b"1") == [201]
    queue.machine.objects.load(name, whole)
    assert session.push(b"1", key="order-1") == [2]


def test_every_refusal_by_a_damaged_object_of_keys_is_an_error_of_its_own(queue: Queue) -> None:
    """One that is raised again and again keeps the frames of all who were refused, payloads and all."""
    session = queue.session()
    for number in range(200):
        session.push(b"1", key=f"order-{number}")
    queue.reopen()
    held = queue.machine.state.keys
    for key in key_objects(queue):
        with pytest.raises(Corrupt):
            queue.machine.objects.load(key, b"{}")

    errors = []
    for _ in range(3):
        with pytest.raises(Corrupt) as caught:
            held.holder("new")
        errors.append(caught.value)

    assert len(set(map(id, errors))) == 3
    assert len(set(map(str, errors))) == 1
    assert errors[0].key in key_objects(queue)


@pytest.mark.parametrize("others", [1, 5, 30])
def test_a_key_that_is_taken_and_released_again_and_again_is_free_in_the_end(
    queue: Queue, monkeypatch: pytest.MonkeyPatch, others: int
) -> None:
    monkeypatch.setattr(keys, "INLINE_KEYS", 2)
    session = queue.session()
    for number in range(60):
        session.push(b"1", key=f"other-{number}", task="other")
    for turn in range(5):
        [job_id] = session.push(b"1", key="daily")
        assert session.push(b"1", key="daily") == [job_id]
        finish(session)
        for number in range(others):
            session.push(b"1", key=f"{turn}-{number}", task="other")
        queue.reopen()
        session.hello()

    [last] = session.push(b"2", key="daily")

    assert session.get(last).payload == b"2"


def test_keys_of_jobs_that_are_lost_with_a_segment_are_free_and_those_of_others_are_not(queue: Queue) -> None:
    session = queue.session()
    first = session.push(b"1", key="first")
    session.push(*[b'"%0200d"' % n for n in range(200)])
    session.push(b"1", key="last")
    [segment] = queue.machine.state.backlog.located.ready()
    assert segment.line.first_id == first[0]
    queue.reopen()
    session.hello()

    queue.retry(lambda: queue.machine.objects.drop(segment.key))
    queue.commit()

    [again] = session.push(b"2", key="first")
    assert session.get(again).payload == b"2"
    assert session.push(b"2", key="last") == [202]
