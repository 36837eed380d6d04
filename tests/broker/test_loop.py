"""The commit loop's rules: what leaves when, in which order things are written, who waits for whom."""

from __future__ import annotations

from osqueue.broker.effects import Create, Delete, Forget, Swap
from osqueue.broker.loop import LINGER_MS
from osqueue.core import codec
from osqueue.core.messages import (
    Answer,
    Ask,
    Cancel,
    Changed,
    Claim,
    GetJob,
    GetStats,
    Goodbye,
    Granted,
    Heartbeat,
    Numbered,
    Push,
    Reply,
    Welcome,
)
from osqueue.core.sessions import MAX_SESSIONS
from tests.broker.bed import Bed


def test_an_answer_leaves_only_after_its_commit_has_landed() -> None:
    bed = Bed()
    bed.connect(1, "a")

    bed.push(1, b"1")

    assert bed.to(1, Answer) == []
    bed.land()
    assert [answer.number for answer in bed.to(1, Answer)] == [1]


def test_operations_that_come_in_while_a_commit_is_in_flight_share_the_next_one() -> None:
    bed = Bed()
    bed.connect(1, "a")
    bed.connect(2, "b")
    bed.push(1, b"1")

    bed.push(1, b"2")
    bed.push(2, b"3")
    bed.push(2, b"4")
    bed.land()

    assert [answer.number for answer in bed.to(1, Answer)] == [1]
    assert bed.to(2, Answer) == []
    bed.land()
    assert [answer.number for answer in bed.to(2, Answer)] == [1, 2]
    assert bed.waiting(Swap) == []


def test_a_repeated_answer_waits_for_the_commit_of_the_first() -> None:
    bed = Bed()
    bed.connect(1, "a")
    bed.push(1, b"1")
    birth = bed.to(1, Welcome)[0].birth
    bed.connect(2, "a", birth=birth)

    bed.say(2, Numbered(1, 0, Push([b"1"])))

    assert bed.to(2, Answer) == []
    bed.settle()
    assert [answer.number for answer in bed.to(2, Answer)] == [1]
    assert bed.loop.machine.state.frame.next_id == 2


def test_reads_wait_for_what_was_applied_before_them() -> None:
    bed = Bed()
    bed.connect(1, "a")
    bed.connect(2, "b")
    bed.push(1, b"1")

    bed.say(2, Ask(5, GetStats()))

    assert bed.to(2, Reply) == []
    bed.land()
    assert bed.to(2, Reply)[0].body.ready == 1


def test_a_hand_out_leaves_only_after_its_commit_has_landed() -> None:
    bed = Bed()
    bed.connect(1, "a")
    bed.connect(2, "w")
    bed.claim(2)

    bed.push(1, b"1")

    assert bed.to(2, Granted) == []
    bed.land()
    assert [job.id for message in bed.to(2, Granted) for job in message.jobs] == [1]


def test_a_refusal_too_waits_for_its_commit() -> None:
    bed = Bed()
    bed.connect(1, "a")

    bed.operate(1, Push([b"1"], priority=5000))

    assert bed.to(1, Answer) == []
    bed.land()
    assert bed.to(1, Answer)[0].body.code == "rejected"


def test_objects_are_created_before_the_swap_and_deleted_after_it() -> None:
    bed = Bed()
    bed.connect(1, "a")
    bed.claim(1, 1000)
    bed.push(1, *[b'"%0100d"' % n for n in range(500)])
    assert bed.waiting(Swap) == []
    bed.create()
    assert len(bed.waiting(Swap)) == 1
    bed.land()
    [granted] = bed.to(1, Granted)

    bed.order.clear()
    bed.complete(1, granted.lease, *granted.jobs)
    bed.settle()

    assert bed.order == ["create", "swap", "send", "delete"]
    assert [key for key in bed.store if key.startswith("segments/")] == []


def test_objects_of_a_large_batch_go_up_while_the_commit_before_it_is_in_flight() -> None:
    bed = Bed()
    bed.connect(1, "a")
    bed.push(1, b"1")
    assert len(bed.waiting(Swap)) == 1

    bed.push(1, *[b'"%01000d"' % n for n in range(800)])

    assert len(bed.waiting(Create)) == 1
    bed.create()
    assert len(bed.waiting(Swap)) == 1, "one commit is in flight, and no second one"
    first = bed.land()
    assert bed.land().version == first.version + 1


def test_at_most_one_batch_is_applied_ahead() -> None:
    bed = Bed()
    bed.connect(1, "a")
    bed.push(1, b"1")
    bed.push(1, *[b'"%01000d"' % n for n in range(800)])
    before = bed.loop.machine.state.frame.next_id

    bed.push(1, b"3")

    assert bed.loop.machine.state.frame.next_id == before
    bed.settle()
    assert [answer.number for answer in bed.to(1, Answer)] == [1, 2, 3]


