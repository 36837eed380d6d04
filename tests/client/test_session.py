"""The client's side of a session, without any I/O: whatever happens to connections, each operation has one answer."""

from __future__ import annotations

import itertools
from collections import deque

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from osqueue.client.operations import PATIENCE_MS, WINDOW
from osqueue.client.session import Session
from osqueue.core.messages import (
    MAX_OUTCOMES,
    Answer,
    AnswerBody,
    Ask,
    Beaten,
    Cancel,
    Changed,
    Claim,
    Finished,
    FromBroker,
    GetStats,
    Goodbye,
    Granted,
    Handout,
    Hello,
    JobRecord,
    Lost,
    Numbered,
    Outcome,
    Push,
    Pushed,
    Refused,
    Reply,
    Report,
    Reported,
    SayAgain,
    Stats,
    ToBroker,
    WaitIdle,
    Welcome,
)
from osqueue.errors import OsqueueError, PoolBroken, SessionLost, Unavailable
from tests.client.model_broker import ModelBroker


class Answers(list[AnswerBody | OsqueueError]):
    """Gathers what an operation or a call is told."""


def new_session() -> Session:
    numbers = itertools.count(1)
    return Session(lambda: f"s{next(numbers)}")


@pytest.fixture
def session() -> Session:
    return new_session()


def welcome(session: Session, *, birth: int = 5, now_ms: int = 0) -> list[ToBroker]:
    session.connected()
    sent = session.outbox(now_ms)
    session.received(Welcome(birth, 1, now_ms=1000), now_ms)
    return sent


def push(session: Session, payload: bytes = b"1", now_ms: int = 0) -> Answers:
    answers = Answers()
    session.operations.submit(Push([payload]), answers.append, now_ms)
    return answers


def numbers(sent: list[ToBroker]) -> list[tuple[int, int]]:
    return [(message.number, message.acked) for message in sent if isinstance(message, Numbered)]


def test_nothing_is_sent_before_the_welcome(session):
    push(session)
    session.connected()

    assert session.outbox(0) == [Hello("s1")]


def test_operations_are_numbered_from_one_and_say_what_is_acked(session):
    welcome(session)
    first, second = push(session), push(session)
    sent = session.outbox(0)
    session.received(Answer(1, Pushed([(1, 1)])), 0)
    session.received(Answer(2, Pushed([(2, 2)])), 0)
    push(session)

    assert numbers(sent) == [(1, 0), (2, 0)]
    assert numbers(session.outbox(0)) == [(3, 2)]
    assert (first, second) == ([Pushed([(1, 1)])], [Pushed([(2, 2)])])


def test_no_more_than_the_window_are_unanswered(session):
    welcome(session)
    for _ in range(WINDOW + 2):
        push(session)

    sent = session.outbox(0)
    session.received(Answer(1, Pushed([(1, 1)])), 0)

    assert len(sent) == WINDOW
    assert numbers(session.outbox(0)) == [(WINDOW + 1, 1)]


def test_after_a_loss_the_session_and_its_operations_are_said_again_under_the_same_numbers(session):
    welcome(session, birth=5)
    push(session), push(session)
    session.outbox(0)
    session.received(Answer(1, Pushed([(1, 1)])), 0)
    session.disconnected(0)
    third = push(session)

    hello = welcome(session, birth=99)

    assert hello == [Hello("s1", birth=5)]
    assert numbers(session.outbox(0)) == [(2, 1), (3, 1)]
    assert third == []
    session.disconnected(0)
    assert welcome(session) == [Hello("s1", birth=5)]


def test_an_answer_that_comes_twice_is_told_once(session):
    welcome(session)
    answers = push(session)
    session.outbox(0)

    session.received(Answer(1, Pushed([(1, 1)])), 0)
    session.received(Answer(1, Pushed([(1, 1)])), 0)

    assert len(answers) == 1


