"""The pool as its user sees it: jobs go in, results come out, and leaving waits for them."""

from __future__ import annotations

import copy
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from multiprocessing.context import BaseContext
from types import TracebackType
from typing import Any, Generic, Never, Self, TypeVar

from osqueue import clock
from osqueue.codec import codec_name, load_codec
from osqueue.core.messages import JobRecord, Stats
from osqueue.core.settings import KIB, MIB
from osqueue.errors import QueueFull
from osqueue.host import refuse_windows
from osqueue.jobs import DEFAULT_TASK, Handlers, HandlerSpec, class_name
from osqueue.lifecycle import lifecycle
from osqueue.pool.directory import PoolDirectory
from osqueue.pool.ending import Ending
from osqueue.pool.engine import Engine
from osqueue.pool.future import JobFuture
from osqueue.pool.main_guard import refuse_without_main_guard
from osqueue.pool.map_results import BUFFER_JOBS, AsTheyEnd, InOrder, MapResults
from osqueue.pool.payload import payload_encoder
from osqueue.pool.plan import PoolPlan
from osqueue.pool.submitter import Submission
from osqueue.settings import (
    MAX_WORKERS,
    PushOptions,
    duration,
    exception_classes,
    flag,
    iterable,
    job_number,
    pool_settings,
    push_options,
    queue_settings,
    whole,
)
from osqueue.values import Codec
from osqueue.worker_process import start_context

_CLOSED = "the pool has been closed"

P = TypeVar("P")
R = TypeVar("R")


