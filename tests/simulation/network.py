"""Real sessions and a real commit loop; between them connections, a store and a clock that a seed decides on."""

from __future__ import annotations

import itertools
from collections import Counter, deque
from collections.abc import Callable
from random import Random

from osqueue.broker.effects import CloseConnection, Create, Delete, Load, Lookup, Send, Swap
from osqueue.broker.lookup import look_up
from osqueue.client.runs import from_runs
from osqueue.client.session import Keeper, Session
from osqueue.core import codec
from osqueue.core.messages import (
    AnswerBody,
    Cancel,
    Changed,
    Discard,
    FromBroker,
    Holder,
    JobRecord,
    Missing,
    Operation,
    Push,
    Pushed,
    Requeue,
    ToBroker,
)
from osqueue.core.objects import is_real, parse
from osqueue.errors import OsqueueError
from tests.broker.bed import Bed

CLIENTS = 3
KEYS = ["", "", *(f"key-{number}" for number in range(9))]
LINGER_MS = 25
Step = Callable[[], None]


class Peer:
    """A client, with its connection as two queues of messages."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.connection = 0
        self.up: deque[ToBroker] = deque()
        self.down: deque[FromBroker] = deque()


class Network:
    """Three clients, and somebody who keeps a standing lease; one seed, one history.

    Messages are read one by one, or many; connections are cut between any two of them; the broker is killed between any
    two steps of a commit, and the next one has what had landed.
    """

    def __init__(self, seed: int, keeper: Keeper) -> None:
        self.random = Random(seed)
        self.crashes = self.random.choice([0, 0.002, 0.02])
        self.bed = Bed()
        self._connections = itertools.count(1)
        self._names = (f"s{n}" for n in itertools.count(1))
        self._pids = itertools.count(1)
        self.clients = [Peer(Session(self._names.__next__)) for _ in range(CLIENTS)]
        self.join(keeper)
        self.unanswered = 0
        self.pushed: list[int] = []
        self.followed = 0
        """Jobs that completed ones have left behind."""
        self.cancelled: Counter[int] = Counter()
        self.completed: Counter[int] = Counter()
        self.told: Counter[int] = Counter()
        self.watched: set[int] = set()

    def join(self, keeper: Keeper) -> None:
        """Another process keeps the standing lease from now on."""
        self.holder = Holder("boot", "namespace", next(self._pids), 1)
        self.keeper = Peer(Session(self._names.__next__, holder=self.holder, keeper=keeper))

    @property
    def peers(self) -> list[Peer]:
        return [*self.clients, self.keeper]

    @property
    def now_ms(self) -> int:
        return self.bed.now_ms

    def storm(self, what: list[tuple[int, Step]], steps: int) -> None:
        """Anything, in any order: steps with their weights."""
        weights, choices = [weight for weight, _ in what], [step for _, step in what]
        for _ in range(steps):
            self.random.choices(choices, weights)[0]()
            if self.random.random() < self.crashes:
                self.crash()

    def weather(self) -> list[tuple[int, Step]]:
        """What happens to connections, the store and the time."""
        pick = self.random.choice

        def anyone() -> Peer:
            return pick([*self.peers, self.keeper])

        return [
            (8, lambda: self.connect(anyone())),
            (2, lambda: self.lose_connection(anyone())),
            (20, lambda: self.broker_reads(anyone(), pick([1, 2, 1000]))),
            (20, lambda: self.client_reads(anyone(), pick([1, 2, 1000]))),
            (30, self.disk),
            (3, lambda: self.wait(pick([1, LINGER_MS, 2000]))),
        ]

    def calm(self, live: Step, at_rest: Callable[[], bool], rounds: int) -> None:
        """All is well again, for so many rounds or until nothing is left to be done."""
        for _ in range(rounds):
            for peer in self.peers:
                if peer.session.stale:
                    self.lose_connection(peer)
                self.connect(peer)
                self.broker_reads(peer, 1000)
            while self.bed.pending:
                self.disk()
            for peer in self.peers:
                self.client_reads(peer, 1000)
            live()
            quiet = not any(peer.up or peer.down or peer.session.busy for peer in self.peers)
            if quiet and not self.bed.pending and self.unanswered == 0 and at_rest():
                return

    # ------------------------------------------------------------------------------------------------- what clients do

    def client(self) -> Peer:
        return self.random.choice(self.clients)

    def operate(self, peer: Peer, operation: Operation, on_body: Callable[[AnswerBody], None]) -> None:
        self.unanswered += 1

        def answered(body: AnswerBody | OsqueueError) -> None:
            self.unanswered -= 1
            assert not isinstance(body, OsqueueError), body
            on_body(body)

        peer.session.operations.submit(operation, answered, self.now_ms, expires=False)

    def push(self, jobs: int) -> None:
        peer, watch = self.client(), self.random.choice([True, False])
        delay_s = self.random.choice([0, 0, 0, 0.05, 1.5])
        key = self.random.choice(KEYS) if jobs == 1 else ""

        def pushed(body: AnswerBody) -> None:
            assert isinstance(body, Pushed)
            ids = list(from_runs(body.ids))
            assert len(ids) == jobs
            self.pushed += [job_id for job_id in ids if not key or job_id not in self.pushed]
            if watch:
                self.watched.update(ids)
                for job_id in ids:
                    peer.session.watch.add(job_id, self._job_ended)

        self.operate(peer, Push([b'"%0200d"' % jobs] * jobs, delay_s=delay_s, key=key, watch=watch), pushed)

    def _job_ended(self, record: JobRecord) -> None:
        self.told[record.id] = 1

    def change(self, jobs: int) -> None:
        """Cancel, requeue or discard any jobs, in parts; what is left of one is said in another."""
        kind: type[Cancel | Requeue | Discard] = self.random.choice([Cancel, Cancel, Requeue, Discard])
        ids = self.random.sample(self.pushed, min(len(self.pushed), jobs))
        peer = self.client()

        def say(part: list[int]) -> None:
            def changed(body: AnswerBody) -> None:
                assert isinstance(body, Changed)
                if kind is Cancel:
                    self.cancelled.update(from_runs(body.ids))
                if body.left:
                    say(part[-body.left :])

            self.operate(peer, kind(part), changed)

        for at in range(0, len(ids), 200):
            say(ids[at : at + 200])

    # --------------------------------------------------------------------------------------------- what happens to them

    def connect(self, peer: Peer) -> None:
        if peer.connection == 0:
            peer.connection = next(self._connections)
            self.bed.loop.connected(peer.connection)
            peer.session.connected()

    def lose_connection(self, peer: Peer) -> None:
        if peer.connection:
            self.bed.loop.disconnected(peer.connection)
            self._lost(peer)

    def _lost(self, peer: Peer) -> None:
        peer.connection = 0
        peer.up.clear()
        peer.down.clear()
        peer.session.disconnected(self.now_ms)

    def broker_reads(self, peer: Peer, messages: int) -> None:
        if peer.connection:
            peer.up += peer.session.outbox(self.now_ms)
            for _ in range(min(messages, len(peer.up))):
                self.bed.loop.received(peer.connection, peer.up.popleft())
            self._turn()

    def client_reads(self, peer: Peer, messages: int) -> None:
        for _ in range(min(messages, len(peer.down))):
            peer.session.received(peer.down.popleft(), self.now_ms)

    def wait(self, ms: int) -> None:
        self.bed.now_ms += ms
        for peer in self.peers:
            peer.session.time_passed(self.now_ms)
        self._turn()

    def crash(self) -> None:
        """The broker is killed: what had landed stands, and so do objects that were made for nothing."""
        self.bed = Bed(self.bed.root, self.bed.store, now_ms=self.now_ms)
        for peer in self.peers:
            if peer.connection:
                self._lost(peer)

    def disk(self) -> None:
        """One step of the store: the first that can be done."""
        bed = self.bed
        for kind, step in ((Create, bed.create), (Swap, bed.land), (Load, bed.load), (Delete, bed.delete)):
            if bed.waiting(kind):
                step()
                self._deliver()
                return

    def _turn(self) -> None:
        self.bed.turn()
        self._deliver()

    def _deliver(self) -> None:
        by_number = {peer.connection: peer for peer in self.peers if peer.connection}
        sends = [Send(number, message) for number, message in self.bed.sent]
        self.bed.sent.clear()
        for lookup in self.bed.waiting(Lookup):
            self.bed.pending.remove(lookup)
            sends += self._looked_up(lookup)
        for send in sends:
            if (peer := by_number.get(send.connection)) is not None:
                peer.down.append(send.message)
        for close in self.bed.waiting(CloseConnection):
            self.bed.pending.remove(close)
            if (peer := by_number.get(close.connection)) is not None:
                self.lose_connection(peer)

    def _looked_up(self, lookup: Lookup) -> list[Send]:
        """What the archive itself answers; a simulated store loses nothing."""
        sends = look_up(self.bed.archive(), self.bed.loop.landed_frame, lookup)
        assert not [send for send in sends if isinstance(send.message, Missing)]
        return sends

    # --------------------------------------------------------------------------------------------------- what must hold

    def everything_was_answered_and_happened_once(self) -> None:
        assert self.unanswered == 0, "an operation is never answered"
        state = self.bed.loop.machine.state
        assert len(set(self.pushed)) == len(self.pushed)
        assert len(self.pushed) + self.followed == state.frame.next_id - 1
        assert max(self.completed.values(), default=0) <= 1, "completed twice"
        assert max(self.cancelled.values(), default=0) <= 1, "cancelled twice"
        records = Counter(record.id for record in self.records())
        assert max(records.values(), default=0) <= 1, "two records"
        by_state = {state: {r.id for r in self.records() if r.state == state} for state in ("succeeded", "cancelled")}
        assert by_state == {"succeeded": self.completed.keys(), "cancelled": self.cancelled.keys()}
        assert self.count("ready", "delayed", "leased", "dead") == state.frame.next_id - 1 - len(records)
        ended = (self.completed.keys() | self.cancelled.keys()) & self.watched
        assert {job_id for job_id in ended if self.told[job_id] != 1} == set(), "an awaited end is told once"

    def count(self, *states: str) -> int:
        counts = [count for _, count in self.bed.loop.machine.state.counts.items()]
        return sum(getattr(count, state) for count in counts for state in states)

    def records(self) -> list[JobRecord]:
        """The record of every job that is final."""
        frame = self.bed.loop.landed_frame
        names = {key: parse(key) for key in self.bed.store}
        real = [key for key, name in names.items() if name is not None and name.hour and is_real(name, frame)]
        lines = [line for key in real for line in self.bed.store[key].splitlines()]
        return [codec.decode_record(line) for line in lines] + list(self.bed.loop.machine.finished_records())
