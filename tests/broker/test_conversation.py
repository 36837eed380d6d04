"""The client's side of sessions against the commit loop: whatever is lost, everything is answered, and happens once."""

from __future__ import annotations

import itertools
import os
from collections import Counter, deque
from collections.abc import Callable
from random import Random

import pytest

from osqueue.broker.gate import Lookup, Send
from osqueue.broker.loop import CloseConnection, Create, Delete, Load, Swap, archive_answer
from osqueue.client.runs import from_runs
from osqueue.client.session import Session
from osqueue.core import codec
from osqueue.core.messages import (
    AnswerBody,
    Cancel,
    Changed,
    Claim,
    Discard,
    FromBroker,
    Granted,
    Handout,
    Holder,
    JobRecord,
    Operation,
    Outcome,
    Push,
    Pushed,
    Report,
    Reported,
    Requeue,
    ToBroker,
    Verdict,
)
from osqueue.core.objects import is_real, parse
from osqueue.errors import OsqueueError
from tests.broker.bed import Bed

CLIENTS = 3
LINGER_MS = 25
VERDICTS: tuple[Verdict, ...] = ("succeeded", "succeeded", "failed", "dead")
sessions = itertools.count(1)
connections = itertools.count(1)


class Worker:
    """Keeps a standing lease, as a supervisor does."""

    def __init__(self) -> None:
        self.jobs: dict[int, Handout] = {}
        self.reported: set[tuple[int, int]] = set()
        """Ids and attempts whose report has not been answered."""
        self.lease = 0

    def held(self) -> list[tuple[int, int]]:
        return [*((job.id, job.attempt) for job in self.jobs.values()), *self.reported]

    def welcomed(self, lease: int) -> None:
        self.lease = lease

    def granted(self, message: Granted) -> None:
        self.lease = message.lease
        for job in message.jobs:
            assert job.id not in self.jobs, "handed out twice to one holder"
            self.jobs[job.id] = job

    def cancelled(self, ids: list[int]) -> None:
        self.lost(ids)

    def lost(self, ids: list[int]) -> None:
        for job_id in ids:
            self.jobs.pop(job_id, None)


class Peer:
    """A client with its connection, as two queues of messages."""

    def __init__(self, *, worker: Worker | None = None) -> None:
        holder = Holder("boot", "namespace", next(sessions), 1) if worker is not None else None
        self.session = Session(lambda: f"s{next(sessions)}", holder=holder, keeper=worker)
        self.worker = worker
        self.connection = 0
        self.up: deque[ToBroker] = deque()
        self.down: deque[FromBroker] = deque()
        self.open_calls = 0


