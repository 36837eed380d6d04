"""The queue as a pure machine: messages of sessions go in, messages to sessions and commits come out.

    push ─────────────────────▶ ready ──claim──▶ running ──report──▶ succeeded ─▶ archive
    push(delay) ─▶ delayed ─due─▶ ▲                │  │
                      ▲           └─ lease ends ───┘  │
                      └────────── failed attempt ─────┤
                                                      └─ no attempts left ─▶ dead ──requeue──▶ ready
    delayed, ready, running ──cancel──▶ cancelled ─▶ archive        dead ──discard──▶ archive (as dead)

Rules:
* No I/O, no clock, no randomness: time, nonces and loaded objects are arguments.
* Applied means in memory; nothing in ``outbox`` may leave before the commit that holds it has landed.
* A refusal changes nothing but its session's line.
* What needs an object that is not in memory raises `NeedsObjectsError` and is offered again: it has changed no job and
  has no answer. What may stand already does no harm if nothing follows: answers that the client has are forgotten, its
  session is known and idle ones have made room for it, a heartbeat's lease has its new term.
* Everything durable is in the root; whatever else is kept here can be rebuilt from it.
"""

from __future__ import annotations

from collections.abc import Iterable

from osqueue.core.claims import Claims
from osqueue.core.commit import Commit, CommitPlanner
from osqueue.core.ending import Attempt, LeaseEndings
from osqueue.core.messages import (
    Ask,
    Claim,
    FromBroker,
    Heartbeat,
    Hello,
    JobRecord,
    Numbered,
    Reply,
    WaitIdle,
    WaitRoom,
)
from osqueue.core.model import Root
from osqueue.core.numbered import NumberedOperations
from osqueue.core.object_cache import ObjectCache
from osqueue.core.objects import log_of_takeovers
from osqueue.core.operations import Operations
from osqueue.core.queries import Queries
from osqueue.core.questions import ParkedQuestions
from osqueue.core.settings import QueueSettings
from osqueue.core.state import QueueState
from osqueue.core.watching import Watching

LATE_TICK = 0.5
"""Parts of a term: after a longer silence of the broker itself, leases get a full term again."""


