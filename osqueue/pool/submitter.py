"""Jobs that somebody holds a future of: gathered into pushes, watched, settled.

    submit ─▶ unsent ──a push carries many──▶ being pushed ──Pushed──▶ watched ──Finished──▶ settled

Rules:
* What one turn of the loop submits with equal options leaves in one push; while several pushes are unanswered the
  next one gathers.
* A future's callbacks run in the results thread, never in the loop's.
"""

from __future__ import annotations

import asyncio
import copy
from collections import deque
from collections.abc import Iterable
from functools import partial
from typing import Any

from msgspec import Struct

from osqueue.client.client import push_operation
from osqueue.client.connection import Connection
from osqueue.client.refusal import to_error
from osqueue.client.runs import from_runs
from osqueue.core.messages import AnswerBody, JobRecord, Pushed, Refused
from osqueue.core.settings import MIB
from osqueue.errors import OsqueueError
from osqueue.pool.future import JobFuture
from osqueue.pool.results_thread import ResultsThread
from osqueue.reactor import LoopThread
from osqueue.settings import PushOptions
from osqueue.values import Values

PUSH_JOBS = 10_000
PUSH_BYTES = MIB
IN_FLIGHT = 4


class Submission(Struct, eq=False):
    """A job with a future, until it is pushed."""

    options: PushOptions
    payload: bytes
    future: JobFuture[Any]
    results: Values[Any]


Ended = tuple[JobFuture[Any], JobRecord | Exception, Values[Any]]


class Submitter:
    """See the module. `submit` is for any thread, the rest for the loop's."""

    def __init__(self, reactor: LoopThread, connection: Connection, results: ResultsThread) -> None:
        self._reactor = reactor
        self._connection = connection
        self._results = results
        self._unsent: deque[Submission] = deque()
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
        waiting = {one.future for one in self._unsent} | set(self._pushing)
        await self._gone(waiting)

    def withdraw(self, futures: Iterable[JobFuture[Any]]) -> list[JobFuture[Any]]:
        """Take back those that have not been sent; which they were."""
        wanted = set(futures)
        withdrawn = [one.future for one in self._unsent if one.future in wanted]
        self._unsent = deque(one for one in self._unsent if one.future not in wanted)
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
        return [*(one.future for one in self._unsent), *self._pushing, *self._futures]

    def fail(self, error: Exception) -> None:
        """No job's end will be known any more."""
        self._error = error
        futures = self.open_futures()
        self._unsent.clear()
        self._pushing.clear()
        self._futures.clear()
        self._tell(futures, error)
        self._changed.set()

    # ---------------------------------------------------------------------------------------------------------- private

    def _add(self, submission: Submission) -> None:
        if self._error is not None:
            self._tell([submission.future], self._error)
            return
        self._unsent.append(submission)
        if not self._flushing:
            self._flushing = True
            self._reactor.loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flushing = False
        while self._unsent and self._in_flight < IN_FLIGHT:
            self._push(self._batch())

    def _batch(self) -> list[Submission]:
        """The next submissions that one push can carry."""
        options = self._unsent[0].options
        batch: list[Submission] = []
        size = 0
        most = 1 if options.key else PUSH_JOBS
        while self._unsent and len(batch) < most and self._unsent[0].options == options:
            size += len(self._unsent[0].payload)
            if batch and size > PUSH_BYTES:
                break
            batch.append(self._unsent.popleft())
        return batch

    def _push(self, batch: list[Submission]) -> None:
        self._in_flight += 1
        self._pushing.update((one.future, one) for one in batch)
        operation = push_operation([one.payload for one in batch], batch[0].options, watch=True)
        self._connection.submit(operation, lambda body: self._answered(batch, body), expires=False)

    def _answered(self, batch: list[Submission], body: AnswerBody | OsqueueError) -> None:
        self._in_flight -= 1
        for one in batch:
            self._pushing.pop(one.future, None)
        if isinstance(body, Pushed):
            for job_id, one in zip(from_runs(body.ids), batch, strict=True):
                self._watch(job_id, one)
        else:
            error = to_error(body) if isinstance(body, Refused) else body
            assert isinstance(error, Exception), "a push is answered by ids or refused"
            self._tell([one.future for one in batch], error)
        self._changed.set()
        self._flush()

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
        while any(future in self._pushing for future in futures) or any(one.future in futures for one in self._unsent):
            self._changed.clear()
            await self._changed.wait()
