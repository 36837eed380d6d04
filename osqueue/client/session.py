"""One client's session with a queue, over whatever connections come and go.

    connected ─▶ Hello ─▶ Welcome ─▶ unanswered operations again, in order ─▶ open calls again ─▶ new ones

Rules:
* A session is a random id and a birth, told by its first `Welcome`; it outlives connections and brokers.
* Operations are numbered and said again (`osqueue.client.operations`); calls are asked again
  (`osqueue.client.calls`); jobs whose end is awaited are named in every hello (`osqueue.client.watch`).
* Sans-I/O: messages in, messages out through `outbox`; called from one thread; ``now_ms`` is the boot clock.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from osqueue.client.calls import Call, Calls, OnResponse, Response
from osqueue.client.operations import Operations
from osqueue.client.watch import Watch
from osqueue.core.messages import (
    MAX_OUTCOMES,
    Answer,
    AnswerBody,
    Ask,
    Beaten,
    Cancelled,
    Changed,
    Claim,
    Finished,
    FromBroker,
    Goodbye,
    Granted,
    Heartbeat,
    Hello,
    Holder,
    Lost,
    Missing,
    Numbered,
    Outcome,
    Progress,
    Refused,
    Reply,
    Report,
    Reported,
    SayAgain,
    ToBroker,
    Welcome,
)
from osqueue.errors import OsqueueError, Rejected, Unavailable

SESSION_LOST = "session_lost"
_MANY_RUNS = 8


class Keeper(Protocol):
    """Whoever holds the session's standing lease: a supervisor."""

    def held(self) -> list[tuple[int, int]]:
        """Id and attempt of each job that it still has."""

    def welcomed(self, lease: int) -> None:
        """A connection stands; what was claimed before is forgotten, ``lease`` goes on (0: none yet)."""

    def granted(self, message: Granted) -> None:
        """Jobs for the standing lease."""

    def cancelled(self, ids: list[int]) -> None:
        """These jobs are to be stopped."""

    def lost(self, ids: list[int]) -> None:
        """These jobs are no longer held."""


