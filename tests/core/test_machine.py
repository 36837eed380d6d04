"""Examples of the machine's rules, each named by the rule."""

from __future__ import annotations

from typing import Any

import pytest

from osqueue.core import codec, sealing, sessions
from osqueue.core.messages import (
    MAX_OUTCOMES,
    Ask,
    Cancel,
    Cancelled,
    Claim,
    Finished,
    GetJob,
    Granted,
    Holder,
    JobError,
    ListJobs,
    Lost,
    Missing,
    Numbered,
    Outcome,
    Push,
    Refused,
    Reply,
    Report,
    SayAgain,
    WaitIdle,
)
from osqueue.core.numbered import BusyError
from osqueue.core.objects import TAKEOVERS, TAKEOVERS_BYTES
from osqueue.core.queries import Elsewhere
from osqueue.core.segment import NeedsObjectsError
from osqueue.errors import Corrupt
from tests.core.queue import LEASE_S, Queue, Session, lost_ids


def test_a_pushed_job_is_claimed_completed_and_recorded_once(queue: Queue) -> None:
    session = queue.session()

    [job_id] = session.push(b'{"a":1}')
    [job] = session.claim()
    lost = session.complete(job, b'{"b":2}')

    assert (job_id, job.payload, job.attempt) == (1, b'{"a":1}', 1)
    assert lost == []
    [record] = queue.archived()
    assert (record.id, record.state, record.result, record.attempts) == (1, "succeeded", b'{"b":2}', 1)
    assert session.stats().succeeded == 1


def test_jobs_of_a_lane_go_out_in_push_order(queue: Queue) -> None:
    session = queue.session()
    session.push(b"1", b"2")
    session.push(*[b"%d" % n for n in range(3, 3000)])
    session.push(b"3000")

    jobs = session.claim(5000, standing=True)

    assert [job.id for job in jobs] == list(range(1, 3001))


def test_the_highest_priority_goes_first_then_the_lowest_id_over_all_tasks(queue: Queue) -> None:
    session = queue.session()
    session.push(b"1", task="a")
    session.push(b"2", task="b")
    session.push(b"3", task="a", priority=5)
    session.push(b"4", task="a")
    session.push(b"5", task="c", priority=9)

    jobs = session.claim(10, ("a", "b"), standing=True)

    assert [job.id for job in jobs] == [3, 1, 2, 4]


def test_a_parked_claim_is_granted_by_the_push_in_the_same_commit(queue: Queue) -> None:
    worker, publisher = queue.session("w"), queue.session("p")
    worker.claim(3, standing=True)
    version = codec.decode_root(queue.root).version

    publisher.push(b"1", b"2")

    [granted] = worker.received(Granted)
    assert [job.id for job in granted.jobs] == [1, 2]
    assert codec.decode_root(queue.root).version == version + 1


def test_an_operation_said_again_has_one_effect_and_the_same_answer(queue: Queue) -> None:
    session = queue.session()
    first = session.say(Push([b"1"]))

    again = session.say(Push([b"1"]), number=1, acked=0)

    assert again == first
    assert session.stats().pushed == 1


def test_an_operation_said_again_to_the_next_broker_has_one_effect(queue: Queue) -> None:
    session = queue.session()
    first = session.say(Push([b"1"]))
    queue.reopen()
    session.hello()

    again = session.say(Push([b"1"]), number=1, acked=0)

    assert again == first
    assert session.stats().pushed == 1


def test_a_gap_is_answered_by_say_it_again_and_changes_nothing(queue: Queue) -> None:
    session = queue.session()
    session.push(b"1")
    before = queue.root

    session.say(Push([b"3"]), number=3)

    assert session.received(SayAgain)[-1].number == 2
    assert queue.root == before


def test_a_refusal_is_remembered_and_changes_only_the_sessions_line(queue: Queue) -> None:
    session = queue.session()
    session.push(b"1")
    before = queue.root_values(without_sections=("sessions",))

    refusal = session.say(Push([b"x" * 5_000_000]))
    again = session.say(Push([b"x" * 5_000_000]), number=2, acked=1)

    assert refusal.code == "payload_too_large"
    assert again == refusal
    assert queue.root_values(without_sections=("sessions",)) == before


def test_completing_under_a_lost_lease_is_refused_and_changes_nothing(queue: Queue) -> None:
    one, two = queue.session("one"), queue.session("two")
    one.push(b"1")
    [stale] = one.claim()
    queue.wait(LEASE_S + 1)  # no heartbeat: the lease ends, and a bare claim is charged
    queue.wait(2)
    two.claim()
    before = queue.root_values(without_sections=("sessions",))

    lost = one.complete(stale)

    assert lost == [1]
    assert queue.root_values(without_sections=("sessions",)) == before


def test_completing_twice_is_refused_the_second_time(queue: Queue) -> None:
    session = queue.session()
    session.push(b"1")
    [job] = session.claim(standing=True)

    assert session.complete(job) == []
    assert session.complete(job) == [1]
    assert len(queue.archived()) == 1


def test_an_outcome_of_an_older_attempt_is_refused_though_the_lease_is_the_same(queue: Queue) -> None:
    queue = Queue(max_attempts=1)
    session = queue.session()
    session.push(b"1")
    [first] = session.claim(standing=True)
    session.fail(first)
    session.requeue(1)
    [second] = session.claim(standing=True)

    assert second.attempt == 2
    assert session.complete(first) == [1]
    assert session.complete(second) == []