def test_a_message_that_needs_an_object_waits_and_others_go_on() -> None:
    bed = Bed()
    bed.connect(1, "a")
    bed.push(1, *[b'"%0100d"' % n for n in range(500)])
    bed.settle()
    again = Bed(bed.root, bed.store)
    again.connect(1, "a2")
    again.connect(2, "b")

    again.operate(1, Cancel([7]))
    again.push(1, b"after")
    again.push(2, b"1")
    again.land()

    assert [answer.number for answer in again.to(2, Answer)] == [1]
    assert again.to(1, Answer) == []
    assert len(again.load()) == 1
    again.settle()
    assert [answer.number for answer in again.to(1, Answer)] == [1, 2]


def test_a_session_whose_answers_fill_its_room_goes_on_once_it_acknowledges_them() -> None:
    bed = Bed()
    bed.connect(1, "a")
    bed.operate(1, Push([b"1"] * 2000))
    bed.settle()
    odd = [*range(1, 2000, 2)]
    parts = [odd[at : at + 100] for at in range(0, 1000, 100)]

    for number, ids in enumerate(parts, 2):
        bed.say(1, Numbered(number, 0, Cancel(ids)))
    bed.settle()
    bed.wait(LINGER_MS)
    bed.settle()
    answered = len(bed.to(1, Answer))
    assert answered < 1 + len(parts), "an answer of 100 runs is kept until it is acknowledged"
    while answered < 1 + len(parts):
        bed.say(1, Numbered(answered, answered, Cancel([])))
        bed.wait(LINGER_MS)
        bed.settle()
        assert len(bed.to(1, Answer)) > answered
        answered = len(bed.to(1, Answer))

    assert [answer.number for answer in bed.to(1, Answer)] == [*range(1, 2 + len(parts))]


def test_a_new_session_that_takes_the_place_of_another_may_wait_for_a_segment() -> None:
    bed = Bed()
    bed.connect(1000, "pusher")
    bed.push(1000, *[b'"%0100d"' % n for n in range(500)])
    bed.say(1000, Goodbye())
    bed.settle()
    again = Bed(bed.root, bed.store)
    for session in range(MAX_SESSIONS + 1):
        again.connect(session, f"s{session}")
    for session in range(MAX_SESSIONS):
        again.push(session, b"1")
        again.settle()
        again.say(session, Numbered(1, 1, Push([])))
        again.loop.disconnected(session)

    again.operate(MAX_SESSIONS, Cancel([7]))
    again.settle()

    assert [answer.body for answer in again.to(MAX_SESSIONS, Answer)] == [Changed([(7, 7)])]


def stall(bed: Bed, ms: int) -> None:
    """The store does nothing for so long; the loop goes on by its alarms."""
    end = bed.now_ms + ms
    while bed.now_ms < end:
        alarm = bed.loop.next_alarm_ms()
        bed.now_ms = min(end, bed.now_ms + 1000 if alarm is None or alarm <= bed.now_ms else alarm)
        bed.turn()


def charged(bed: Bed, job_id: int) -> int:
    place = bed.loop.machine.state.find(job_id)
    assert place is not None
    return place.job.attempts


def test_a_lease_that_was_granted_while_the_store_stalled_has_its_term_from_its_own_commit() -> None:
    bed = Bed()
    bed.connect(1, "w")
    bed.push(1, b"1")
    bed.push(1, b"2")
    bed.say(1, Claim(7, ["default"], 1))
    bed.land()

    stall(bed, 31_000)
    bed.settle()

    assert len(bed.to(1, Granted)) == 1
    assert charged(bed, 1) == 0
    stall(bed, 29_000)
    assert charged(bed, 1) == 0
    stall(bed, 2_000)
    bed.settle()
    assert charged(bed, 1) == 1


def test_a_heartbeat_whose_answer_waits_for_a_stalled_store_keeps_its_lease() -> None:
    bed = Bed()
    bed.connect(1, "w")
    bed.push(1, b"1")
    bed.say(1, Claim(7, ["default"], 1))
    bed.settle()
    [granted] = bed.to(1, Granted)
    bed.push(1, b"2")
    stall(bed, 4_000)

    bed.say(1, Heartbeat(8, granted.lease, [1]))
    stall(bed, 31_000)
    bed.settle()

    assert charged(bed, 1) == 0


def test_a_newer_connection_of_a_session_closes_the_older() -> None:
    bed = Bed()
    bed.connect(1, "a")

    bed.connect(2, "a")

    assert bed.closed() == [1]


def test_a_connection_that_does_not_begin_with_hello_is_closed() -> None:
    bed = Bed()
    bed.loop.connected(1)

    bed.say(1, Numbered(1, 0, Push([b"1"])))

    assert bed.closed() == [1]
    assert bed.loop.machine.state.frame.next_id == 1