class LocalPool(Generic[P, R]):
    """A durable process pool: what is pushed survives crashes of workers, of the program, and of the machine.

    It starts when it is made. Every method may be called from any thread. Leaving its ``with`` block waits for every
    job; leaving it by an exception stops: running jobs get ``grace`` seconds, the rest stays in the queue.

    Args:
        handler: a module-level function of one payload, ``"package.module:function"``, or a dict of those by task.
        workers: worker processes; None for one for each CPU.
        path: the queue's directory; None for a private one, which is removed after a clean exit.
        payload_type, result_type: any type that msgspec supports; None for each function's annotation.
        codec: in place of JSON and of types: a module, class or object with ``encode(value) -> bytes`` and
            ``decode(bytes) -> value``, or "package.module:object"; workers import it by its name.
        initializer: called with ``initargs`` in each worker process before its first job; what it returns is
            ``current_job().worker_state``. A function or ``"package.module:function"``, as a handler.
        initargs: a tuple of what multiprocessing can send to a process that it starts.
        finalizer: called with that state when a worker ends in good order, not when it is killed.
        max_tasks_per_child: jobs that one worker process may run; then another takes its place.
        max_memory_per_child: bytes of resident memory; a worker found above them after a job is replaced.
        timeout: seconds that an attempt may take before its worker is killed.
        soft_timeout: seconds after which `SoftTimeout` is raised inside the handler, below ``timeout``. A job with a
            ``timeout`` of its own below it is killed first.
        max_attempts: runs, not retries; afterwards the job is dead.
        retry_backoff, retry_backoff_max, retry_jitter: the most seconds before a retry, doubled each time; it comes
            anywhere between at once and then, or exactly then without jitter.
        retry_on, no_retry_on: exception classes after which a job is tried again, or not.
        lease: seconds after which the silent holder of a bare ``claim`` loses its jobs.
        max_queued: how many jobs may wait, ready or delayed; while they do `push` raises `QueueFull`, and `push_many`
            and `map` wait. None for as many as there is room for. Retries always find room.
        grace: seconds that a stop waits before it kills.
        max_payload: bytes that a payload or a result may have, encoded.
        mp_context: how workers are started: ``"forkserver"``, ``"spawn"``, or a multiprocessing context; None for
            the fork server on Linux, and for ``"spawn"`` elsewhere and in a process that was forked from its user.

    Raises:
        TypeError, ValueError: an argument; the message names it.
        RuntimeError: workers cannot be started from this process; the message says why, and the way out.
        QueueLocked: another process, or another pool of this one, has the path open.
        Corrupt, AccessDenied: the queue cannot be opened.
    """

    def __init__(
        self,
        handler: Callable[[P], R] | str | Mapping[str, HandlerSpec],
        *,
        workers: int | None = None,
        path: str | os.PathLike[str] | None = None,
        payload_type: Any = None,
        result_type: Any = None,
        codec: Codec | str | None = None,
        initializer: HandlerSpec | None = None,
        initargs: tuple[Any, ...] = (),
        finalizer: HandlerSpec | None = None,
        max_tasks_per_child: int | None = None,
        max_memory_per_child: int | None = None,
        timeout: float | None = None,
        soft_timeout: float | None = None,
        max_attempts: int = 4,
        retry_backoff: float = 1.0,
        retry_backoff_max: float = 600.0,
        retry_jitter: bool = True,
        retry_on: type[BaseException] | Sequence[type[BaseException]] = (Exception,),
        no_retry_on: type[BaseException] | Sequence[type[BaseException]] = (),
        lease: float = 30.0,
        max_queued: int | None = None,
        grace: float = 10.0,
        max_payload: int = 4 * MIB - 64 * KIB,
        mp_context: str | BaseContext | None = None,
    ) -> None:
        refuse_windows()
        refuse_without_main_guard()
        named = None if codec is None else codec_name(codec)
        self._handlers = Handlers(
            handler,
            payload_type=payload_type,
            result_type=result_type,
            codec=None if named is None else load_codec(named),
        )
        course = lifecycle(initializer, initargs, finalizer)
        self._settings = pool_settings(
            workers=workers,
            timeout=timeout,
            grace=grace,
            soft_timeout=soft_timeout,
            max_tasks_per_child=max_tasks_per_child,
            max_memory_per_child=max_memory_per_child,
        )
        self._queue = queue_settings(
            max_attempts=max_attempts,
            retry_backoff=retry_backoff,
            retry_backoff_max=retry_backoff_max,
            retry_jitter=retry_jitter,
            lease=lease,
            max_queued=max_queued,
            max_payload=max_payload,
        )
        retried = tuple(class_name(kind) for kind in exception_classes("retry_on", retry_on))
        not_retried = tuple(class_name(kind) for kind in exception_classes("no_retry_on", no_retry_on))
        start_context(mp_context)
        self._directory = PoolDirectory(path)
        self._directory.refuse_second()
        plan = PoolPlan(
            handlers=self._handlers,
            directory=self._directory,
            queue=self._queue,
            pool=self._settings,
            lifecycle=course,
            retry_on=retried,
            no_retry_on=not_retried,
            codec=named,
            mp_context=mp_context,
        )
        self._lock = threading.Lock()
        self._closed = False
        self._engine, dead_before = _started(plan)
        self._ending = Ending(
            self._engine,
            self._directory,
            tasks=self._handlers.tasks,
            grace_s=self._settings.grace_s,
            dead_before=dead_before,
        )
        self._ending.await_abandonment(self)

    # ---------------------------------------------------------------------------------------------------------- pushing

    def push(
        self,
        payload: P,
        *,
        task: str = DEFAULT_TASK,
        delay: float = 0,
        priority: int = 0,
        key: str | None = None,
        timeout: float | None = None,
        max_attempts: int | None = None,
    ) -> int:
        """Add one job; durable on return.

        Args:
            payload: what its handler gets.
            task: the name of its handler.
            delay: seconds before it may run.
            priority: from -1,000 to 1,000; higher ones first, first in first out inside one.
            key: text of 1 to 256 bytes; while a job with this key is delayed, ready or running, its id is returned and
                nothing is pushed, whatever the payload.
            timeout: seconds that an attempt may take; None for the pool's.
            max_attempts: runs until it is dead; None for the pool's.

        Returns:
            The job's id, from 1, growing in push order.

        Raises:
            UnknownTask, InvalidPayload, PayloadTooLarge, QueueFull: nothing was pushed; `push_many` waits where
                ``max_queued`` is the limit.
            Unavailable: unknown whether it was pushed; ``error.again()`` repeats this very push.
        """
        data = self._encoder(task)(payload)
        engine = self._open_engine()

        def push() -> int:
            return engine.client.push(
                data, task=task, delay=delay, priority=priority, key=key, timeout=timeout, max_attempts=max_attempts
            )

        try:
            return push()
        except QueueFull:
            if self._queue.max_queued is None:
                raise
        # What has begun since the broker last heard of it does not wait any more.
        engine.beat()
        return push()

    def push_many(
        self,
        payloads: Iterable[P],
        *,
        task: str = DEFAULT_TASK,
        delay: float = 0,
        priority: int = 0,
        timeout: float | None = None,
        max_attempts: int | None = None,
    ) -> Sequence[int]:
        """Add a job for each payload of an iterable, read as it is needed; durable on return, in constant memory.

        While ``max_queued`` jobs wait it waits too, and pushes on as there is room, until the pool is closed.

        Returns:
            The ids, in order, kept as runs.

        Raises:
            Exception: a payload or the queue was the cause, or the iterable itself raised; what came before is
                pushed, and the error's ``pushed`` says how many jobs that are.
        """
        try:
            encode, engine = self._encoder(task), self._open_engine()
        except Exception as error:
            error.pushed = 0  # type: ignore[attr-defined]
            raise
        return engine.client.push_many(
            map(encode, iterable("payloads", payloads)),
            task=task,
            delay=delay,
            priority=priority,
            timeout=timeout,
            max_attempts=max_attempts,
        )

    def submit(
        self,
        payload: P,
        *excess: Never,
        task: str = DEFAULT_TASK,
        delay: float = 0,
        priority: int = 0,
        key: str | None = None,
        timeout: float | None = None,
        max_attempts: int | None = None,
    ) -> JobFuture[R]:
        """Add one job and hold its future; returns before the job is durable.

        Returns:
            A `concurrent.futures.Future` with ``job_id``. Its ``cancel`` is for jobs that have not begun; `cancel`
            of the pool also stops a running one.

        Raises:
            UnknownTask, InvalidPayload, PayloadTooLarge: nothing was pushed. `QueueFull` is the future's.
        """
        _refuse_excess("submit(payload)", excess)
        options = push_options(
            task=task, delay=delay, priority=priority, key=key, timeout=timeout, max_attempts=max_attempts
        )
        return self._submit(options, self._encoder(task)(payload))

    def map(
        self,
        payloads: Iterable[P],
        *excess: Never,
        task: str = DEFAULT_TASK,
        ordered: bool = True,
        buffersize: int | None = None,
        return_exceptions: bool = False,
    ) -> Iterator[R]:
        """The handler's results for an iterable of payloads, lazy at both ends.

        Args:
            payloads: read as results are taken, ``buffersize`` ahead; they wait while ``max_queued`` jobs do.
            task: the name of the handler.
            ordered: False for results in the order in which they come.
            buffersize: how many jobs may be on their way at once; None for 1,000.
            return_exceptions: give a failed job's error in its turn, instead of raising it.

        Returns:
            An iterator. A failed job raises in its turn and ends it. What is pushed goes on, also when the iterator is
            dropped early: leaving the pool's ``with`` block waits for it.

        Raises:
            UnknownTask: the pool has no handler for this task.
        """
        _refuse_excess("map(payloads)", excess)
        encode = self._encoder(task)
        options = push_options(task=task)
        waiting: InOrder[R] | AsTheyEnd[R] = InOrder() if flag("ordered", ordered) else AsTheyEnd()
        engine = self._open_engine()
        return MapResults(
            lambda payload: self._submit(options, encode(payload), waits=True),
            iterable("payloads", payloads),
            waiting=waiting,
            buffersize=BUFFER_JOBS if buffersize is None else whole("buffersize", buffersize, least=1),
            return_exceptions=flag("return_exceptions", return_exceptions),
            refuse_wait=engine.refuse_wait,
        )

    # --------------------------------------------------------------------------------------------------------- managing

    def join(self, timeout: float | None = None) -> Stats:
        """Wait until no job of this pool's tasks is ready, delayed or running.

        Raises:
            TimeoutError: not within ``timeout`` seconds.
            PoolBroken: workers cannot start.
            Corrupt: only jobs of damaged segments are left, which nobody can run.
        """
        timeout_s = None if timeout is None else duration("timeout", timeout, least=0)
        engine = self._open_engine()
        started_ms = clock.boot_ms()
        engine.flush(timeout_s)
        if timeout_s is not None:
            timeout_s = max(0.0, timeout_s - (clock.boot_ms() - started_ms) / 1000)
        stats = engine.client.wait_idle(self._handlers.tasks, timeout_s)
        self._ending.other_tasks.warn(stats)
        stats.workers = engine.workers()
        return stats

    def stats(self) -> Stats:
        """Counts of the whole queue, and of each task; *running* means begun."""
        engine = self._open_engine()
        workers = engine.beat()
        stats = engine.client.stats()
        stats.workers = workers
        return stats

    def get(self, job_id: int) -> JobRecord:
        """Any job, live or archived: its state, attempts, errors, result; while it runs, its progress.

        Raises:
            JobNotFound: no job has this id.
        """
        engine = self._open_engine()
        engine.beat()
        return engine.client.get(job_id)

    def cancel(self, job: int | JobFuture[Any]) -> bool:
        """End a job, queued or running; it never runs again.

        Args:
            job: an id, or the future of `submit`.

        Returns:
            False when it had ended already.

        Raises:
            JobNotFound: no job has this id.
        """
        engine = self._open_engine()
        if not isinstance(job, JobFuture):
            return engine.client.cancel(job_number("job", job))
        if job.cancel():
            return True
        return job.job_id is not None and not job.done() and engine.client.cancel(job.job_id)

    def dead(self) -> Iterator[JobRecord]:
        """Dead jobs, with their errors."""
        return self._open_engine().client.dead()

    def requeue(self, ids: int | Iterable[int]) -> list[int]:
        """Run dead jobs again, with ``max_attempts`` more; their errors are kept. Returns those that were dead."""
        return self._open_engine().client.requeue(ids)

    def discard(self, ids: int | Iterable[int]) -> list[int]:
        """Drop dead jobs into the archive, as dead. Returns those that were dead."""
        return self._open_engine().client.discard(ids)

    def pause(self) -> None:
        """Let no job begin any more in this pool, until `resume`; twice is harmless.

        What runs goes on. What was handed out and has not begun is back in the queue on return, uncharged: that takes a
        moment, and while the broker is silent or being replaced as long as this lasts, though no job begins meanwhile.
        Pushing goes on, and `join` waits. Nothing of it is remembered; leaving the ``with`` block resumes, with a
        warning.

        Raises:
            OsqueueError: the pool has broken meanwhile; whoever opens the queue next has the jobs.
        """
        self._open_engine().pause()

    def resume(self) -> None:
        """Let jobs begin again after `pause`; twice is harmless."""
        self._open_engine().resume()

    def resize(self, n: int) -> None:
        """Have ``n`` worker processes from now on, 1 to 4,096; not remembered.

        Those that lack start at once. Surplus ones end after the job that they run, and what they have not begun goes
        to others, uncharged.

        Raises:
            TypeError, ValueError: that is no number of workers; for none of them there is `pause`.
            OSError: there is no room on the disk for what is known of them; nothing has changed.
        """
        if n == 0 and type(n) is int:
            raise ValueError("n, the number of workers, must be at least 1: to let no job begin, pause() n=0")
        self._open_engine().resize(whole("n", n, least=1, most=MAX_WORKERS))

    # ---------------------------------------------------------------------------------------------------------- leaving

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: FBT001, FBT002
        """Take no more jobs, and end when all have ended, as in `concurrent.futures`.

        Args:
            wait: False to return at once; the program then ends when the jobs have.
            cancel_futures: cancel the jobs of `submit` and `map` that have not begun.
        """
        waits, cancels = flag("wait", wait), flag("cancel_futures", cancel_futures)
        if not self._close():
            return
        if cancels:
            self._engine.cancel_all()
        if waits:
            self._finish()
            return
        threading.Thread(target=self._finish, name="osqueue-shutdown", daemon=False).start()

    def stop(self, grace: float | None = None) -> None:
        """Finish or return what runs, within ``grace`` seconds; the rest stays queued for the next opener."""
        grace_s = self._settings.grace_s if grace is None else duration("grace", grace, least=0)
        if self._close():
            self._ending.stop(grace_s, warn=self._directory.private)

    def __reduce__(self) -> Never:
        raise TypeError(
            "a pool cannot be copied or sent to another process: a handler pushes with current_job().push, and another "
            "program joins the queue with Client.connect"
        )

    def __enter__(self) -> Self:
        if self._closed:
            raise RuntimeError(_CLOSED)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._engine.reactor.forked:
            return  # a child that the program has forked inside the block leaves it too; the pool is its parent's
        if kind is None:
            self.shutdown()
        elif self._close():
            self._ending.stop_after(error)

    # ---------------------------------------------------------------------------------------------------------- private

    def _encoder(self, task: str) -> Callable[[P], bytes]:
        return payload_encoder(self._handlers, task, limit_bytes=self._queue.max_payload_bytes)

    def _submit(self, options: PushOptions, data: bytes, *, waits: bool = False) -> JobFuture[R]:
        engine = self._open_engine()
        future: JobFuture[R] = JobFuture(self._cancel_unstarted, engine.refuse_wait)
        engine.submitter.submit(Submission(options, data, future, self._handlers.results(options.task), waits))
        return future

    def _open_engine(self) -> Engine:
        if self._closed:
            raise RuntimeError(_CLOSED)
        self._engine.reactor.refuse_forked()
        if self._engine.error is not None:
            raise copy.copy(self._engine.error)
        return self._engine

    def _close(self) -> bool:
        """Take no more jobs; False when that was so already."""
        with self._lock:
            if self._closed:
                return False
            self._closed = True
        closed = (
            "the pool has been closed while push_many waited for room; the error's pushed says how many jobs it got in"
        )
        self._engine.end_room_waits(RuntimeError(closed))
        self._directory.release()
        return True

    def _finish(self) -> None:
        # A method of the pool's: the thread that runs it keeps the pool from being dropped, and so abandoned.
        self._ending.finish()

    def _cancel_unstarted(self, future: JobFuture[R]) -> bool:
        engine = self._engine
        if engine.error is not None or engine.reactor.stopped:
            return False
        return bool(engine.cancel_unstarted([future]))


def _started(plan: PoolPlan) -> tuple[Engine, int]:
    """An engine that runs, and how many jobs were dead before that."""
    engine = Engine(plan)
    try:
        engine.start()
        dead_before = engine.client.stats().dead
    except BaseException:
        engine.abandon()
        plan.directory.remove_private()
        raise
    plan.directory.hold()
    return engine, dead_before


def _refuse_excess(form: str, excess: tuple[object, ...]) -> None:
    """Somebody calls it as an executor's, with the function first."""
    if excess:
        raise TypeError(f"write {form}: the handler is the pool's, given where the pool is made")