def test_a_heartbeat_extends_a_lease_by_one_term(queue: Queue) -> None:
    session = queue.session()
    session.push(b"1")
    [job] = session.claim()
    queue.wait(LEASE_S - 5)

    assert session.heartbeat()
    queue.wait(LEASE_S - 5)

    assert session.complete(job) == []


def test_a_local_supervisors_lease_has_no_deadline(queue: Queue) -> None:
    session = queue.session()
    session.hello(holder=Holder("boot", "ns", 1, 1))
    session.push(b"1")
    [job] = session.claim(standing=True)

    queue.wait(LEASE_S * 20)

    assert session.complete(job) == []


def test_a_broker_that_was_stopped_gives_every_lease_a_full_term(queue: Queue) -> None:
    session = queue.session()
    session.push(b"1")
    [job] = session.claim()

    queue.now_ms += LEASE_S * 3000  # stopped: one late tick
    queue.commit()

    assert session.complete(job) == []


def test_a_failed_attempt_waits_for_its_backoff_and_keeps_its_errors(queue: Queue) -> None:
    session = queue.session()
    session.push(b"1")
    for attempt in (1, 2):
        [job] = session.claim(standing=True)
        assert job.attempt == attempt
        session.fail(job, f"no {attempt}")
        assert session.stats().delayed == 1
        assert session.claim(0, standing=True) == []
        session.inbox.clear()
        queue.wait(attempt - 0.5)
        assert session.stats().delayed == 1, "the back-off is 1 s, then 2 s"
        queue.wait(0.7)
        assert session.stats().ready == 1

    [job] = session.claim(standing=True)
    session.complete(job)

    [record] = queue.archived()
    assert [error.message for error in record.errors] == ["no 1", "no 2"]
    assert record.attempts == 3


def test_a_job_is_dead_after_its_last_attempt_and_requeue_grants_as_many_again(queue: Queue) -> None:
    queue = Queue(max_attempts=2, retry_backoff_s=0)
    session = queue.session()
    session.push(b"1")
    for _ in range(2):
        session.fail(session.claim(standing=True)[0])
    assert session.stats().dead == 1
    assert queue.archived() == []
    queue.reopen()
    session.hello()

    session.requeue(1)
    attempts = []
    for _ in range(2):
        [job] = session.claim(standing=True)
        attempts.append(job.attempt)
        session.fail(job)

    assert attempts == [3, 4]
    assert session.stats().dead == 1
    [dead] = session.list("dead")
    assert len(dead.errors) == 4


def test_discard_archives_a_dead_job_as_dead(queue: Queue) -> None:
    queue = Queue(max_attempts=1)
    session = queue.session()
    session.push(b"1")
    session.fail(session.claim()[0])

    answer = session.discard(1, 7)

    assert (answer.ids, answer.unknown) == ([(1, 1)], [7])
    [record] = queue.archived()
    assert record.state == "dead"
    assert session.stats().dead == 0


@pytest.mark.parametrize("count", [1, 500])
def test_a_cancelled_waiting_job_never_goes_out_even_after_a_restart(queue: Queue, count: int) -> None:
    session = queue.session()
    session.push(*[b'"%050d"' % n for n in range(count)])
    victims = [1] if count == 1 else [1, 2, 50, 51, 499, 500]

    answer = session.cancel(*victims)
    queue.reopen()
    session.hello()
    jobs = session.claim(1000, standing=True)

    assert [job_id for first, last in answer.ids for job_id in range(first, last + 1)] == victims
    assert [job.id for job in jobs] == [n for n in range(1, count + 1) if n not in victims]
    assert sorted(record.id for record in queue.archived()) == victims


def test_cancel_of_a_running_job_tells_its_holder_and_refuses_its_outcome(queue: Queue) -> None:
    worker, user = queue.session("w"), queue.session("u")
    user.push(b"1")
    [job] = worker.claim(standing=True)

    assert user.cancel(1, running=False).ids == []
    assert user.cancel(1).ids == [(1, 1)]

    assert worker.received(Cancelled)[0].ids == [1]
    assert worker.complete(job) == [1]
    [record] = queue.archived()
    assert record.state == "cancelled"


def test_a_watcher_is_told_how_its_jobs_ended(queue: Queue) -> None:
    queue = Queue(max_attempts=1)
    user, worker = queue.session("u"), queue.session("w")
    user.push(b"1", b"2", b"3", watch=True)
    one, two = worker.claim(2, standing=True)
    worker.complete(one, b'"ok"')
    worker.fail(two)
    user.cancel(3)

    told = {job.id: (job.state, job.result) for message in user.received(Finished) for job in message.jobs}

    assert told == {1: ("succeeded", b'"ok"'), 2: ("dead", None), 3: ("cancelled", None)}


def test_after_a_reconnect_a_watcher_learns_what_ended_meanwhile(queue: Queue) -> None:
    user, worker = queue.session("u"), queue.session("w")
    user.push(b"1", b"2", watch=True)
    worker.complete(worker.claim(standing=True)[0], b'"ok"')
    queue.reopen()

    user.hello(watched=[(1, 2)])
    worker.hello()
    worker.complete(worker.claim(standing=True)[0], b'"later"')

    told = {job.id: job.result for message in user.received(Finished) for job in message.jobs}
    assert told == {1: b'"ok"', 2: b'"later"'}