class Session:
    """See the module. Not thread-safe.

    Args:
        new_id: makes the session's random id, and another if the broker forgets the session.
        holder: the process that the standing lease ends with; None for a session that has no such lease.
        keeper: who holds that lease.
    """

    def __init__(
        self, new_id: Callable[[], str], *, holder: Holder | None = None, keeper: Keeper | None = None
    ) -> None:
        self._new_id = new_id
        self._id = new_id()
        self._birth = 0
        self._holder = holder
        self._keeper = keeper
        self._offset_ms: int | None = None
        self._lost_ms: int | None = 0
        self.operations = Operations()
        self.calls = Calls()
        self.watch = Watch()
        self.open = False
        """Whether a connection stands and has been welcomed."""
        self.stale = False
        """Whether the connection is another session's by now, and must be replaced: a connection says hello once."""
        self.max_payload_bytes = 0
        """The queue's limit; 0 while unknown."""
        self.bounded: bool | None = None
        """Whether the queue has a ``max_queued``; None while unknown."""
        self.epoch = 0
        self.term_ms = 0
        """How long a lease lasts without a heartbeat; 0 while unknown."""
        self._claimed: dict[int, set[int]] = {}
        """Ids of jobs that are still open, by the lease of the claim that brought them."""
        self._leaving = False
        self._left = False
        """Whether goodbye was said on this connection."""
        self._goodbye_said = False
        """Whether it was said on any."""
        self._outbox: list[ToBroker] = []

    @property
    def busy(self) -> bool:
        """Whether time matters: something has not been answered, or not been acknowledged."""
        return bool(len(self.operations) or len(self.calls) or (self.open and self.operations.owes_thanks))

    def now_ms(self, boot_ms: int) -> int | None:
        """The broker's time; None before the first welcome."""
        return None if self._offset_ms is None else boot_ms + self._offset_ms

    # -------------------------------------------------------------------------------------------------------- events in

    def connected(self) -> None:
        """A new connection stands: say hello."""
        held = self._keeper.held() if self._keeper is not None else []
        self.stale = False
        self._left = False
        self._outbox = [Hello(self._id, self._birth, self._holder, held, self.watch.runs(), [*self._claimed])]

    def disconnected(self, now_ms: int) -> None:
        """The connection has ended."""
        self.open = False
        self._lost_ms = now_ms
        self._outbox.clear()
        self.calls.disconnected()

    def received(self, message: FromBroker, now_ms: int) -> None:
        """Take one message in."""
        match message:
            case Welcome():
                self._welcomed(message, now_ms)
            case Answer():
                self._answered(message, now_ms)
            case SayAgain():
                self._outbox += self.operations.repeat(message.number)
            case Granted():
                self._granted(message, now_ms)
            case Beaten() | Reply():
                self.calls.answered(message)
            case Finished():
                self.watch.finished(message.jobs)
            case Missing():
                self.watch.missing(message.ids, message.why)
            case Cancelled() | Lost():
                self._stop(message)

    def claim_standing(self, tasks: list[str], jobs: int, worker: str) -> None:
        """Ask for jobs into the standing lease; dropped while there is no connection, since a new one begins anew."""
        if self.open:
            self._outbox.append(Claim(self.calls.ticket(), tasks, jobs, standing=True, worker=worker))

    def heartbeat(
        self, lease: int, running: list[int], on_response: OnResponse, now_ms: int, *, progress: Sequence[Progress] = ()
    ) -> Call:
        """Extend a lease; jobs that are lost are not claimed any more."""

        def answered(response: Response | OsqueueError) -> None:
            if isinstance(response, Beaten) and not response.held:
                self._no_longer_open(lease, running)
            on_response(response)

        return self.calls.heartbeat(lease, running, answered, now_ms, progress=progress)

    def time_passed(self, now_ms: int) -> None:
        """Tell what has waited too long; acknowledge what came last, if nothing followed."""
        if self.open and not self._leaving:
            self._outbox += self.operations.thanks()
        self.operations.expire(now_ms)
        self.calls.expire(now_ms, None if self.open else self._lost_ms)

    def leave(self) -> None:
        """End the session: after what has been said the broker is told goodbye, and nothing numbered follows."""
        self._leaving = True

    def fail(self, error: OsqueueError) -> None:
        """There will never be another connection."""
        self.operations.fail(error)
        self.calls.fail(error)

    # ----------------------------------------------------------------------------------------------------- messages out

    def outbox(self, now_ms: int) -> list[ToBroker]:
        """What is to be sent now, in order; empties it."""
        if self.open:
            if not self._leaving:
                self._outbox += self.operations.to_send()
            elif not self._left:
                self._left = self._goodbye_said = True
                self._outbox.append(Goodbye())
            self._outbox += self.calls.to_send(now_ms)
        outbox, self._outbox = self._outbox, []
        return outbox

    def unsayable(self, message: ToBroker, error: Exception) -> list[ToBroker]:
        """A message from `outbox` cannot be put into bytes: its caller is told; what to send in its place."""
        reason = Rejected(f"an argument cannot be sent: {error}")
        if isinstance(message, Numbered):
            return [*self.operations.unsayable(message.number, reason)]
        if not isinstance(message, Ask | Claim | Heartbeat):
            raise reason
        self.calls.unsayable(message.ticket, reason)
        return []

    # ---------------------------------------------------------------------------------------------------------- private

    def _welcomed(self, welcome: Welcome, now_ms: int) -> None:
        if self._birth == 0:
            self._birth = welcome.birth
        self._offset_ms = welcome.now_ms - now_ms
        self.max_payload_bytes = welcome.max_payload
        self.bounded = welcome.bounded
        self.epoch = welcome.epoch
        self.term_ms = welcome.term_ms
        self.open = True
        self._lost_ms = None
        if self._goodbye_said:
            # It may have been heard, and the session with it be gone: nothing is said again to another one.
            self.operations.fail(Unavailable("the connection was closed before the broker had answered"))
        else:
            self._outbox += self.operations.repeat()
        if self._keeper is not None:
            self._keeper.welcomed(welcome.lease)

    def _granted(self, message: Granted, now_ms: int) -> None:
        if self.calls.answered(message):
            if message.jobs:
                self._claimed[message.lease] = {job.id for job in message.jobs}
            return
        if self._keeper is not None:
            self._keeper.granted(message)
        elif message.jobs:
            # Whoever had asked waits no longer.
            returned = [Outcome(job.id, job.attempt, "returned") for job in message.jobs]
            for at in range(0, len(returned), MAX_OUTCOMES):
                report = Report(message.lease, returned[at : at + MAX_OUTCOMES])
                self.operations.submit(report, lambda _: None, now_ms, expires=False)

    def _stop(self, message: Cancelled | Lost) -> None:
        if self._keeper is None:
            return
        if isinstance(message, Cancelled):
            self._keeper.cancelled(message.ids)
            return
        self._keeper.lost(message.ids)

    def _answered(self, answer: Answer, now_ms: int) -> None:
        if isinstance(answer.body, Refused) and answer.body.code == SESSION_LOST:
            self._renew()
            return
        pending = self.operations.answered(answer, now_ms)
        if _is_large(answer.body) and not self._leaving:
            self._outbox += self.operations.thanks()
        if pending is not None and isinstance(pending.operation, Report):
            report = pending.operation
            self._no_longer_open(report.lease, [outcome.id for outcome in report.outcomes])

    def _no_longer_open(self, lease: int, ids: Iterable[int]) -> None:
        if (open_jobs := self._claimed.get(lease)) is not None:
            open_jobs.difference_update(ids)
            if not open_jobs:
                del self._claimed[lease]

    def _renew(self) -> None:
        if self.stale:
            return
        self.operations.renew()
        self._id = self._new_id()
        self._birth = 0
        self._claimed.clear()
        self.open = False
        self.stale = True


def _is_large(body: AnswerBody) -> bool:
    """Whether the broker should not have to keep the answer for long."""
    runs = body.ids if isinstance(body, Changed) else body.lost if isinstance(body, Reported) else []
    return len(runs) > _MANY_RUNS