def test_say_again_repeats_from_that_number(session):
    welcome(session)
    push(session), push(session), push(session)
    session.outbox(0)

    session.received(SayAgain(2), 0)

    assert numbers(session.outbox(0)) == [(2, 0), (3, 0)]


def test_what_has_waited_too_long_is_unavailable_and_again_gets_the_answer_to_that_very_operation(session):
    welcome(session)
    answers = Answers()
    pending = session.operations.submit(Push([b"1"]), answers.append, 0)
    sent = session.outbox(0)

    session.time_passed(PATIENCE_MS - 1)
    assert answers == []
    session.time_passed(PATIENCE_MS)
    again = Answers()
    session.operations.again(pending, again.append, PATIENCE_MS)
    repeated = session.outbox(PATIENCE_MS)
    session.received(Answer(1, Pushed([(1, 1)])), PATIENCE_MS)
    late = Answers()
    session.operations.again(pending, late.append, PATIENCE_MS)

    assert isinstance(answers[0], Unavailable)
    assert numbers(sent) == [(1, 0)]
    assert repeated == []
    assert again == late == [Pushed([(1, 1)])]


def test_answers_that_come_in_keep_those_behind_them_patient(session):
    welcome(session)
    push(session)
    second = push(session)
    session.outbox(0)
    session.received(Answer(1, Pushed([(1, 1)])), PATIENCE_MS - 10)

    session.time_passed(PATIENCE_MS)
    assert second == []

    session.time_passed(2 * PATIENCE_MS)
    assert isinstance(second[0], Unavailable)


def test_a_forgotten_session_is_replaced_unseen_for_what_was_sent_once(session):
    welcome(session)
    answers = push(session)
    session.outbox(0)

    session.received(Answer(1, Refused("session_lost", "")), 0)
    assert session.stale
    session.disconnected(0)
    hello = welcome(session)
    sent = session.outbox(0)
    session.received(Answer(1, Pushed([(1, 1)])), 0)

    assert hello == [Hello("s2")]
    assert numbers(sent) == [(1, 0)]
    assert answers == [Pushed([(1, 1)])]


def test_a_forgotten_session_is_an_error_for_what_was_said_twice(session):
    welcome(session)
    twice = push(session)
    session.outbox(0)
    session.disconnected(0)
    welcome(session)
    once = push(session)
    session.outbox(0)

    session.received(Answer(1, Refused("session_lost", "")), 0)
    session.received(Answer(2, Refused("session_lost", "")), 0)
    session.disconnected(0)
    welcome(session)

    assert isinstance(twice[0], SessionLost)
    assert once == []
    assert numbers(session.outbox(0)) == [(1, 0)]


def test_queries_are_asked_again_under_a_new_ticket(session):
    welcome(session)
    answers: list[object] = []
    session.calls.ask(GetStats(), answers.append, 0)
    [first] = session.outbox(0)
    session.disconnected(0)
    welcome(session)
    [second] = session.outbox(0)

    assert isinstance(first, Ask)
    assert isinstance(second, Ask)
    session.received(Reply(first.ticket, Stats(pushed=1)), 0)
    session.received(Reply(second.ticket, Stats(pushed=2)), 0)

    assert answers == [Reply(second.ticket, Stats(pushed=2))]


def test_a_one_shot_claim_is_asked_again_for_the_rest_of_its_wait(session):
    welcome(session)
    session.calls.claim(Claim(0, ["default"], wait_s=10), lambda _: None, 1000)
    [first] = session.outbox(1000)
    session.disconnected(3000)
    session.connected()
    session.outbox(4000)
    session.received(Welcome(5, 1, now_ms=0), 4000)
    [second] = session.outbox(4000)

    assert isinstance(first, Claim)
    assert isinstance(second, Claim)
    assert (first.wait_s, second.wait_s) == (10, 7)