class Conversation:
    """Three clients and a worker, over connections that come and go, with brokers that crash."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.crashes = self.random.choice([0, 0.002, 0.02])
        self.bed = Bed()
        self.worker = Worker()
        self.peers = [*(Peer() for _ in range(CLIENTS)), Peer(worker=self.worker)]
        self.unanswered = 0
        self.pushed: list[int] = []
        self.cancelled: Counter[int] = Counter()
        self.completed: Counter[int] = Counter()
        self.ended: Counter[int] = Counter()
        self.watched: set[int] = set()

    @property
    def now_ms(self) -> int:
        return self.bed.now_ms

    def storm(self) -> None:
        """Anything, in any order."""
        pick = self.random.choice
        client, anyone = range(CLIENTS), [*range(CLIENTS), CLIENTS, CLIENTS]
        what: list[tuple[int, Callable[[], None]]] = [
            (4, lambda: self.push(pick(client), pick([1, 3, 300]), watch=pick([True, False]))),
            (3, lambda: self.change_many(pick(client), pick([Cancel, Cancel, Requeue, Discard]), pick([1, 2, 3]))),
            (3, lambda: self.worker_claims(pick([1, 50, 500]))),
            (8, lambda: self.worker_reports(pick([1, 20, 200]), pick(VERDICTS))),
            (2, lambda: self.claim_once(pick(client), pick([1, 20]))),
            (8, lambda: self.connect(pick(anyone))),
            (2, lambda: self.lose_connection(pick(anyone))),
            (20, lambda: self.broker_reads(pick(anyone), pick([1, 2, 1000]))),
            (20, lambda: self.client_reads(pick(anyone), pick([1, 2, 1000]))),
            (30, self.disk),
            (3, lambda: self.wait(pick([1, 25, 2000]))),
        ]
        weights, steps = [weight for weight, _ in what], [step for _, step in what]
        for _ in range(self.random.randrange(50, 800)):
            self.random.choices(steps, weights)[0]()
            if self.random.random() < self.crashes:
                self.crash()

    # ------------------------------------------------------------------------------------------------- what clients do

    def operate(self, peer: Peer, operation: Operation, on_body: Callable[[AnswerBody], None]) -> None:
        self.unanswered += 1

        def answered(body: AnswerBody | OsqueueError) -> None:
            self.unanswered -= 1
            assert not isinstance(body, OsqueueError), body
            on_body(body)

        peer.session.operations.submit(operation, answered, self.now_ms, expires=False)

    def push(self, who: int, jobs: int, *, watch: bool) -> None:
        peer = self.peers[who]

        def pushed(body: AnswerBody) -> None:
            assert isinstance(body, Pushed)
            ids = list(from_runs(body.ids))
            assert len(ids) == jobs
            self.pushed += ids
            if watch:
                self.watched.update(ids)
                for job_id in ids:
                    peer.session.watch.add(job_id, self.job_ended)

        self.operate(peer, Push([b'"%0200d"' % jobs] * jobs, watch=watch), pushed)

    def job_ended(self, record: JobRecord) -> None:
        self.ended[record.id] += 1

    def change_many(self, who: int, kind: type[Cancel | Requeue | Discard], step: int) -> None:
        ids = self.random.sample(self.pushed, min(len(self.pushed), 1200))[::step]
        for at in range(0, len(ids), 200):
            self.operate(self.peers[who], kind(ids[at : at + 200]), lambda body: self.changed(kind, body))

    def changed(self, kind: type[Operation], body: AnswerBody) -> None:
        assert isinstance(body, Changed)
        if kind is Cancel:
            self.cancelled.update(from_runs(body.ids))

    def worker_claims(self, jobs: int) -> None:
        self.peers[-1].session.claim_standing(["default"], jobs, "worker")

    def worker_reports(self, jobs: int, verdict: Verdict) -> None:
        worker = self.worker
        chosen = [worker.jobs.pop(job_id) for job_id in [*worker.jobs][:jobs]]
        if not chosen:
            return
        worker.reported.update((job.id, job.attempt) for job in chosen)

        def reported(body: AnswerBody) -> None:
            assert isinstance(body, Reported)
            lost = set(from_runs(body.lost))
            worker.reported.difference_update((job.id, job.attempt) for job in chosen)
            if verdict == "succeeded":
                self.completed.update(job.id for job in chosen if job.id not in lost)

        delay_s = self.random.choice([None, 0])
        outcomes = [Outcome(job.id, job.attempt, verdict, retry_delay_s=delay_s) for job in chosen]
        self.operate(self.peers[-1], Report(worker.lease, outcomes), reported)

    def claim_once(self, who: int, jobs: int) -> None:
        peer = self.peers[who]
        peer.open_calls += 1

        def granted(message: object) -> None:
            peer.open_calls -= 1
            assert isinstance(message, Granted)
            if message.jobs:
                outcomes = [Outcome(job.id, job.attempt, "succeeded") for job in message.jobs]
                self.operate(peer, Report(message.lease, outcomes), lambda body: one_shot(message, body))

        def one_shot(message: Granted, body: AnswerBody) -> None:
            assert isinstance(body, Reported)
            lost = set(from_runs(body.lost))
            self.completed.update(job.id for job in message.jobs if job.id not in lost)

        peer.session.calls.claim(Claim(0, ["default"], jobs), granted, self.now_ms)

    # -------------------------------------------------------------------------------------------- what happens to them

    def connect(self, who: int) -> None:
        peer = self.peers[who]
        if peer.connection == 0:
            peer.connection = next(connections)
            self.bed.loop.connected(peer.connection)
            peer.session.connected()

    def lose_connection(self, who: int) -> None:
        peer = self.peers[who]
        if peer.connection:
            self.bed.loop.disconnected(peer.connection)
            self.client_lost(peer)

    def client_lost(self, peer: Peer) -> None:
        peer.connection = 0
        peer.up.clear()
        peer.down.clear()
        peer.session.disconnected(self.now_ms)

    def broker_reads(self, who: int, messages: int) -> None:
        peer = self.peers[who]
        if peer.connection:
            peer.up += peer.session.outbox(self.now_ms)
            for _ in range(min(messages, len(peer.up))):
                self.bed.loop.received(peer.connection, peer.up.popleft())
            self.turn()

    def client_reads(self, who: int, messages: int) -> None:
        peer = self.peers[who]
        for _ in range(messages):
            if not peer.down:
                return
            peer.session.received(peer.down.popleft(), self.now_ms)

    def wait(self, ms: int) -> None:
        self.bed.now_ms += ms
        for peer in self.peers:
            peer.session.time_passed(self.now_ms)
        self.turn()

    def crash(self) -> None:
        """The broker is killed; what had landed stands, and so do objects that were made for nothing."""
        self.bed = Bed(self.bed.root, self.bed.store, now_ms=self.now_ms)
        for peer in self.peers:
            if peer.connection:
                self.client_lost(peer)

    def turn(self) -> None:
        self.bed.turn()
        self.deliver()

    def deliver(self) -> None:
        by_number = {peer.connection: peer for peer in self.peers if peer.connection}
        sends = [Send(number, message) for number, message in self.bed.sent]
        self.bed.sent.clear()
        for lookup in self.bed.waiting(Lookup):
            self.bed.pending.remove(lookup)
            sends += self.looked_up(lookup)
        for send in sends:
            if (peer := by_number.get(send.connection)) is not None:
                peer.down.append(send.message)
        for close in self.bed.waiting(CloseConnection):
            self.bed.pending.remove(close)
            if (peer := by_number.get(close.connection)) is not None:
                self.bed.loop.disconnected(close.connection)
                self.client_lost(peer)

    def looked_up(self, lookup: Lookup) -> list[Send]:
        assert isinstance(lookup.query, list)
        records = {record.id: record for record in self.records()}
        return archive_answer(lookup, [records[job_id] for job_id in lookup.query if job_id in records])

    def disk(self) -> None:
        """One step of the store, the oldest that can be done."""
        for kind, step in (
            (Create, self.bed.create),
            (Swap, self.bed.land),
            (Load, self.bed.load),
            (Delete, self.bed.delete),
        ):
            if self.bed.waiting(kind):
                step()
                self.deliver()
                return

    # ------------------------------------------------------------------------------------------------------ in the end

    def calm(self) -> None:
        """All is well again, for as long as it takes until nothing is left to be said."""
        for _ in range(400):
            for who, peer in enumerate(self.peers):
                if peer.session.stale:
                    self.lose_connection(who)
                self.connect(who)
                self.broker_reads(who, 1000)
            while self.bed.pending:
                self.disk()
            for who in range(len(self.peers)):
                self.client_reads(who, 1000)
            self.wait(LINGER_MS if self.unanswered else 1000)
            if self.is_at_rest():
                break

    def is_at_rest(self) -> bool:
        quiet = not self.bed.pending and not any(peer.up or peer.down or peer.session.busy for peer in self.peers)
        return quiet and self.unanswered == 0

    def nothing_hangs(self) -> None:
        assert self.unanswered == 0, "an operation is never answered"
        assert [peer.open_calls for peer in self.peers] == [0] * len(self.peers), "a claim is never answered"

    def everything_happened_once(self) -> None:
        state = self.bed.loop.machine.state
        assert sorted(self.pushed) == [*range(1, state.frame.next_id)]
        assert max(self.completed.values(), default=0) <= 1, "completed twice"
        assert max(self.cancelled.values(), default=0) <= 1, "cancelled twice"
        records = Counter(record.id for record in self.records())
        assert max(records.values(), default=0) <= 1, "two records"
        by_state = {state: {r.id for r in self.records() if r.state == state} for state in ("succeeded", "cancelled")}
        assert by_state == {"succeeded": self.completed.keys(), "cancelled": self.cancelled.keys()}
        live = sum(count.ready + count.delayed + count.leased + count.dead for _, count in state.counts.items())
        assert live == len(self.pushed) - len(records)
        ended = (self.completed.keys() | self.cancelled.keys()) & self.watched
        assert {job_id for job_id in ended if self.ended[job_id] != 1} == set(), "an awaited end is told once"
        leased = [lease for lease in state.leases.all() if lease.standing]
        assert sum(lease.runs.slots for lease in leased) == len(self.worker.jobs), "the worker has what its lease holds"

    def records(self) -> list[JobRecord]:
        frame = self.bed.loop.landed_frame
        names = {key: parse(key) for key in self.bed.store}
        real = [key for key, name in names.items() if name is not None and name.hour and is_real(name, frame)]
        lines = [line for key in real for line in self.bed.store[key].splitlines()]
        return [codec.decode_record(line) for line in lines] + list(self.bed.loop.machine.finished_records())


@pytest.mark.parametrize("seed", range(int(os.environ.get("OSQUEUE_SEEDS", "100"))))
def test_whatever_is_lost_everything_is_answered_and_happens_once(seed: int) -> None:
    conversation = Conversation(seed)

    conversation.storm()
    conversation.calm()

    conversation.nothing_hangs()
    conversation.everything_happened_once()
