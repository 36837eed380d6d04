"""What a pool is made of, and the order in which it starts and stops.

    start: broker ─▶ client's connection ─▶ supervisor and its connection
    stop:  supervisor (outcomes reported and answered) ─▶ connections say goodbye ─▶ broker

Rules:
* Everything lives in one loop's thread; the methods that any thread may call say so.
* An error from which the pool cannot recover is kept, and told to everybody who waits, now or later.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import logging
import os
import secrets
import socket
import threading
from collections.abc import Callable, Iterable
from typing import Any

from osqueue.client.calls import Response
from osqueue.client.client import Client
from osqueue.client.connection import Connection
from osqueue.client.face import open_connection
from osqueue.client.session import Session
from osqueue.core.messages import GetStats, JobRecord, ListJobs, Page, Reply, ReplyBody, Stats
from osqueue.errors import OsqueueError
from osqueue.host import this_process
from osqueue.pool.broker_child import BrokerStart
from osqueue.pool.broker_process import Broker, BrokerProcess
from osqueue.pool.cancellation import Cancellation
from osqueue.pool.future import JobFuture
from osqueue.pool.link import SupervisorLink
from osqueue.pool.plan import PoolPlan
from osqueue.pool.results_thread import ResultsThread
from osqueue.pool.submitter import Submitter
from osqueue.reactor import LoopThread
from osqueue.supervisor import Supervisor, SupervisorSettings
from osqueue.transport.connector import SocketPairConnector
from osqueue.transport.unix import UnixConnector

_log = logging.getLogger("osqueue")

_END_S = 5.0
"""How long a stop waits for what should take moments: submitted jobs to be pushed, last answers, the parts to end."""
_BEAT_S = 1.0


OnBroken = Callable[[OsqueueError], None]


def own_broker(plan: PoolPlan, on_broken: OnBroken) -> BrokerProcess:
    """A pool's broker: a process of its own, which nobody else may have opened the queue before."""
    by_path = UnixConnector(plan.directory.path)
    connectors = [SocketPairConnector(by_path), SocketPairConnector(by_path)]
    return BrokerProcess(broker_start(plan), connectors, on_broken)


def _nothing() -> None:
    """Nobody waits for the end."""


def broker_start(plan: PoolPlan) -> BrokerStart:
    """What a broker process is started with."""
    directory = plan.directory
    return BrokerStart(where=str(directory.path), settings=plan.queue, durable=not directory.private)