def test_a_question_that_may_take_long_expires_only_without_a_connection(session):
    welcome(session)
    answers: list[object] = []
    session.calls.ask(WaitIdle(["default"]), answers.append, 0, wait_ms=None)
    session.outbox(0)

    session.time_passed(100 * PATIENCE_MS)
    assert answers == []

    session.disconnected(100 * PATIENCE_MS)
    session.time_passed(101 * PATIENCE_MS)
    assert isinstance(answers[0], Unavailable)


def test_watched_jobs_are_named_in_every_hello_and_told_once(session):
    welcome(session)
    told: list[JobRecord] = []
    for job_id in (3, 4, 9):
        session.watch.add(job_id, told.append)
    session.received(Finished([JobRecord(id=4, state="succeeded")]), 0)
    session.received(Finished([JobRecord(id=4, state="succeeded"), JobRecord(id=5, state="dead")]), 0)
    session.disconnected(0)

    assert welcome(session) == [Hello("s1", birth=5, watched=[(3, 3), (9, 9)])]
    assert [record.id for record in told] == [4]


def test_the_brokers_time_is_the_welcomes_plus_the_boot_clock(session):
    session.connected()
    session.received(Welcome(5, 1, now_ms=1_000_000), 300)

    assert session.now_ms(350) == 1_000_050


def test_a_session_that_can_never_connect_again_tells_everybody(session):
    answers = push(session)
    asked: list[object] = []
    session.calls.ask(GetStats(), asked.append, 0)

    session.fail(PoolBroken("no more"))

    assert [type(one) for one in (*answers, *asked)] == [PoolBroken, PoolBroken]
    assert not session.busy


def test_the_last_answer_is_acknowledged_when_nothing_follows_it(session):
    welcome(session)
    push(session), push(session)
    session.outbox(0)
    session.received(Answer(1, Pushed([(1, 1)])), 0)
    assert session.outbox(0) == []
    session.time_passed(0)
    assert numbers(session.outbox(0)) == [(1, 1)]
    session.received(Answer(2, Pushed([(2, 2)])), 0)
    assert session.outbox(0) == []
    assert session.busy

    session.time_passed(1000)

    assert numbers(session.outbox(1000)) == [(2, 2)]
    assert not session.busy
    session.time_passed(2000)
    assert session.outbox(2000) == []
    push(session)
    assert numbers(session.outbox(3000)) == [(3, 2)]


def test_a_large_answer_is_acknowledged_at_once(session):
    welcome(session)
    session.operations.submit(Cancel([*range(1, 40, 2)]), lambda _: None, 0)
    push(session)
    session.outbox(0)

    session.received(Answer(1, Changed([(n, n) for n in range(1, 40, 2)])), 0)

    assert numbers(session.outbox(0)) == [(1, 1)]


def test_goodbye_follows_what_was_said_and_nothing_else_is_said_again_on_a_new_connection(session):
    welcome(session)
    said = push(session)
    session.outbox(0)
    session.leave()
    late = push(session)

    assert session.outbox(0) == [Goodbye()]
    assert session.outbox(0) == []
    session.disconnected(0)
    welcome(session)
    # The broker may have heard it, and forgotten the session: said again, a push would be a second one.
    assert session.outbox(0) == [Goodbye()]
    assert [type(answer) for answer in (*said, *late)] == [Unavailable, Unavailable]


def test_a_job_that_comes_when_nobody_waits_for_it_goes_back(session):
    welcome(session)
    call = session.calls.claim(Claim(0, ["default"], 1, wait_s=9), Answers().append, 0)
    [claim] = session.outbox(0)
    session.calls.forget(call)

    session.received(Granted(claim.ticket, 7, [Handout(3, 2, "default", b"1", 0)]), 0)

    [message] = session.outbox(0)
    assert message.operation == Report(7, [Outcome(3, 2, "returned")])


