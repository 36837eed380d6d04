"""Jobs that somebody holds a future of: gathered into pushes, watched, settled.

    submit ─▶ unsent ──a push carries many──▶ being pushed ──Pushed──▶ watched ──Finished──▶ settled

                 ▲                     │
                 └── parked for room ◀─┴─ did not fit ─▶ QueueFull

Rules:
* What one turn of the loop submits with equal options leaves in one push; while several pushes are unanswered the
  next one gathers.
* What ``max_queued`` leaves no room for is parked, in order, if it is of `map`, and offered again when there is room;
  that of `submit` is refused, once what has begun is known to the broker and it was offered again.
* A future's callbacks run in the results thread, never in the loop's.
"""

from __future__ import annotations

import asyncio
import copy
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from typing import Any, Literal

from msgspec import Struct

from osqueue.client.calls import Response
from osqueue.client.client import push_operation
from osqueue.client.connection import Connection
from osqueue.client.refusal import to_error
from osqueue.client.runs import from_runs
from osqueue.core.messages import AnswerBody, JobRecord, Pushed, Refused, Reply, WaitRoom
from osqueue.core.settings import MIB
from osqueue.errors import OsqueueError, QueueFull
from osqueue.pool.future import JobFuture
from osqueue.pool.results_thread import ResultsThread
from osqueue.reactor import LoopThread
from osqueue.settings import PushOptions
from osqueue.values import Values

PUSH_JOBS = 10_000
PUSH_BYTES = MIB
IN_FLIGHT = 4
_LEAST_WIDTH = 16
_FULL = "as many jobs as may wait are waiting; submit again when some have begun, or use map, which waits"


class Submission(Struct, eq=False):
    """A job with a future, until it is pushed."""

    options: PushOptions
    payload: bytes
    future: JobFuture[Any]
    results: Values[Any]
    waits: bool = False
    """Whether it waits where a bound leaves no room."""
    number: int = 0


Offer = Literal["new", "last", "parked"]
"""Whether what does not fit is offered again (for map: when there is room), or is not, or was parked before."""
Ended = tuple[JobFuture[Any], JobRecord | Exception, Values[Any]]