def test_after_a_reconnect_the_attempt_that_ended_is_named_lost_before_the_next_one_is_handed_out(queue: Queue) -> None:
    worker = queue.session("w")
    queue.session().push(b"1")
    [job] = worker.claim(2, standing=True)
    worker.fail(job, retry_delay_s=0)

    worker.hello(held=[(1, 1)])

    told = [message for message in worker.inbox if isinstance(message, (Lost, Granted))]
    assert [type(message) for message in told] == [Lost, Granted]
    assert (told[0].ids, [(job.id, job.attempt) for job in told[1].jobs]) == ([1], [(1, 2)])


def test_a_holder_that_still_reports_an_attempt_keeps_the_next_one_over_a_reconnect(queue: Queue) -> None:
    worker = queue.session("w")
    queue.session().push(b"1")
    [job] = worker.claim(2, standing=True)
    worker.fail(job, retry_delay_s=0)

    worker.hello(held=[(1, 2), (1, 1)])

    assert (worker.received(Granted), worker.lost()) == ([], [])


def test_after_a_reconnect_a_holder_is_sent_what_it_lacks_and_told_what_it_lost(queue: Queue) -> None:
    worker = queue.session("w")
    worker.push(b"1", b"2", b"3")
    jobs = worker.claim(3, standing=True)
    worker.complete(jobs[0])
    queue.reopen()

    worker.hello(held=[(1, 1), (2, 1)])

    [granted] = worker.received(Granted)
    assert [job.id for job in granted.jobs] == [3]
    assert worker.lost() == [1]
    assert worker.complete(jobs[1]) == []


def test_a_lease_that_ends_charges_what_ran_and_gives_back_the_rest(queue: Queue) -> None:
    worker, other = queue.session("w"), queue.session("o")
    worker.push(*[b"1"] * 10)
    worker.claim(10, standing=True)

    queue.retry(lambda: queue.machine.end_lease(worker.lease, [(4, 1)], queue.now_ms, marks=False))
    queue.commit()
    jobs = other.claim(10, standing=True)

    assert [job.id for job in jobs] == [1, 2, 3, 5, 6, 7, 8, 9, 10]
    assert {job.attempt for job in jobs} == {1}
    assert other.get(4).attempts == 1


def test_where_nothing_is_known_nobody_pays_the_first_time(queue: Queue) -> None:
    worker = queue.session("w")
    worker.push(b"1", b"2")
    worker.claim(2, standing=True)
    queue.machine.end_lease(worker.lease, [], queue.now_ms, marks=True)
    queue.commit()
    queue.reopen()
    worker.hello()

    again = worker.claim(2, standing=True)
    queue.retry(lambda: queue.machine.end_lease(worker.lease, [], queue.now_ms, marks=True))
    queue.commit()

    assert [(job.attempt, job.alone) for job in again] == [(1, True), (1, True)]
    assert [worker.get(job_id).attempts for job_id in (1, 2)] == [1, 1]


def test_a_marked_job_that_is_returned_stays_marked(queue: Queue) -> None:
    worker = queue.session("w")
    worker.push(b"1")
    worker.claim(standing=True)
    queue.machine.end_lease(worker.lease, [], queue.now_ms, marks=True)
    [job] = worker.claim(standing=True)

    worker.report(Outcome(job.id, job.attempt, "returned"))

    [again] = queue.session("v").claim(standing=True)
    assert (job.alone, again.alone, again.attempt) == (True, True, 1)


@pytest.mark.parametrize(
    "fields",
    [
        {"retry_delay_s": 1e13},
        {"retry_delay_s": -1.0},
        {"retry_delay_s": float("nan")},
        {"started_ms": -1},
        {"started_ms": 10**17},
        {"finished_ms": 10**17},
    ],
)
def test_a_report_with_times_that_have_no_date_is_refused_whole(queue: Queue, fields: dict[str, Any]) -> None:
    session = queue.session()
    session.push(b"1", b"2")
    jobs = session.claim(2, standing=True)
    bad = Outcome(jobs[1].id, jobs[1].attempt, "failed", error=JobError("E"), **fields)
    before = queue.root_values(without_sections=("sessions",))

    refused = session.report(Outcome(jobs[0].id, jobs[0].attempt, "succeeded", 1, 2), bad)

    assert isinstance(refused, Refused)
    assert (refused.code, "id=2" in refused.message) == ("rejected", True)
    assert queue.root_values(without_sections=("sessions",)) == before
    assert [session.complete(job) for job in jobs] == [[], []]


def test_goodbye_gives_back_what_a_standing_lease_holds(queue: Queue) -> None:
    worker, other = queue.session("w"), queue.session("o")
    worker.push(b"1", b"2")
    worker.claim(2, standing=True)

    queue.machine.goodbye("w", queue.now_ms)
    queue.commit()

    assert [(job.id, job.attempt) for job in other.claim(2, standing=True)] == [(1, 1), (2, 1)]


def test_a_claim_that_waits_ends_empty_when_its_time_is_over(queue: Queue) -> None:
    session = queue.session()
    queue.machine.claim("a", 1, Claim(7, ["default"], wait_s=5), queue.now_ms)
    queue.commit()
    assert session.received(Granted) == []

    queue.wait(5)

    assert session.received(Granted) == [Granted(7, 0, [])]