def test_many_jobs_that_come_when_nobody_waits_for_them_go_back_in_several_reports(session):
    welcome(session)
    call = session.calls.claim(Claim(0, ["default"], 8192, wait_s=9), Answers().append, 0)
    [claim] = session.outbox(0)
    session.calls.forget(call)

    session.received(Granted(claim.ticket, 7, [Handout(n, 1, "default", b"1", 0) for n in range(1, 1202)]), 0)

    outcomes = [message.operation.outcomes for message in session.outbox(0)]
    assert max(map(len, outcomes)) <= MAX_OUTCOMES
    assert [outcome.id for part in outcomes for outcome in part] == [*range(1, 1202)]


class Keeper:
    def __init__(self) -> None:
        self.told: list[object] = []

    def held(self) -> list[tuple[int, int]]:
        return [(8, 1)]

    def welcomed(self, lease: int) -> None:
        self.told.append(lease)

    def granted(self, message: Granted) -> None:
        self.told.append(message)

    def cancelled(self, ids: list[int]) -> None:
        self.told.append(("cancelled", ids))

    def lost(self, ids: list[int]) -> None:
        self.told.append(("lost", ids))


def test_a_keeper_names_what_it_holds_and_gets_what_the_broker_says_of_its_lease():
    keeper = Keeper()
    session = Session(lambda: "s", keeper=keeper)
    session.connected()
    hello = session.outbox(0)
    session.received(Welcome(5, 1, now_ms=0, lease=4), 0)
    session.claim_standing(["a"], 3, "w")
    [claim] = session.outbox(0)
    assert isinstance(claim, Claim)
    session.received(Granted(claim.ticket, 4, []), 0)
    session.received(Lost([8]), 0)

    assert hello == [Hello("s", held=[(8, 1)])]
    assert keeper.told == [4, Granted(claim.ticket, 4, []), ("lost", [8])]


class Storm(RuleBasedStateMachine):
    """Connections come and go, messages are delayed and dropped; both ends keep their state."""

    @initialize()
    def begin(self) -> None:
        self.session = new_session()
        self.broker = ModelBroker()
        self.up: deque[ToBroker] = deque()
        self.down: deque[FromBroker] = deque()
        self.connected = False
        self.answers: dict[bytes, Answers] = {}
        self.asked: list[list[object]] = []
        self.ended: dict[int, int] = {}
        self.now_ms = 0

    @rule(watch=st.booleans())
    def push(self, watch: bool) -> None:
        payload = b"%d" % len(self.answers)
        answers = self.answers[payload] = Answers()

        def answered(body: AnswerBody | OsqueueError) -> None:
            answers.append(body)
            if watch and isinstance(body, Pushed):
                job_id = body.ids[0][0]
                self.ended[job_id] = 0
                self.session.watch.add(job_id, self.job_ended)

        self.session.operations.submit(Push([payload], watch=watch), answered, self.now_ms)

    def job_ended(self, record: JobRecord) -> None:
        self.ended[record.id] += 1

    @rule()
    def ask(self) -> None:
        asked: list[object] = []
        self.asked.append(asked)
        self.session.calls.ask(GetStats(), asked.append, self.now_ms)

    @precondition(lambda self: not self.connected)
    @rule()
    def connect(self) -> None:
        self.connected = True
        self.session.connected()

    @precondition(lambda self: self.connected)
    @rule()
    def lose(self) -> None:
        self.connected = False
        self.up.clear()
        self.down.clear()
        self.session.disconnected(self.now_ms)
        self.broker.disconnected()

    @precondition(lambda self: self.connected)
    @rule(messages=st.integers(1, 5))
    def broker_reads(self, messages: int) -> None:
        self.up += self.session.outbox(self.now_ms)
        for _ in range(min(messages, len(self.up))):
            self.down += self.broker.received(self.up.popleft())

    @precondition(lambda self: self.connected)
    @rule(messages=st.integers(1, 5))
    def client_reads(self, messages: int) -> None:
        for _ in range(min(messages, len(self.down))):
            self.session.received(self.down.popleft(), self.now_ms)
            if self.session.stale:
                self.lose()
                return

    @rule(seconds=st.integers(1, 40))
    def wait(self, seconds: int) -> None:
        self.now_ms += seconds * 1000
        self.session.time_passed(self.now_ms)

    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        if self.broker.applied:
            self.down += self.broker.finish(data.draw(st.integers(1, len(self.broker.applied))))

    @rule()
    def others_take_its_place(self) -> None:
        self.broker.forget()

    @invariant()
    def nothing_is_applied_twice(self) -> None:
        assert len(set(self.broker.applied)) == len(self.broker.applied)

    @invariant()
    def nobody_is_told_twice(self) -> None:
        assert all(len(answers) <= 1 for answers in self.answers.values())
        assert all(count <= 1 for count in self.ended.values())

    def teardown(self) -> None:
        if not hasattr(self, "session"):
            return
        if not self.connected:
            self.connect()
        for job_id in range(1, len(self.broker.applied) + 1):
            self.down += self.broker.finish(job_id)
        for _ in range(200):
            if not self.connected:
                self.connect()
            self.session.time_passed(self.now_ms)
            self.broker_reads(5)
            self.client_reads(5)
            for job_id in range(1, len(self.broker.applied) + 1):
                self.down += [] if job_id in self.broker.finished else self.broker.finish(job_id)
        assert not self.session.busy
        for payload, [answer] in self.answers.items():
            if isinstance(answer, Unavailable):
                continue
            assert isinstance(answer, Pushed)
            assert self.broker.applied[answer.ids[0][0] - 1] == payload
        assert all(len(asked) == 1 for asked in self.asked)
        assert all(count == 1 for count in self.ended.values())