class Submitter:
    """See the module. `submit` is for any thread, the rest for the loop's.

    Args:
        reactor, connection: where it pushes.
        results: where futures are settled.
        tell_begun: has the broker know which jobs have begun.
        when_parked: told when submissions begin to wait for room.
    """

    def __init__(
        self,
        reactor: LoopThread,
        connection: Connection,
        results: ResultsThread,
        *,
        tell_begun: Callable[[], Awaitable[object]],
        when_parked: Callable[[], None],
    ) -> None:
        self._reactor = reactor
        self._tell_begun = tell_begun
        self._when_parked = when_parked
        self._connection = connection
        self._results = results
        self._unsent: deque[Submission] = deque()
        self._parked: deque[Submission] = deque()
        self._unparking = False
        """Whether there is room being waited for, or a push of parked ones in flight."""
        self._width = _LEAST_WIDTH
        """How many of the parked ones to offer at once."""
        self._last_number = 0
        self._trying: set[asyncio.Task[None]] = set()
        self._pushing: dict[JobFuture[Any], Submission] = {}
        self._futures: dict[JobFuture[Any], int] = {}
        self._ended: list[Ended] = []
        self._in_flight = 0
        self._flushing = False
        self._changed: asyncio.Event = asyncio.Event()
        self._error: Exception | None = None

    def submit(self, submission: Submission) -> None:
        """Push a job; its future tells the rest."""
        self._reactor.call(self._add, submission)

    async def pushed(self) -> None:
        """Wait until what has been submitted so far is pushed, or refused."""
        waiting = {one.future for one in (*self._unsent, *self._parked)} | set(self._pushing)
        await self._gone(waiting)

    def withdraw(self, futures: Iterable[JobFuture[Any]]) -> list[JobFuture[Any]]:
        """Take back those that have not been sent; which they were."""
        wanted = set(futures)
        withdrawn = [one.future for one in (*self._unsent, *self._parked) if one.future in wanted]
        self._unsent = deque(one for one in self._unsent if one.future not in wanted)
        self._parked = deque(one for one in self._parked if one.future not in wanted)
        self._changed.set()
        return withdrawn

    async def ids(self, futures: Iterable[JobFuture[Any]]) -> dict[int, list[JobFuture[Any]]]:
        """The ids of futures whose jobs have been sent, once they are pushed, without those that were refused."""
        wanted = list(futures)
        await self._gone({future for future in wanted if future in self._pushing})
        by_id: dict[int, list[JobFuture[Any]]] = {}
        for future in wanted:
            if future.job_id is not None:
                by_id.setdefault(future.job_id, []).append(future)
        return by_id

    def open_futures(self) -> list[JobFuture[Any]]:
        """Those whose job has not ended."""
        unpushed = (one.future for one in (*self._unsent, *self._parked))
        return [*unpushed, *self._pushing, *self._futures]

    @property
    def is_parked(self) -> bool:
        """Whether submissions wait for room."""
        return bool(self._parked)

    def unpark(self, error: Exception) -> None:
        """Nobody waits for room any more: the futures of those that do get the error."""
        parked = [one.future for one in self._parked]
        self._parked.clear()
        self._tell(parked, error)
        self._changed.set()

    def fail(self, error: Exception) -> None:
        """No job's end will be known any more."""
        self._error = error
        futures = self.open_futures()
        self._unsent.clear()
        self._parked.clear()
        self._pushing.clear()
        self._futures.clear()
        self._tell(futures, error)
        self._changed.set()

    # ---------------------------------------------------------------------------------------------------------- private

    def _add(self, submission: Submission) -> None:
        if self._error is not None:
            self._tell([submission.future], self._error)
            return
        self._last_number += 1
        submission.number = self._last_number
        if submission.waits and self._unparking:
            self._parked.append(submission)
            return
        self._unsent.append(submission)
        if not self._flushing:
            self._flushing = True
            self._reactor.loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flushing = False
        while self._unsent and self._in_flight < IN_FLIGHT:
            self._push(_batch(self._unsent, PUSH_JOBS), "new")

    def _push(self, batch: list[Submission], offer: Offer) -> None:
        self._in_flight += 1
        self._pushing.update((one.future, one) for one in batch)
        operation = push_operation([one.payload for one in batch], batch[0].options, watch=True, fitting=True)
        self._connection.submit(operation, lambda body: self._answered(batch, body, offer), expires=False)

    def _answered(self, batch: list[Submission], body: AnswerBody | OsqueueError, offer: Offer) -> None:
        self._in_flight -= 1
        for one in batch:
            self._pushing.pop(one.future, None)
        rest: list[Submission] = []
        if isinstance(body, Pushed):
            ids = list(from_runs(body.ids))
            rest = batch[len(ids) :]
            for job_id, one in zip(ids, batch, strict=False):
                self._watch(job_id, one)
        else:
            error = to_error(body) if isinstance(body, Refused) else body
            assert isinstance(error, Exception), "a push is answered by ids or refused"
            self._tell([one.future for one in batch], error)
        if rest:
            self._not_fitted(rest, len(batch) - len(rest), offer)
        elif offer == "parked":
            self._width = min(2 * self._width, PUSH_JOBS)
            self._offer_parked()
        self._changed.set()
        self._flush()

    # ------------------------------------------------------------------------------------------------ what does not fit

    def _not_fitted(self, rest: list[Submission], fitted: int, offer: Offer) -> None:
        if self._error is not None:
            self._tell([one.future for one in rest], self._error)
        elif rest[0].waits:
            self._park(rest, fitted, offer)
        elif offer == "last":
            self._tell([one.future for one in rest], QueueFull(_FULL))
        else:
            self._pushing.update((one.future, one) for one in rest)
            task = self._reactor.loop.create_task(self._offer_again(rest))
            self._trying.add(task)
            task.add_done_callback(self._trying.discard)

    async def _offer_again(self, rest: list[Submission]) -> None:
        await self._tell_begun()
        if self._error is None:  # else they have been told
            self._push(rest, "last")

    def _park(self, rest: list[Submission], fitted: int, offer: Offer) -> None:
        """Have these wait for room, in the order in which they were submitted, whichever push they were in."""
        self._parked = deque(sorted((*rest, *self._parked), key=lambda one: one.number))
        self._width = min(max(_LEAST_WIDTH, 2 * fitted), PUSH_JOBS)
        if not self._unparking or offer == "parked":
            self._unparking = True
            self._when_parked()
            self._connection.ask(WaitRoom(), self._room, wait_ms=None)

    def _room(self, response: Response | OsqueueError) -> None:
        if isinstance(response, OsqueueError):
            self.unpark(response)
        elif isinstance(response, Reply) and isinstance(response.body, Refused):
            self.unpark(to_error(response.body))
        self._offer_parked()

    def _offer_parked(self) -> None:
        self._unparking = bool(self._parked)
        if self._parked:
            self._push(_batch(self._parked, self._width), "parked")

    def _watch(self, job_id: int, one: Submission) -> None:
        future, values = one.future, one.results
        future.job_id = job_id
        self._futures[future] = job_id

        def ended(end: JobRecord | Exception) -> None:
            self._futures.pop(future, None)
            if not self._ended:
                self._reactor.loop.call_soon(self._settle)
            self._ended.append((future, end, values))

        self._connection.session.watch.add(job_id, ended)

    def _settle(self) -> None:
        """Hand over what one turn of the loop has brought: one wake-up of the results thread for many jobs."""
        ended, self._ended = self._ended, []
        self._results.call_each([partial(future.settle, end, values) for future, end, values in ended])

    def _tell(self, futures: list[JobFuture[Any]], error: Exception) -> None:
        for future in futures:
            # Each gets its own, since raising an error adds a traceback to it.
            self._results.call(partial(future.settle_error, copy.copy(error)))

    async def _gone(self, futures: set[JobFuture[Any]]) -> None:
        while any(future in self._pushing for future in futures) or any(
            one.future in futures for one in (*self._unsent, *self._parked)
        ):
            self._changed.clear()
            await self._changed.wait()


def _batch(waiting: deque[Submission], most: int) -> list[Submission]:
    """Take out the next submissions that one push can carry."""
    first = waiting[0]
    most = 1 if first.options.key else most  # a key is for one job
    batch: list[Submission] = []
    size = 0
    while waiting and len(batch) < most and waiting[0].options == first.options and waiting[0].waits == first.waits:
        size += len(waiting[0].payload)
        if batch and size > PUSH_BYTES:
            break
        batch.append(waiting.popleft())
    return batch