def test_waiting_for_idle_is_answered_when_the_last_job_has_ended(queue: Queue) -> None:
    session = queue.session()
    session.push(b"1")
    session.push(b"2", task="nobody's")
    queue.machine.ask("a", Ask(9, WaitIdle(["default"])), queue.now_ms)
    queue.commit()
    assert session.received(Reply) == []

    session.complete(session.claim(standing=True)[0])

    assert session.received(Reply)[-1].body.succeeded == 1


def test_unclean_payloads_come_back_byte_for_byte_after_a_restart(queue: Queue) -> None:
    session = queue.session()
    payloads = [
        b'1},{"id":9,"payload":2',
        b"NaN",
        b'"\xed\xa0\x80"',
        b'"\\ud800"',
        b"[" * 5000 + b"]" * 5000,
        b"",
        b"{\n}",
        b'"a',
        b'b"',
        b"1,2",
        b" 1",
        b'{"a":1}',
    ]
    session.push(*payloads)
    queue.reopen()
    session.hello()

    jobs = session.claim(50, standing=True)
    for job in jobs:
        session.complete(job, job.payload)

    assert [job.payload for job in jobs] == payloads
    assert sorted((r.id, r.payload, r.result) for r in queue.archived()) == [
        (at + 1, payload, payload) for at, payload in enumerate(payloads)
    ]


def test_the_tail_is_sealed_when_it_is_worth_a_segment_and_leases_follow(queue: Queue) -> None:
    session = queue.session()
    session.push(b'"first"', b'"second"')
    first = session.claim(1, standing=True)[0]
    session.push(*[b'"%0100d"' % n for n in range(400)])
    assert any(key.startswith("segments/") for key in queue.store)

    queue.reopen()
    session.hello(held=[(1, 1)])

    assert session.complete(first) == []
    assert session.claim(1, standing=True)[0].id == 2


def test_a_segment_is_deleted_when_its_last_job_has_left(queue: Queue) -> None:
    session = queue.session()
    session.push(*[b'"%0100d"' % n for n in range(400)])
    for job in session.claim(400, standing=True):
        session.complete(job)

    assert [key for key in queue.store if key.startswith("segments/")] == []
    assert len(queue.archived()) == 400


def test_a_trickle_of_pushes_does_not_make_a_line_for_each_small_segment(queue: Queue) -> None:
    session = queue.session()

    for _ in range(200):
        session.push(*[b'"%01000d"' % n for n in range(30)])

    lines = codec.decode_root(queue.root).segments
    assert sum(span.count for line in lines for span in line.spans) == 6000 - len(codec.decode_root(queue.root).tail)
    assert len(lines) < 25
    assert [job.id for job in session.claim(6000, standing=True)] == list(range(1, 6001))


def test_closing_seals_the_archive_and_leaves_no_owner(queue: Queue) -> None:
    session = queue.session()
    session.push(b"1")
    session.complete(session.claim()[0])

    queue.close()

    root = codec.decode_root(queue.root)
    assert root.owner is None
    assert root.finished == []
    assert len([key for key in queue.store if key.startswith("archive/")]) == 1


def test_a_damaged_segment_blocks_its_own_jobs_only(queue: Queue) -> None:
    session = queue.session()
    for _ in range(2):
        session.push(*[b'"%0100d"' % n for n in range(300)])
    lines = codec.decode_root(queue.root).segments
    assert len(lines) == 2
    queue.reopen()
    session.hello()
    first = next(key for key in sorted(queue.store) if key.startswith("segments/"))
    with pytest.raises(Corrupt):
        queue.machine.objects.load(first, queue.store[first][:-3])

    jobs = session.claim(1000, standing=True)

    assert [job.id for job in jobs] == list(range(301, 601))


def test_delayed_jobs_go_out_when_due_and_not_before(queue: Queue) -> None:
    session = queue.session()
    session.push(b"1", delay_s=10)
    session.push(b"2", delay_s=5)

    assert session.claim(2, standing=True) == []
    queue.wait(4.9)
    assert session.received(Granted) == []
    queue.wait(0.3)
    assert [job.id for m in session.received(Granted) for job in m.jobs] == [2]
    queue.reopen()
    session.hello(held=[(2, 1)])
    session.claim(2, standing=True)
    queue.wait(5)

    assert [job.id for m in session.received(Granted) for job in m.jobs] == [1]


def test_a_goodbye_ends_all_leases_at_once_or_none(queue: Queue) -> None:
    session = queue.session()
    for _ in range(2):
        session.push(*[b'"%0100d"' % n for n in range(300)])
        session.claim(300)
    session.inbox.clear()
    queue.unload()

    with pytest.raises(NeedsObjectsError) as caught:
        queue.machine.goodbye("a", queue.now_ms)

    assert len(caught.value.keys) == 2
    assert session.stats().running == 600