TestStorm = Storm.TestCase
TestStorm.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)


def test_a_hello_names_the_leases_of_claims_that_are_still_open(session):
    welcome(session)
    session.calls.claim(Claim(0, ["default"], 2), Answers().append, 0)
    [claim] = session.outbox(0)
    session.received(
        Granted(claim.ticket, 7, [Handout(1, 1, "default", b"1", 0), Handout(2, 1, "default", b"1", 0)]), 0
    )
    session.operations.submit(Report(7, [Outcome(1, 1, "succeeded")]), Answers().append, 0)
    session.outbox(0)
    session.received(Answer(1, Reported()), 0)

    session.disconnected(0)
    [hello] = welcome(session)
    session.operations.submit(Report(7, [Outcome(2, 1, "succeeded")]), Answers().append, 0)
    session.outbox(0)
    session.received(Answer(2, Reported()), 0)
    session.disconnected(0)

    assert hello.leases == [7]
    assert welcome(session)[0].leases == []


def claimed_two(session: Session) -> None:
    welcome(session)
    session.calls.claim(Claim(0, ["default"], 2), Answers().append, 0)
    [claim] = session.outbox(0)
    handouts = [Handout(n, 1, "default", b"1", 0) for n in (1, 2)]
    session.received(Granted(claim.ticket, 7, handouts), 0)


def leases(session: Session) -> list[int]:
    session.disconnected(0)
    [hello] = welcome(session)
    return hello.leases


def test_a_job_that_is_reported_twice_does_not_close_the_lease_of_another(session):
    claimed_two(session)

    for number in (1, 2):
        session.operations.submit(Report(7, [Outcome(1, 1, "succeeded")]), Answers().append, 0)
        session.outbox(0)
        session.received(Answer(number, Reported([(1, 1)] if number == 2 else [])), 0)

    assert leases(session) == [7]


def test_a_lease_whose_jobs_were_all_found_lost_is_not_named_any_more(session):
    claimed_two(session)

    for job_id, expected in ((1, [7]), (2, [])):
        session.heartbeat(7, [job_id], Answers().append, 0)
        [heartbeat] = session.outbox(0)
        session.received(Beaten(heartbeat.ticket, held=False), 0)
        assert leases(session) == expected