def test_a_finished_job_is_looked_up_only_after_its_record_has_landed() -> None:
    bed = Bed()
    bed.connect(1, "a")
    bed.claim(1, 1000)
    bed.push(1, *[b'"%0100d"' % n for n in range(500)])
    bed.settle()
    [granted] = bed.to(1, Granted)

    bed.complete(1, granted.lease, *granted.jobs)
    bed.say(1, Ask(9, GetJob(3)))
    bed.create()
    assert bed.lookups() == []
    bed.land()

    assert [lookup.ticket for lookup in bed.lookups()] == [9]
    assert bed.loop.landed_frame.version == codec.decode_root(bed.root).version


def test_closing_lands_what_is_applied_then_seals_the_archive_and_leaves() -> None:
    bed = Bed()
    bed.connect(1, "a")
    bed.claim(1)
    bed.push(1, b"1")
    bed.land()
    [granted] = bed.to(1, Granted)
    bed.complete(1, granted.lease, *granted.jobs)

    bed.loop.close()
    bed.turn()
    bed.settle()

    assert bed.loop.closed
    assert [answer.number for answer in bed.to(1, Answer)] == [1, 2]
    root = codec.decode_root(bed.root)
    assert (root.owner, root.finished) == (None, [])
    assert len([key for key in bed.store if key.startswith("archive/")]) == 1


def test_while_records_come_fast_a_commit_waits_a_little_but_not_longer() -> None:
    bed = Bed()
    bed.connect(1, "a")
    bed.claim(1, 1000)
    bed.push(1, *[b'"%01000d"' % n for n in range(500)])
    bed.settle()
    [granted] = bed.to(1, Granted)
    bed.wait(1000)
    for part in range(2):
        bed.complete(1, granted.lease, *granted.jobs[part * 200 : part * 200 + 200])
        bed.wait(LINGER_MS // 2)
        bed.settle()

    answers = len(bed.to(1, Answer))
    bed.push(1, b"1")

    assert bed.waiting(Swap) == []
    assert len(bed.to(1, Answer)) == answers, "what waits for its commit has not left"
    assert bed.loop.next_alarm_ms() is not None
    bed.wait(LINGER_MS)
    assert len(bed.waiting(Swap)) == 1


def test_an_object_that_was_dropped_stays_in_the_trash_until_it_is_gone() -> None:
    bed = Bed()
    bed.connect(1, "a")
    bed.claim(1, 1000)
    bed.push(1, *[b'"%0100d"' % n for n in range(500)])
    bed.settle()
    [granted] = bed.to(1, Granted)
    bed.complete(1, granted.lease, *granted.jobs)
    bed.create()
    bed.land()
    [deletion] = bed.waiting(Delete)

    bed.push(1, b"1")
    bed.wait(LINGER_MS)
    bed.land()
    assert codec.decode_root(bed.root).trash == deletion.keys

    bed.delete()
    bed.push(1, b"2")
    bed.land()
    assert codec.decode_root(bed.root).trash == []


def test_a_holder_that_is_gone_has_its_jobs_given_back_though_their_segment_is_not_loaded() -> None:
    bed = Bed()
    bed.connect(1, "a")
    bed.claim(1, 1000)
    bed.push(1, *[b'"%0100d"' % n for n in range(500)])
    bed.settle()
    [granted] = bed.to(1, Granted)
    again = Bed(bed.root, bed.store)
    again.connect(2, "b")

    again.loop.lease_ended(granted.lease, [(5, 1)], marks=False)
    again.turn()
    again.settle()

    again.say(2, Ask(1, GetStats()))
    again.settle()
    stats = again.to(2, Reply)[-1].body
    assert (stats.ready, stats.delayed) == (499, 1)


def test_a_blame_file_is_forgotten_only_when_what_it_says_has_landed() -> None:
    bed = Bed()
    bed.connect(1, "a")
    bed.claim(1)
    bed.push(1, b"1")
    bed.settle()
    [granted] = bed.to(1, Granted)

    bed.loop.lease_ended(granted.lease, [(1, 1)], marks=False, blame_path="blame/1")
    bed.turn()

    assert bed.waiting(Forget) == []
    bed.land()
    assert bed.waiting(Forget) == [Forget("blame/1")]


def test_a_holder_that_ends_after_the_last_commit_is_left_to_the_next_broker() -> None:
    bed = Bed()
    bed.connect(1, "a")
    bed.claim(1)
    bed.push(1, b"1")
    bed.settle()
    [granted] = bed.to(1, Granted)
    bed.loop.close()
    bed.turn()

    bed.loop.lease_ended(granted.lease, [(1, 1)], marks=False, blame_path="blame/1")
    bed.settle()

    assert bed.loop.closed
    assert bed.waiting(Forget) == []
    assert [lease.number for lease in codec.decode_root(bed.root).leases] == [granted.lease]