def test_sessions_make_room_for_new_ones_and_a_forgotten_one_is_told(queue: Queue) -> None:
    first = queue.session("first")
    first.push(b"1")
    for n in range(260):
        queue.session(f"s{n}").push(b"1")
        queue.sessions[f"s{n}"].say(Push([]), acked=1)
        queue.machine.numbered(f"s{n}", queue.sessions[f"s{n}"].birth, Numbered(2, 2, Push([])), queue.now_ms)
    first.say(Push([b"2"]), acked=1)
    queue.machine.numbered("first", first.birth, Numbered(2, 2, Push([])), queue.now_ms)

    refused = queue.sessions["s0"].say(Push([b"2"]))

    assert len(codec.decode_root(queue.root).sessions) <= 256
    assert refused.code == "session_lost"


def test_outcomes_from_another_session_are_refused(queue: Queue) -> None:
    one, two = queue.session("one"), queue.session("two")
    one.push(b"1")
    [job] = one.claim()

    assert two.complete(job, lease=one.lease) == [1]


def _outcome(job: Any, verdict: Any) -> Outcome:
    return Outcome(job.id, job.attempt, verdict)


def test_jobs_given_back_go_out_again_uncharged_before_new_ones(queue: Queue) -> None:
    session = queue.session()
    session.push(*[b"1"] * 5)
    jobs = session.claim(3, standing=True)
    session.report(_outcome(jobs[1], "returned"))

    again = session.claim(2, standing=True)

    assert [(job.id, job.attempt) for job in again] == [(2, 1), (4, 1)]


def test_too_many_holes_have_their_segment_written_anew_and_leases_follow(
    queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sealing, "HOLES_BYTES", 400)
    session = queue.session()
    session.push(*[b'"%020d"' % n for n in range(3000)])
    held = session.claim(10, standing=True)

    for first in range(12, 3000, 500):
        session.cancel(*range(first, min(first + 500, 3000), 2))
    queue.reopen()
    session.hello(held=[(job.id, job.attempt) for job in held])

    assert session.lost() == []
    assert queue.machine.state.backlog.holes.potential_bytes() <= 400
    assert session.report(*[_outcome(job, "succeeded") for job in held]).lost == []
    assert [job.id for job in session.claim(3000, standing=True)] == [*range(11, 3000, 2), 3000]


def test_claims_wait_while_the_leases_have_no_room(queue: Queue) -> None:
    session = queue.session()
    session.push(*[b"1"] * 2000)
    jobs = session.claim(2000, standing=True)
    session.report(*[_outcome(job, "returned") for job in jobs[::2]])
    others = [queue.session(f"w{n}") for n in range(100)]

    for other in others:
        other.claim(3, standing=True)

    assert len(queue.machine.state.leases.encoded()) <= 16 * 1024
    assert sum(bool(other.lease) for other in others) < 100
    for other in [other for other in others if other.lease]:
        queue.machine.goodbye(other.name, queue.now_ms)
        queue.commit()
    assert all(other.lease for other in others)


def test_clients_that_were_killed_make_room_and_connected_ones_stay(queue: Queue) -> None:
    stays = queue.session("stays")
    stays.push(b"1")
    for n in range(600):
        killed = queue.session(f"killed-{n}")
        killed.push(b"1")
        queue.machine.disconnected(killed.name)

    again = stays.say(Push([b"1"]), number=1, acked=0)

    assert again.ids == [(1, 1)]
    assert queue.sessions["killed-599"].say(Push([b"1"]), number=1, acked=0).ids == [(601, 601)]
    assert queue.sessions["killed-0"].say(Push([b"1"]), number=1, acked=0).code == "session_lost"
    assert len(queue.root) < 64 * 1024


def test_a_lost_holder_with_a_damaged_segment_is_ended_all_the_same(queue: Queue) -> None:
    session = queue.session()
    session.push(*[b'"%0100d"' % n for n in range(300)])
    session.claim(5, standing=True)
    queue.reopen()
    [key] = [key for key in queue.store if key.startswith("segments/")]
    with pytest.raises(Corrupt):
        queue.machine.objects.load(key, b"")

    queue.machine.end_lease(session.lease, [(1, 1)], queue.now_ms, marks=False)
    queue.commit()

    assert codec.decode_root(queue.root).leases == []


def test_hundreds_of_tasks_may_come_and_go_and_the_totals_stay_right(queue: Queue) -> None:
    session = queue.session()
    for n in range(400):
        session.push(b"1", task=f"a-rather-long-task-name-{n}")
        session.complete(session.claim(1, (f"a-rather-long-task-name-{n}",), standing=True)[0])

    stats = session.stats()

    assert (stats.pushed, stats.succeeded, stats.ready) == (400, 400, 0)
    assert "" not in stats.tasks
    assert len(queue.machine.state.counts.encoded()) <= 4096


def test_too_many_tasks_with_unfinished_jobs_are_refused_by_name(queue: Queue) -> None:
    session = queue.session()

    answers = [session.say(Push([b"1"], task=f"task-{n}")) for n in range(200)]

    refused = [answer for answer in answers if hasattr(answer, "code")]
    assert 0 < len(refused) < 120
    assert {answer.code for answer in refused} == {"queue_full"}
    assert len(queue.machine.state.counts.encoded()) <= 4096


def test_waiting_for_idle_is_answered_though_another_tasks_segment_is_not_in_memory(queue: Queue) -> None:
    session = queue.session()
    session.push(*[b'"%0100d"' % n for n in range(300)], task="other")
    queue.reopen()
    session.hello()

    stats = session.ask(WaitIdle(["default"]))

    assert stats.ready == 300
    assert stats.oldest_ready_s == 0.0