class Engine:
    """A pool's parts. Made in any thread; `start` before anything else.

    Args:
        plan: what the pool is to be.
        make_broker: the broker, and what is to be told if there can be none any more.
    """

    def __init__(self, plan: PoolPlan, make_broker: Callable[[PoolPlan, OnBroken], Broker] = own_broker) -> None:
        self._plan = plan
        self.reactor = LoopThread()
        self.results = ResultsThread()
        self.error: OsqueueError | None = None
        """Why the pool cannot go on."""
        self.broken = threading.Event()
        """Set with `error`."""
        self.last_stats: Stats | None = None
        """The counts at the end of a stop, if the broker could tell them."""
        self.first_dead: JobRecord | None = None
        """The first dead job at the end of a stop, likewise."""
        self._broker = make_broker(plan, self._broker_broken)
        self._connection = open_connection(self.reactor, self._broker.connectors[0])
        self.client = Client(self.reactor, self._connection)
        self.submitter = Submitter(
            self.reactor,
            self._connection,
            self.results,
            tell_begun=self._beat,
            when_parked=self._look_at_waits,
        )
        self.client.waits.when_for_room = self._look_at_waits
        self._paused = False
        self._cancellation = Cancellation(self._connection, self.submitter, self._drop)
        worker = f"{socket.gethostname()}:{os.getpid()}"
        self._link = SupervisorLink(plan.handlers.tasks, worker)
        self._link_connection = self._open_link()
        self._broker_gone = False
        self._supervisor: Supervisor | None = None
        self._starting: asyncio.Task[None] | None = None
        self._ended = False

    # -------------------------------------------------------------------------------------------------- from any thread

    def start(self) -> None:
        """Start everything; the queue is open on return.

        Raises:
            OsqueueError, ValueError, OSError: the queue cannot be opened.
        """
        self.reactor.run(self._start).result()

    def stop(self, grace_s: float) -> None:
        """Stop everything in good order; a KeyboardInterrupt meanwhile stops it at once, and is raised."""
        stopping = self.reactor.run(self._stop, grace_s)
        try:
            stopping.result()
        except KeyboardInterrupt:
            self.reactor.call(self._hurry)
            with contextlib.suppress(TimeoutError):
                stopping.result(_END_S)
            self.reactor.call(self._kill)
            raise
        finally:
            self.results.stop(_END_S)
            self.reactor.stop()

    def abandon(self, then: Callable[[], None] = _nothing) -> None:
        """End everything soon, whatever state it is in; for a pool that nobody closed, or that could not start.

        Args:
            then: called when it has ended.
        """
        if self.reactor.in_thread():
            # The garbage collector runs anywhere; nothing may wait here.
            thread = threading.Thread(target=self.abandon, args=(then,), name="osqueue-abandon", daemon=False)
            self.reactor.call(thread.start)
            return
        if not self.reactor.stopped:
            self._end_soon()
        then()

    def _end_soon(self) -> None:
        with contextlib.suppress(Exception):  # whatever fails here, the parts are killed next
            self.reactor.run(self._stop, 0).result(_END_S)
        with contextlib.suppress(RuntimeError):
            self.reactor.call(self._kill)
        self.results.stop(_END_S)
        self.reactor.stop(_END_S)

    def flush(self, timeout_s: float | None = None) -> None:
        """Wait until what has been submitted so far is pushed.

        Raises:
            TimeoutError: not within ``timeout_s``.
        """
        self.reactor.run(self._flush, timeout_s).result()

    def beat(self) -> int:
        """Tell the broker which jobs have begun; how many workers stand."""
        return self.reactor.run(self._beat).result()

    def workers(self) -> int:
        """How many workers stand; an estimate from outside the loop's thread."""
        return 0 if self._supervisor is None else self._supervisor.workers()

    def pause(self) -> None:
        """Let no job begin any more; what was handed out and has not begun is back in the queue on return.

        Raises:
            OsqueueError: the pool cannot go on; nobody can say what is back.
        """
        self.reactor.run(self._pause).result()

    def resume(self) -> bool:
        """Claim again; whether it had been paused."""
        return self.reactor.run(self._resume).result()

    def resize(self, workers: int) -> None:
        """Have so many workers.

        Raises:
            OSError: there is no room for what is known of them.
        """
        self.reactor.run(self._resize, workers).result()

    def end_room_waits(self, error: Exception) -> None:
        """Nobody waits for room in a call any more; what `map` has submitted goes on."""
        self.client.waits.end_room(error)

    def cancel_unstarted(self, futures: Iterable[JobFuture[Any]]) -> list[JobFuture[Any]]:
        """Cancel those jobs that have not begun; which they were."""
        return self.reactor.run(self._cancellation.unstarted, list(futures)).result()

    def refuse_wait(self) -> None:
        """Raises `RuntimeError` where no job's end is ever told: in a future's callback, and in a forked child."""
        self.reactor.refuse_forked()
        self.results.refuse_wait()

    def cancel_all(self) -> None:
        """Cancel every job of a future that has not begun."""
        for future in self.reactor.run(self._cancellation.every_unstarted).result():
            future.settle_cancelled()

    # ------------------------------------------------------------------------------------------------- start, in order

    def _open_link(self) -> Connection:
        holder = this_process(self._plan.directory.blame)
        session = Session(lambda: secrets.token_hex(8), holder=holder, keeper=self._link)
        return Connection(self.reactor, self._broker.connectors[1], session)

    async def _start(self) -> None:
        self._starting = asyncio.current_task()
        await self._broker.open()
        self._connection.start_soon()
        self._supervisor = self._new_supervisor()
        self._link.attach(self._link_connection, self._supervisor)
        self._link_connection.start_soon()
        self._supervisor.start()

    def _new_supervisor(self) -> Supervisor:
        plan = self._plan
        plan.directory.make_blame_directory()
        settings = SupervisorSettings(
            handlers=plan.handlers.names,
            blame_path=str(plan.directory.blame_path),
            workers=plan.pool.workers,
            timeout_s=plan.pool.timeout_s,
            soft_timeout_s=plan.pool.soft_timeout_s,
            max_tasks_per_child=plan.pool.max_tasks_per_child,
            max_memory_per_child_bytes=plan.pool.max_memory_per_child_bytes,
            lifecycle=plan.lifecycle,
            grace_s=plan.pool.grace_s,
            max_payload_bytes=plan.queue.max_payload_bytes,
            retry_on=plan.retry_on,
            no_retry_on=plan.no_retry_on,
            payload_type=plan.handlers.payload_type,
            result_type=plan.handlers.result_type,
            codec=plan.codec,
            knows_other_tasks=plan.knows_other_tasks,
            mp_context=plan.mp_context,
        )
        return Supervisor(self.reactor.loop, self._link, settings, when_broken=self._broken)

    # -------------------------------------------------------------------------------------------------- stop, in order

    async def _stop(self, grace_s: float) -> None:
        if self._ended:
            return
        if self._starting is not None and not self._starting.done():
            self._starting.cancel()
            await asyncio.wait([self._starting])
        gone = self.error or OsqueueError("the pool has been stopped; jobs that had not ended stay in the queue")
        self.submitter.unpark(gone)
        if self.error is None:
            with contextlib.suppress(TimeoutError):  # what is not pushed by then, its futures tell
                await asyncio.wait_for(self.submitter.pushed(), _END_S)
        if self._supervisor is not None:
            await self._stop_supervisor(self._supervisor, grace_s)
            await self._ask_what_is_left()
        self._ended = True
        gone = self.error or gone
        self.submitter.fail(gone)
        if self._supervisor is None:
            # The queue was never open: there is no broker whose answer to a goodbye could be waited for.
            self._link_connection.fail(gone)
            self._connection.fail(gone)
        await asyncio.gather(self._link_connection.close(gone), self._connection.close(gone))
        await self._broker.stop()
        self._plan.directory.remove_blame()

    async def _ask_what_is_left(self) -> None:
        stats = await self._ask(GetStats())
        self.last_stats = stats if isinstance(stats, Stats) else None
        if self.last_stats is not None and self.last_stats.dead:
            page = await self._ask(ListJobs("dead", limit=1))
            self.first_dead = page.jobs[0] if isinstance(page, Page) and page.jobs else None

    async def _ask(self, query: GetStats | ListJobs) -> ReplyBody | None:
        """The broker's answer; None if it gives none in time."""
        answer: asyncio.Future[ReplyBody | None] = self.reactor.loop.create_future()

        def answered(response: Response | OsqueueError) -> None:
            if not answer.done():
                answer.set_result(response.body if isinstance(response, Reply) else None)

        # Of the two connections the one that stands also when workers cannot start.
        self._link_connection.ask(query, answered)
        try:
            return await asyncio.wait_for(answer, _END_S)
        except TimeoutError:
            return None

    async def _stop_supervisor(self, supervisor: Supervisor, grace_s: float) -> None:
        # Without a broker there is nobody to report to; the queue gets its jobs back when it is opened again.
        await supervisor.stop(0 if self._broker_gone else grace_s)

    def _hurry(self) -> None:
        if self._supervisor is not None:
            self._supervisor.stop(0)

    def _kill(self) -> None:
        if self._supervisor is not None:
            self._supervisor.kill()
        self._broker.kill()

    def _broker_broken(self, error: OsqueueError) -> None:
        self._broker_gone = True
        self._plan.directory.release()
        self._link_connection.fail(error)
        self._broken(error)

    def _broken(self, error: OsqueueError) -> None:
        """The pool cannot go on: everybody is told; `stop` is still to come."""
        if self.error is not None or self._ended:
            return
        self.error = error
        self.broken.set()
        self._connection.fail(error)
        self.submitter.fail(error)

    # ----------------------------------------------------------------------------------------------- while it is open

    async def _flush(self, timeout_s: float | None) -> None:
        await asyncio.wait_for(self.submitter.pushed(), timeout_s)

    async def _beat(self) -> int:
        if self._supervisor is None:
            return 0
        running = [job_id for ids in self._supervisor.running().values() for job_id in ids]
        arrived = asyncio.Event()
        if self._link.beat(running, self._supervisor.progress(), lambda _: arrived.set()):
            with contextlib.suppress(TimeoutError):  # the counts are then as old as the last heartbeat
                await asyncio.wait_for(arrived.wait(), _BEAT_S)
        return self._supervisor.workers()

    async def _pause(self) -> None:
        self._paused = True
        self._look_at_waits()
        if self._supervisor is not None:
            await self._supervisor.pause()
        if self.error is not None:
            raise copy.copy(self.error)

    async def _resume(self) -> bool:
        was_paused, self._paused = self._paused, False
        if self._supervisor is not None and was_paused:
            self._supervisor.resume()
        return was_paused

    async def _resize(self, workers: int) -> None:
        if self._supervisor is not None:
            self._supervisor.resize(workers)

    def _look_at_waits(self) -> None:
        """A pool that is paused makes no room: whoever waits for it waits for `resume`."""
        if self._paused and (self.submitter.is_parked or self.client.waits.for_room):
            _log.warning("push_many or map waits for room in a paused pool; resume() lets jobs begin again")

    async def _drop(self, ids: list[int]) -> list[int]:
        dropped = [] if self._supervisor is None else await self._supervisor.drop(ids)
        # Without a broker nobody has accepted it: whoever opens the queue next has these jobs.
        return [] if self._broker_gone else dropped