class QueueMachine:
    """One queue. Not thread-safe; owned by the commit loop.

    Args:
        root: where it stands.
        settings: what the opener states.
        now_ms: the time of opening.
        seed: makes the dice of the retry jitter.

    Attributes:
        state: the queue's parts.
        objects: what is to be read for it, and what came of that.
    """

    def __init__(self, root: Root, settings: QueueSettings, *, now_ms: int, seed: str = "") -> None:
        self.state = QueueState(root, settings, now_ms=now_ms)
        self.objects = ObjectCache(self.state)
        self._term_ms = round(settings.lease_s * 1000)
        self._watching = Watching(self.state)
        self._numbered = NumberedOperations(self.state, Operations(self.state, seed), self._watching)
        self._endings = LeaseEndings(self.state, seed)
        self._claims = Claims(self.state, self._endings)
        self._queries = Queries(self.state)
        self._planner = CommitPlanner(self.state)
        self._parked_questions = ParkedQuestions(self.state, self._queries)
        self._last_tick_ms = now_ms
        self._planned: dict[int, tuple[int, set[int]]] = {}
        """Of commits that have not landed, by version: when they were planned, and the leases that they grant."""

    # ------------------------------------------------------------------------------------------------------- takeover

    def take_over(self, owner: str, *, now_ms: int, nonce: str) -> Commit:
        """Begin a new epoch: the first commit of a broker. It creates no objects."""
        frame = self.state.frame
        frame.epoch += 1
        frame.owner = owner
        frame.takeovers = log_of_takeovers(frame, owner)
        self._wake(now_ms)
        return self._planner.plan(now_ms=now_ms, nonce=nonce, creates=False)

    def swept(self, epoch: int) -> None:
        """A sweep of an epoch has run to its end."""
        self.state.frame.swept = max(self.state.frame.swept, epoch)

    def deleted(self, keys: Iterable[str]) -> None:
        """Objects of the trash are gone for certain; the next commit says so."""
        gone = set(keys)
        self.state.frame.trash = [key for key in self.state.frame.trash if key not in gone]

    # --------------------------------------------------------------------------------------------------- connections

    def hello(self, hello: Hello, now_ms: int) -> list[int]:
        """A session's connection begins; returns the watched ids that only the archive may know."""
        watched = self._watching.look_at(hello.watched)
        self._claims.hello(hello, now_ms)
        self._forget_questions(hello.session)
        self.state.sessions.connected(hello.session)
        return self._watching.begin(hello.session, watched)

    def disconnected(self, session: str) -> None:
        """A session's connection has ended; it may come back."""
        self._claims.disconnected(session)
        self._forget_questions(session)
        self.state.sessions.disconnected(session)

    def _forget_questions(self, session: str) -> None:
        """What it waited for went with its connection."""
        self._queries.forget(session)
        self._parked_questions.disconnected(session)
        self.state.watchers.disconnected(session)

    def goodbye(self, session: str, now_ms: int) -> None:
        """A session has ended for good."""
        self._claims.goodbye(session, now_ms)
        self.disconnected(session)
        self.state.sessions.close(session)
        self.state.changed = True

    # ------------------------------------------------------------------------------------------------------ messages

    def numbered(self, session: str, birth: int, message: Numbered, now_ms: int) -> list[int]:
        """Apply an operation, or say its answer again; see `NumberedOperations.apply`."""
        return self._numbered.apply(session, birth, message, now_ms)

    def acknowledge(self, session_id: str, acked: int) -> None:
        """A client has its answers up to there: they need not be kept, whatever waits to be applied."""
        if (session := self.state.sessions.get(session_id)) is not None:
            session.acknowledge(acked)

    def claim(self, session: str, birth: int, claim: Claim, now_ms: int) -> None:
        """Park a claim; `settle` grants it."""
        self._claims.claim(session, birth, claim, now_ms)

    def heartbeat(self, session: str, beat: Heartbeat, now_ms: int) -> None:
        """Extend a lease."""
        self._claims.heartbeat(session, beat, now_ms)

    def ask(self, session: str, ask: Ask, now_ms: int) -> None:
        """Answer a query, or park it until it can be.

        Raises:
            NeedsObjectsError: segments must be in memory first.
            Elsewhere: the archive must be read.
        """
        if isinstance(ask.query, WaitIdle | WaitRoom):
            self._parked_questions.park(session, ask.ticket, ask.query)
            return
        self.state.outbox.append((session, Reply(ask.ticket, self._queries.answer(session, ask.query, now_ms))))

    def finished_records(self) -> list[JobRecord]:
        """The finished jobs that no archive object holds yet."""
        return list(self.state.finished.records())

    def treat_as_remote(self, number: int, now_ms: int) -> None:
        """Nobody here can tell whether a lease's holder lives, so it has a term like any other."""
        if (lease := self.state.leases.get(number)) is not None:
            self.state.leases.treat_as_remote(lease, now_ms)

    def end_lease(self, number: int, charged: Iterable[Attempt] | None, now_ms: int, *, marks: bool) -> None:
        """A lease's holder is gone.

        Args:
            number: the lease.
            charged: ids and attempts that are known to have run; None for all.
            now_ms: the time.
            marks: nothing is known of what ran.

        Raises:
            NeedsObjectsError: segments must be in memory first.
        """
        lease = self.state.leases.get(number)
        if lease is not None:
            self._endings.end(lease, charged, now_ms, marks=marks)

    def prune(self, keys: Iterable[str], jobs: int) -> None:
        """Objects of the archive go, with the records of so many jobs; they are deleted once that has landed."""
        self.state.backlog.trash.extend(keys)
        self.state.forgo_records(jobs)

    # ---------------------------------------------------------------------------------------------------------- time

    def settle(self, now_ms: int) -> None:
        """After a batch, or when time has passed: wake what is due, end what is over, grant what can be granted."""
        state = self.state
        if self._is_late(self._last_tick_ms, now_ms) or any(
            self._is_late(at_ms, now_ms) for at_ms in self._in_flight()
        ):
            # Nobody could have heard, or been heard: silence says nothing of the holders.
            state.leases.extend_all(now_ms)
        self._last_tick_ms = now_ms
        self._wake(now_ms)
        self._endings.expire(now_ms)
        self._claims.grant(now_ms)
        state.outbox.extend(state.watchers.take_notices())
        self._parked_questions.settle(now_ms)

    def _is_late(self, since_ms: int, now_ms: int) -> bool:
        return now_ms - since_ms > self._term_ms * LATE_TICK

    def _in_flight(self) -> Iterable[int]:
        """When the commits were planned that have not landed."""
        return (at_ms for at_ms, _ in self._planned.values())

    def _wake(self, now_ms: int) -> None:
        """What is due by the time that the root will state must be ready in it."""
        state = self.state
        for task, count in state.backlog.wake(now_ms):
            state.counts.move(task, "delayed", "ready", count)
        state.wanted |= state.backlog.deferred.take_needed()
        if state.backlog.deferred.take_splits():
            state.changed = True

    def next_alarm_ms(self) -> int | None:
        """When `settle` must be called next, if nothing else happens."""
        deadline = self.state.leases.next_deadline_ms()
        if deadline is not None or self.state.leases.needs():
            # Between now and then there must be ticks, or the one that should end the lease looks like a late one.
            tick = self._last_tick_ms + round(self._term_ms * LATE_TICK / 2)
            deadline = tick if deadline is None else min(deadline, tick)
        alarms = (
            self.state.backlog.deferred.next_ms(),
            deadline,
            self._claims.next_deadline_ms(),
        )
        return min((alarm for alarm in alarms if alarm is not None), default=None)

    # ------------------------------------------------------------------------------------------------------- commits

    @property
    def changed(self) -> bool:
        """Whether there is anything to commit."""
        return self.state.changed or self.state.sessions.changed

    @property
    def weight_bytes(self) -> int:
        """How much the next commit would write into objects, roughly."""
        return sum(self.state.backlog.inline.size_bytes.values()) + self.state.finished.size

    def plan(self, *, now_ms: int, nonce: str) -> Commit:
        """Everything applied and settled so far, as one commit."""
        self._wake(now_ms)
        return self._note(self._planner.plan(now_ms=now_ms, nonce=nonce), now_ms)

    def _note(self, commit: Commit, now_ms: int) -> Commit:
        self._planned[commit.version] = (now_ms, self.state.leases.take_granted())
        return commit

    def close(self, *, now_ms: int, nonce: str) -> Commit:
        """The last commit of a broker: the archive is sealed, the queue has no owner."""
        self.state.frame.owner = None
        self._wake(now_ms)
        return self._note(self._planner.plan(now_ms=now_ms, nonce=nonce, closing=True), now_ms)

    def landed(self, commit: Commit, now_ms: int) -> None:
        """A commit is durable: its objects can be read again, the terms of its leases begin.

        Args:
            commit: the one that landed.
            now_ms: the time.
        """
        self.objects.landed(commit.objects)
        planned_ms, granted = self._planned.pop(commit.version, (now_ms, set()))
        if self._is_late(planned_ms, now_ms):
            self.state.leases.extend_all(now_ms)
        self.state.leases.landed(granted, now_ms)

    def take_outbox(self) -> list[tuple[str, FromBroker]]:
        """What is to leave once the present batch has landed."""
        outbox, self.state.outbox = self.state.outbox, []
        return outbox