def test_dead_jobs_are_listed_without_reading_the_backlog(queue: Queue) -> None:
    queue = Queue(max_attempts=1)
    session = queue.session()
    session.push(b"1")
    session.fail(session.claim()[0])
    for _ in range(3):
        session.push(*[b'"%0100d"' % n for n in range(300)])
    queue.reopen()
    session.hello()
    queue.store.clear()

    assert [job.id for job in session.list("dead")] == [1]


def test_a_list_of_all_jobs_reads_one_segment_a_page(queue: Queue) -> None:
    session = queue.session()
    for _ in range(3):
        session.push(*[b'"%0100d"' % n for n in range(300)])
    session.push(b'"tail"', delay_s=9)
    queue.reopen()
    session.hello()
    found: list[int] = []
    pages = 0

    cursor = "0"
    while cursor:
        page = session.ask(ListJobs(after=int(cursor)))
        assert sum(s.jobs is not None for s in queue.machine.state.backlog.segments.values()) <= pages + 1
        found += [job.id for job in page.jobs]
        cursor, pages = page.cursor, pages + 1

    assert found == list(range(1, 902))


def test_a_stale_charge_of_an_earlier_attempt_charges_nobody(queue: Queue) -> None:
    queue = Queue(retry_backoff_s=0)
    session = queue.session()
    session.push(b"1")
    session.fail(session.claim(standing=True)[0])
    [again] = session.claim(standing=True)

    queue.machine.end_lease(session.lease, [(1, 1)], queue.now_ms, marks=False)
    queue.commit()

    assert again.attempt == 2
    assert session.get(1).attempts == 1


def test_a_holder_that_nobody_can_see_has_a_term_like_a_remote_one(queue: Queue) -> None:
    session = queue.session()
    session.hello(holder=Holder("boot", "another namespace", 1, 1))
    session.push(b"1")
    session.claim(standing=True)
    queue.reopen()

    queue.machine.treat_as_remote(session.lease, queue.now_ms)
    queue.wait(LEASE_S + 1)

    other = queue.session("other")
    assert [(job.id, job.attempt) for job in other.claim(standing=True)] == [(1, 1)]


def test_a_heartbeat_says_when_one_of_its_jobs_was_lost(queue: Queue) -> None:
    worker, user = queue.session("w"), queue.session("u")
    user.push(b"1", b"2")
    worker.claim(2)
    assert worker.heartbeat((1, 2))

    user.cancel(1)

    assert not worker.heartbeat((1,))
    assert worker.heartbeat((2,))


def test_an_awaited_job_in_a_damaged_segment_does_not_keep_its_client_out(queue: Queue) -> None:
    session = queue.session()
    session.push(*[b'"%0100d"' % n for n in range(300)], watch=True)
    queue.reopen()
    [key] = [key for key in queue.store if key.startswith("segments/")]
    with pytest.raises(Corrupt):
        queue.machine.objects.load(key, b"")

    session.hello(watched=[(1, 300)])

    assert session.push(b"1") == [301]


def damaged_queue(queue: Queue, jobs: int = 300) -> Session:
    """A client of a queue whose only segment turns out to be damaged."""
    session = queue.session()
    session.push(*[b'"%0100d"' % n for n in range(jobs)], watch=True)
    queue.reopen()
    session.hello()
    return session


def break_segment(queue: Queue) -> None:
    [key] = [key for key in queue.store if key.startswith("segments/")]
    with pytest.raises(Corrupt):
        queue.machine.objects.load(key, b"")
    queue.commit()


def test_waiting_for_an_idle_queue_ends_when_only_jobs_of_damaged_segments_are_left(queue: Queue) -> None:
    session = damaged_queue(queue)
    session.push(b"1")
    queue.machine.ask(session.name, Ask(5, WaitIdle(["default"])), queue.now_ms)
    break_segment(queue)
    assert session.received(Reply) == []

    session.complete(session.claim()[0])

    [reply] = session.received(Reply)
    assert reply.ticket == 5
    assert reply.body.code == "corrupt"
    assert "jobs=300 keys=segments/" in reply.body.message


def test_waiting_for_an_idle_queue_goes_on_for_jobs_that_are_delayed_beside_damaged_segments(queue: Queue) -> None:
    session = damaged_queue(queue)
    session.push(b"1", delay_s=60)
    queue.machine.ask(session.name, Ask(5, WaitIdle(["default"])), queue.now_ms)

    break_segment(queue)

    assert session.received(Reply) == []


def test_a_damaged_segment_does_not_end_the_wait_for_other_tasks(queue: Queue) -> None:
    session = damaged_queue(queue)
    session.push(b"1", task="other")
    queue.machine.ask(session.name, Ask(5, WaitIdle(["other"])), queue.now_ms)

    break_segment(queue)

    assert session.received(Reply) == []


def test_leased_returned_and_cancelled_jobs_of_a_damaged_segment_are_counted_once(queue: Queue) -> None:
    session = damaged_queue(queue)
    session.claim(40, standing=True)
    session.cancel(1, 2, 100, 101, 102)
    for job in session.claim(10, standing=True)[::3]:
        session.report(Outcome(job.id, job.attempt, "returned"))
    queue.unload()

    break_segment(queue)

    counts = queue.machine.state.counts["default"]
    assert (counts.leased, counts.ready) == (0, 295)
    assert queue.machine.state.blocked(["default"])[0] == 295


