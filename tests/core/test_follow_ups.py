"""Follow-up jobs: in the commit that makes their job's success durable, or not at all."""

from __future__ import annotations

from typing import Any

import pytest

from osqueue.core.messages import JobError, Outcome, Push, Report
from osqueue.core.objects import segment_key
from osqueue.errors import Corrupt
from tests.core.queue import Queue, Session


def succeed(job: Any, *follow_ups: Push) -> Outcome:
    return Outcome(job.id, job.attempt, "succeeded", 1, 2, b"1", follow_ups=list(follow_ups))


def one_job(session: Session) -> Any:
    session.push(b'"parent"')
    [job] = session.claim()
    return job


def test_a_success_pushes_its_follow_ups_in_the_same_commit(queue: Queue) -> None:
    session = queue.session()
    job = one_job(session)
    before = queue.machine.state.frame.version

    session.report(succeed(job, Push([b"1", b"2"], priority=3), Push([b"3"], "other", delay_s=60)))

    assert queue.machine.state.frame.version == before + 1
    queue.reopen()
    session.hello()
    jobs = [session.get(job_id) for job_id in (2, 3, 4)]
    assert [(one.payload, one.task, one.priority, one.state) for one in jobs] == [
        (b"1", "default", 3, "ready"),
        (b"2", "default", 3, "ready"),
        (b"3", "other", 0, "delayed"),
    ]
    assert session.stats().pushed == 4


def test_an_outcome_that_is_said_again_or_refused_pushes_nothing(queue: Queue) -> None:
    session = queue.session()
    job = one_job(session)
    operation = Report(session.lease, [succeed(job, Push([b"1"]))])
    session.say(operation)

    session.say(operation, number=session.number, acked=session.number - 1)
    assert session.report(succeed(job, Push([b"1"]))).lost == [(1, 1)]

    assert session.stats().pushed == 2


def test_an_attempt_that_failed_pushes_nothing_whatever_its_outcome_says(queue: Queue) -> None:
    session = queue.session()
    job = one_job(session)

    session.report(Outcome(job.id, job.attempt, "failed", error=JobError("E"), follow_ups=[Push([b"1"])]))

    assert session.stats().pushed == 1


def test_follow_ups_that_cannot_be_pushed_fail_the_attempt_and_none_of_them_is(queue: Queue) -> None:
    session = queue.session()
    job = one_job(session)

    session.report(succeed(job, Push([b"1"]), Push([b"2"], priority=5000)))

    record = session.get(1)
    assert (record.state, record.attempts, record.errors[0].error_type) == ("delayed", 1, "Rejected")
    assert "priority" in record.errors[0].message
    assert session.stats().pushed == 1


def test_a_follow_up_whose_key_is_held_is_left_out_also_by_its_own_sibling(queue: Queue) -> None:
    session = queue.session()
    for number in range(200):
        session.push(b"1", task="other", key=f"order-{number}")
    queue.reopen()
    session.hello()
    job = one_job(session)

    session.report(succeed(job, Push([b"2"], key="order-7"), Push([b"3"], key="new"), Push([b"4"], key="new")))

    assert session.get(201).state == "succeeded"
    assert session.get(202).payload == b"3"
    assert session.stats().pushed == 202
    assert session.push(b"5", key="new") == [202]


def test_follow_ups_that_pass_a_limit_together_are_refused_together(queue: Queue) -> None:
    session = queue.session()
    job = one_job(session)

    session.report(succeed(job, *[Push([b"1"], priority=number) for number in range(300)]))

    assert session.get(1).errors[0].error_type == "QueueFull"
    assert "lanes" in session.get(1).errors[0].message
    queue.wait(2)
    [job] = session.claim()
    session.report(succeed(job, *[Push([b"1"], f"task-{number}") for number in range(300)]))
    assert "too many tasks" in session.get(1).errors[1].message
    assert session.stats().pushed == 1


def test_a_disk_that_is_nearly_full_keeps_no_follow_up_out(queue: Queue) -> None:
    session = queue.session()
    job = one_job(session)
    queue.machine.state.has_room = False

    session.report(succeed(job, Push([b"1"])))

    assert session.stats().succeeded == 1
    assert session.stats().pushed == 2
    assert session.say(Push([b"1"])).code == "queue_full"


def test_a_job_may_push_its_own_next_run_under_its_own_key(queue: Queue) -> None:
    session = queue.session()
    session.push(b"1", key="poll")
    for number in range(2, 5):
        [job] = session.claim()
        session.report(succeed(job, Push([b"2"], key="poll"), Push([b"3"], key="poll")))
        assert session.push(b"4", key="poll") == [number], "the next run has the key, and no other job"
        queue.reopen()
        session.hello()

    assert (session.stats().succeeded, session.stats().ready) == (3, 1)


def test_a_next_run_that_is_refused_leaves_the_key_with_the_job_that_failed(queue: Queue) -> None:
    session = queue.session()
    session.push(b"1", key="poll")
    [job] = session.claim()

    session.report(succeed(job, Push([b"2"], key="poll"), Push([b"3"], priority=5000)))

    assert session.push(b"4", key="poll") == [1]
    assert session.get(1).errors[-1].error_type == "Rejected"


def test_a_damaged_object_of_keys_fails_the_one_job_whose_follow_up_has_a_key(queue: Queue) -> None:
    session = queue.session()
    for number in range(100):
        session.push(b"1", task="other", key=f"order-{number}")
    [one] = queue.machine.state.keys.objects()
    session.push(b"1", b"2")
    jobs = session.claim(2)
    queue.store[segment_key(one.number, one.epoch)] = b"{}"
    queue.reopen()
    session.hello(leases=[session.lease])
    with pytest.raises(Corrupt):
        session.push(b"1", key="new")
    session.number -= 1

    reported = session.report(succeed(jobs[0], Push([b"3"], key="new")), succeed(jobs[1], Push([b"4"])))

    assert reported.lost == []
    assert [session.get(job.id).state for job in jobs] == ["delayed", "succeeded"]
    assert session.get(jobs[0].id).errors[0].error_type == "Corrupt"
    assert session.stats().pushed == 103