def test_a_lease_lets_go_of_what_is_damaged_so_that_its_holder_can_take_other_jobs(queue: Queue) -> None:
    session = queue.session()
    large = b'"%s"' % (b"x" * 1_000_000)
    for _ in range(17):
        session.push(large)
    jobs = [job for _ in range(17) for job in session.claim(1, standing=True)]
    assert len(jobs) == 17
    assert session.claim(1, standing=True) == []
    queue.unload()
    for key in [key for key in queue.store if key.startswith("segments/")]:
        with pytest.raises(Corrupt):
            queue.machine.objects.load(key, b"")

    assert [lost for job in jobs for lost in session.complete(job)] != []
    session.push(b"1", b"2")
    session.claim(2, standing=True)

    assert queue.machine.state.counts["default"].leased == 2


def test_a_segment_that_can_be_read_after_all_is_as_if_nothing_had_been(queue: Queue) -> None:
    session = damaged_queue(queue)
    held = session.claim(10, standing=True)
    session.complete(held[0])
    queue.unload()
    [key] = [key for key in queue.store if key.startswith("segments/")]

    queue.machine.objects.unreadable(key)
    queue.commit()
    assert session.claim(400, standing=True) == []
    assert session.complete(held[1]) == [2]
    queue.load([key])
    queue.commit()

    [granted] = session.received(Granted)
    assert [(job.id, job.attempt) for job in granted.jobs] == [(job_id, 1) for job_id in range(2, 301)]


def test_a_lease_whose_term_is_over_waits_for_its_segment_without_haste(queue: Queue) -> None:
    damaged_queue(queue).claim(3)
    queue.unload()
    for _ in range(10):
        queue.now_ms += 5_000
        queue.machine.settle(queue.now_ms)

    wanted = queue.machine.objects.take_wanted()
    alarm = queue.machine.next_alarm_ms()
    queue.load(wanted)
    queue.commit()

    assert alarm is not None
    assert alarm > queue.now_ms
    assert codec.decode_root(queue.root).leases == []


def test_a_job_that_ended_before_its_segment_was_damaged_is_the_archives_to_tell(queue: Queue) -> None:
    session = damaged_queue(queue)
    session.complete(session.claim(1, standing=True)[0])
    queue.close()
    queue.reopen()
    session.hello()
    break_segment(queue)

    with pytest.raises(Elsewhere):
        queue.machine.ask(session.name, Ask(9, GetJob(1)), queue.now_ms)
    assert "segments/" in str(queue.machine.objects.damage([1])[1])


def test_cancelling_a_job_of_a_damaged_segment_is_refused_unless_others_of_the_call_are_cancelled(queue: Queue) -> None:
    session = damaged_queue(queue)
    session.complete(session.claim(1, standing=True)[0])
    queue.unload()
    [other] = session.push(b"1")
    break_segment(queue)

    assert session.cancel(5).code == "corrupt"
    assert session.cancel(1).ids == []
    assert session.cancel(5, other).ids == [(other, other)]
    assert session.cancel(other).ids == []


def test_whoever_waits_for_a_job_of_a_segment_that_turns_out_damaged_is_told(queue: Queue) -> None:
    session = damaged_queue(queue)
    session.fail(session.claim(1, standing=True)[0])  # in the root from now on, as the one to come is
    session.push(b"1", watch=True)
    session.hello(watched=[(1, 301)])
    queue.unload()
    [key] = [key for key in queue.store if key.startswith("segments/")]

    break_segment(queue)

    [missing] = session.received(Missing)
    assert missing.ids == [*range(2, 301)]
    assert missing.why.key == key


def test_a_client_that_acknowledges_nothing_stops_only_itself(queue: Queue) -> None:
    greedy, other = queue.session("greedy"), queue.session("other")
    for number in range(1, 64):
        ids = list(range(number, 60_000, 500))
        if _try(greedy, ids, number) == "busy":
            break
    else:
        raise AssertionError("it was never told to wait")

    assert other.push(b"1") == [1]
    assert len(queue.root) < 64 * 1024


def _try(session: Any, ids: list[int], number: int) -> str | None:
    try:
        session.say(Cancel(ids), number=number, acked=0)
    except BusyError:
        return "busy"
    return None


def test_a_grant_that_never_reached_its_claimer_goes_back_uncharged(queue: Queue) -> None:
    session = queue.session()
    session.push(b"1", b"2")
    [received] = session.claim()
    session.claim()  # its answer is lost with the connection

    session.hello(leases=[1])

    [again] = session.claim()
    assert (again.id, again.attempt) == (2, 1)
    assert session.complete(received, lease=1) == []


def test_an_operation_names_a_limited_number_of_ids(queue: Queue) -> None:
    session = queue.session()
    session.push(b"1")

    refused = session.cancel(*range(1, 300))

    assert refused.code == "rejected"
    assert session.stats().ready == 1


def test_a_report_has_a_limited_number_of_outcomes(queue: Queue) -> None:
    session = queue.session()
    session.push(b"1")
    [job] = session.claim()
    outcomes = [Outcome(job.id, job.attempt, "succeeded")] * (MAX_OUTCOMES + 1)

    refused = session.say(Report(session.lease, outcomes))

    assert (refused.code, refused.message.split()[-1]) == ("rejected", f"limit={MAX_OUTCOMES}")
    assert session.complete(job) == []


def test_ids_that_a_report_has_lost_stay_within_the_sessions_part_of_the_root(queue: Queue) -> None:
    session, other = queue.session(), queue.session("other")
    scattered = range(10**9, 10**9 + 2 * MAX_OUTCOMES, 2)

    reported = session.say(Report(99, [Outcome(job_id, 1, "succeeded") for job_id in scattered]))

    assert lost_ids(reported) == [*scattered]
    assert len(queue.machine.state.sessions.encoded()) < sessions.MAX_BYTES
    assert other.push(b"1") == [1], "one client's answer keeps nobody out"


def test_cancelling_the_last_live_jobs_of_a_segment_together_with_finished_ones(queue: Queue) -> None:
    session = queue.session()
    session.push(*[b'"%0100d"' % n for n in range(250)])
    for job in session.claim(248, standing=True):
        session.complete(job)

    answer = session.cancel(249, 250, 3, 1)

    assert answer.ids == [(249, 250)]
    assert [key for key in queue.store if key.startswith("segments/")] == []


def test_what_callers_write_stands_in_the_root_in_part_only(queue: Queue) -> None:
    worker = queue.session("w")
    worker.push(b"1", max_attempts=1)
    queue.machine.claim("w", worker.birth, Claim(1, ["default"], 1, worker="\U0001f600" * 100_000), queue.now_ms)
    queue.commit()
    [granted] = worker.received(Granted)
    long = "\U0001f600" * 100_000

    error = JobError(long, long, long + "the end", signal=long)
    outcome = Outcome(granted.jobs[0].id, 1, "failed", error=error, worker=long)
    assert worker.report(outcome, lease=granted.lease).lost == []

    assert queue.biggest_root < 10_000
    [kept] = worker.get(1).errors
    assert kept.traceback.endswith("the end")
    assert len(kept.message.encode()) <= 2048


# ------------------------------------------------------------------------------------------------------------- dropping


def counted(queue: Queue) -> dict[str, int]:
    """The root's counts of the default task."""
    counts = codec.decode_root(queue.root).tasks["default"]
    return {name: getattr(counts, name) for name in counts.__struct_fields__ if getattr(counts, name)}


def segmented(queue: Queue, jobs: int = 600) -> tuple[Session, str]:
    """So many jobs in one segment, and its key."""
    session = queue.session()
    session.push(*[b'"%0100d"' % number for number in range(jobs)])
    [segment] = queue.machine.state.backlog.located.ready()
    return session, segment.key


@pytest.mark.parametrize("how", ["damaged", "never read"])
def test_dropping_a_segment_settles_what_is_leased_returned_cancelled_and_finished(how: str, queue: Queue) -> None:
    session, key = segmented(queue)
    jobs = session.claim(100, standing=True)
    session.complete(jobs[0])
    session.fail(jobs[1])
    session.report(*[Outcome(job.id, job.attempt, "returned") for job in jobs[50:60]])
    session.cancel(jobs[2].id, 400)
    queue.unload()
    queue.reopen()
    if how == "damaged":
        with pytest.raises(Corrupt):
            queue.machine.objects.load(key, b"")

    dropped = queue.machine.objects.drop(key)
    queue.commit()

    # One succeeded, one failed an attempt and stands among the deferred, two were cancelled.
    assert dropped == 600 - 4
    assert counted(queue) == {"pushed": 600, "delayed": 1, "succeeded": 1, "discarded": 596, "cancelled": 2}
    root = codec.decode_root(queue.root)
    assert (root.segments, root.holes, root.returned, root.pruned) == ([], [], [], 596)
    assert [run for lease in root.leases for run in lease.runs] == []
    assert queue.store.keys() & {key} == set()


def test_after_a_drop_its_holder_has_lost_its_jobs_and_the_queue_goes_on(queue: Queue) -> None:
    session, key = segmented(queue)
    [job, *_] = session.claim(10, standing=True)
    held = [(job.id, job.attempt)]
    queue.reopen()
    queue.machine.objects.drop(key)
    session.hello(held)

    assert session.lost() == [job.id]
    [after] = session.push(b"1")
    assert [job.id for job in session.claim(5)] == [after]
    body = session.ask(WaitIdle(["other"]))
    assert body.ready + body.running == 1


def test_dropping_what_the_root_does_not_name_changes_nothing(queue: Queue) -> None:
    segmented(queue)

    assert queue.machine.objects.drop("segments/000000000099-000001.jsonl") == 0
    assert queue.machine.objects.drop("archive/2026-01-01T00/000000000099-000001.1-2.00.jsonl") == 0
    assert not queue.machine.changed


def test_the_takeover_log_is_shorter_when_its_owners_have_long_names(queue: Queue) -> None:
    frame = queue.machine.state.frame
    for number in range(400):
        queue.machine.swept(frame.epoch)
        queue.machine.take_over(f"{number:064}", now_ms=queue.now_ms, nonce="n")

    log = frame.takeovers
    assert 100 < len(log) < TAKEOVERS
    assert [takeover.epoch for takeover in log] == [*range(frame.epoch - len(log) + 1, frame.epoch + 1)]
    assert len(codec.json_encoder.encode(log)) <= TAKEOVERS_BYTES
