"""The blocking face of a queue: one method per operation, from any thread."""

from __future__ import annotations

import os
import weakref
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Never, Self, get_args

from osqueue import clock
from osqueue.client.changes import Changes
from osqueue.client.claims import Heartbeats, check_job, failure, success, worker_name
from osqueue.client.connection import Connection
from osqueue.client.face import Face, expect, itself, open_connection, to_bytes
from osqueue.client.job import Job, claimed
from osqueue.client.push_many import PushMany
from osqueue.client.runs import from_runs
from osqueue.client.waits import Waits
from osqueue.core.messages import (
    Beaten,
    Cancel,
    Claim,
    Discard,
    GetJob,
    GetStats,
    History,
    JobError,
    JobRecord,
    ListJobs,
    Outcome,
    Page,
    Prune,
    Pruned,
    Push,
    Pushed,
    Report,
    Reported,
    Requeue,
    State,
    Stats,
)
from osqueue.errors import JobNotFound, LeaseLost, OsqueueError, Unavailable
from osqueue.reactor import LoopThread
from osqueue.settings import PushOptions, duration, flag, iterable, job_number, push_options, task_names, whole
from osqueue.transport.unix import UnixConnector


class Client:
    """A connection to a queue's broker. Payloads and results are bytes.

    Every method may be called from any thread, blocks until the broker has answered, and repeats itself over lost
    connections and new brokers for 60 seconds before it raises `Unavailable`.
    """

    def __init__(self, reactor: LoopThread, connection: Connection) -> None:
        """For those who start a broker; others use `connect`."""
        self._face = Face(reactor, connection)
        self._beating: weakref.WeakValueDictionary[tuple[int, int], Heartbeats] = weakref.WeakValueDictionary()
        """By id and attempt of their job."""

    @classmethod
    def connect(cls, directory: str | os.PathLike[str]) -> Client:
        """Join the broker that has a directory open.

        Raises:
            TypeError, ValueError: it is no path, or an empty one.
            Unavailable: no broker has it open.
            AccessDenied: its socket belongs to another user.
        """
        path = _directory(directory)
        reactor = LoopThread("osqueue-client")
        connection = open_connection(reactor, UnixConnector(path))
        try:
            reactor.run(connection.start).result()
        except OSError as error:
            reactor.stop()
            raise Unavailable(f"{_why_nobody(path)} path={path} reason={error.strerror}") from error
        except BaseException:
            reactor.stop()
            raise
        return cls(reactor, connection)

    @property
    def waits(self) -> Waits:
        """Who waits in which call; for a pool, whose end is theirs."""
        return self._face.waits

    def close(self) -> None:
        """Leave the queue. What is claimed and not finished goes back, and is charged an attempt."""
        face = self._face
        if face.reactor.stopped:
            return
        face.reactor.run(face.connection.close, OsqueueError("this queue connection has been closed")).result()
        face.reactor.stop()

    def __reduce__(self) -> Never:
        raise TypeError(
            "a queue's connection cannot be copied or sent to another process: make one there, with Client.connect"
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    # ---------------------------------------------------------------------------------------------------------- pushing

    def push(
        self,
        payload: bytes,
        *,
        task: str = "default",
        delay: float = 0,
        priority: int = 0,
        key: str | None = None,
        timeout: float | None = None,
        max_attempts: int | None = None,
    ) -> int:
        """Add one job; durable on return.

        Args:
            payload: what its handler gets, at most ``max_payload`` bytes; JSON, if handlers of a pool are to read it.
            task: the name of its handler.
            delay: seconds before it may run.
            priority: from -1,000 to 1,000; higher ones first.
            key: text of 1 to 256 bytes; while a job with this key is delayed, ready or running, its id is returned and
                nothing is pushed, whatever the payload.
            timeout: seconds that an attempt may take.
            max_attempts: runs until it is dead; None for the queue's own.

        Returns:
            The job's id, from 1, growing in push order.

        Raises:
            PayloadTooLarge, QueueFull: nothing was pushed; `push_many` waits where ``max_queued`` is the limit.
            Unavailable: unknown whether it was pushed; ``error.again()`` repeats this very push.
        """
        options = push_options(
            task=task, delay=delay, priority=priority, key=key, timeout=timeout, max_attempts=max_attempts
        )
        data = self._face.check_size(payload)
        return self._face.operate(push_operation([data], options), Pushed, lambda pushed: pushed.ids[0][0])

    def push_many(
        self,
        payloads: Iterable[bytes],
        *,
        task: str = "default",
        delay: float = 0,
        priority: int = 0,
        timeout: float | None = None,
        max_attempts: int | None = None,
    ) -> Sequence[int]:
        """Add a job for each payload of an iterable, read as it is needed; durable on return.

        While ``max_queued`` jobs wait it waits too, and pushes on as there is room.

        Args:
            payloads: any iterable; memory stays constant.
            task, delay, priority, timeout, max_attempts: as `push`.

        Returns:
            The ids, in order, kept as runs.

        Raises:
            Exception: a payload or the broker was the cause, or the iterable itself raised; what came before is
                pushed, and the error's ``pushed`` says how many jobs that are.
        """
        options = push_options(task=task, delay=delay, priority=priority, timeout=timeout, max_attempts=max_attempts)
        face = self._face

        def start(batch: list[bytes]) -> Any:
            return face.start(push_operation(batch, options, fitting=True), lambda body: expect(body, Pushed).ids)

        def many_in_flight() -> bool:
            return face.connection.session.bounded is False

        pushing = PushMany(start, wait_room=face.wait_room, many_in_flight=many_in_flight)
        return pushing.run(map(face.check_size, iterable("payloads", payloads)))

    # --------------------------------------------------------------------------------------------------------- claiming

    def claim(
        self, worker: str | None = None, *, wait: float = 0, tasks: Sequence[str] = ("default",)
    ) -> Job[bytes] | None:
        """Take a job.

        Args:
            worker: a name that is kept with the job.
            wait: seconds to wait for one.
            tasks: the tasks that may be taken.

        Returns:
            The job, or None when there was none.

        Raises:
            QueueFull: there was one, but claims hold as much as the queue can remember, which is some 50 single ones;
                claimed together, with `claim_many`, thousands of jobs take no more room than one.
        """
        jobs = self.claim_many(1, worker, wait=wait, tasks=tasks)
        return jobs[0] if jobs else None

    def claim_many(
        self, jobs: int, worker: str | None = None, *, wait: float = 0, tasks: Sequence[str] = ("default",)
    ) -> list[Job[bytes]]:
        """Take up to ``jobs`` jobs, under one lease; see `claim`."""
        claim = Claim(
            0,
            task_names(tasks),
            whole("jobs", jobs, least=1),
            wait_s=duration("wait", wait, least=0),
            worker=worker_name(worker),
        )
        face = self._face
        return face.claim(claim, lambda granted: [claimed(job, granted.lease, face.now_ms()) for job in granted.jobs])

    def heartbeat(self, job: Job[Any]) -> None:
        """Say that the job is still worked on; its lease goes on for one more term.

        Raises:
            LeaseLost: it is no longer held.
        """

        def held(beaten: Beaten) -> None:
            if not beaten.held:
                raise _lease_lost(job)

        check_job(job)
        self._face.heartbeat(job._lease, [job.id], held)

    def heartbeating(self, job: Job[Any], interval: float = 5.0) -> Heartbeats:
        """A ``with`` block during which heartbeats are sent in the background.

        Args:
            job: a claimed job.
            interval: seconds between heartbeats; a third of the queue's ``lease`` where that is less.

        Raises:
            LeaseLost: on leaving the block, when the lease was lost meanwhile; ``.lost`` is then set. Not after this
                client has finished the job inside it.
        """
        check_job(job)
        session = self._face.connection.session
        age_ms = max(0, self._face.now_ms() - job._claimed_ms)
        beats = Heartbeats(
            lambda: self.heartbeat(job),
            duration("interval", interval),
            lambda: session.term_ms,
            since_ms=clock.boot_ms() - age_ms,
        )
        self._beating[job.id, job.attempt] = beats
        return beats

    def complete(self, job: Job[Any], result: bytes = b"null") -> None:
        """Finish a job, with its result.

        Raises:
            LeaseLost: it is no longer held; nothing changed.
        """
        check_job(job)
        self._report(job, success(job, to_bytes("result", result), self._face.now_ms()))

    def fail(
        self,
        job: Job[Any],
        error: str | BaseException | JobError = "",
        *,
        retry: bool = True,
        delay: float | None = None,
    ) -> None:
        """End an attempt without success.

        Args:
            job: a claimed job.
            error: why; kept with the job.
            retry: False for dead at once.
            delay: seconds until the next attempt; None for the queue's own back-off.

        Raises:
            LeaseLost: it is no longer held; nothing changed.
        """
        check_job(job)
        delay_s = None if delay is None else duration("delay", delay, least=0)
        outcome = failure(job, error, self._face.now_ms())
        outcome.retry_delay_s = delay_s
        outcome.verdict = "failed" if flag("retry", retry) else "dead"
        self._report(job, outcome)

    def _report(self, job: Job[Any], outcome: Outcome) -> None:
        def accepted(reported: Reported) -> None:
            if job.id in from_runs(reported.lost):
                raise _lease_lost(job)
            if (beats := self._beating.get((job.id, job.attempt))) is not None:
                beats.job_ended()

        self._face.operate(Report(job._lease, [outcome]), Reported, accepted)

    # --------------------------------------------------------------------------------------------------------- managing

    def cancel(self, job_id: int) -> bool:
        """End a job that is not final, running or not; it never runs again.

        Returns:
            False when it was final already.

        Raises:
            JobNotFound: no job has this id.
        """
        return Changes(self._face, Cancel([job_number("job_id", job_id)]), bool).result()

    def cancel_many(self, ids: Iterable[int]) -> list[int]:
        """End jobs that are not final; see `cancel`. It is done in parts, of up to 256 jobs and 16 MiB, each at once.

        Returns:
            The ids that were not final, and are now cancelled.

        Raises:
            JobNotFound: none of the ids is a job's.
        """
        return Changes(self._face, Cancel(id_list(ids)), itself).result()

    def requeue(self, ids: int | Iterable[int]) -> list[int]:
        """Run dead jobs again, with ``max_attempts`` more; their errors are kept. Done in parts, as `cancel_many`.

        Returns:
            The ids that were dead, and now wait.

        Raises:
            JobNotFound: none of the ids is a job's.
            Rejected: none could be requeued, since other unfinished jobs have their keys by now.
            QueueFull: jobs of too many pairs of priority and task would wait; the first ones, ``changed`` of the error,
                do. Requeue the rest when some have begun.
        """
        return Changes(self._face, Requeue(id_list(ids)), itself).result()

    def discard(self, ids: int | Iterable[int]) -> list[int]:
        """Drop dead jobs into the archive, as dead. Done in parts, as `cancel_many`.

        Returns:
            The ids that were dead, and are now archived.

        Raises:
            JobNotFound: none of the ids is a job's.
        """
        return Changes(self._face, Discard(id_list(ids)), itself).result()

    # ---------------------------------------------------------------------------------------------------------- reading

    def get(self, job_id: int) -> JobRecord:
        """A job, live or archived.

        Raises:
            JobNotFound: no job has this id.
        """

        def first(page: Page) -> JobRecord:
            if not page.jobs:
                raise JobNotFound(f"no job has this id id={job_id}")
            return page.jobs[0]

        return self._face.ask(GetJob(job_number("job_id", job_id)), Page, first)

    def stats(self) -> Stats:
        """Counts of the whole queue, and of each task."""
        return self._face.ask(GetStats(), Stats, itself)

    def list(self, state: State | None = None) -> Iterator[JobRecord]:
        """Jobs of one state that are not in the archive, by id; None for all of them.

        Raises:
            ValueError: there is no such state.
        """
        if state is not None and state not in get_args(State):
            raise ValueError(f"state is one of {', '.join(get_args(State))}, not {state!r}")
        return self._face.pages(ListJobs(state))

    def dead(self) -> Iterator[JobRecord]:
        """Dead jobs, with their errors."""
        return self.list("dead")

    def history(self, since_ms: int = 0) -> Iterator[JobRecord]:
        """Finished jobs that ended at or after a time, in milliseconds since 1970."""
        return self._face.pages(History(whole("since_ms", since_ms, least=-(2**63), most=2**63 - 1)))

    def prune(self, older_than: float) -> Pruned:
        """Delete objects of the archive all of whose jobs ended so long ago; what they held is nowhere kept then.

        Args:
            older_than: seconds. An object goes as a whole, once the hour of its name lies so far back.

        Returns:
            How many objects went, with how many jobs, and how many were ``damaged`` and left alone.

        Raises:
            Unavailable: an object cannot be deleted now; the same call again goes on.
        """
        before_ms = self._face.now_ms() - round(duration("older_than", older_than, least=0) * 1000)
        total = Pruned()
        while True:
            part = self._face.ask(Prune(before_ms, total.cursor), Pruned, itself)
            total = Pruned(
                total.objects + part.objects, total.jobs + part.jobs, total.damaged + part.damaged, part.cursor
            )
            if not part.cursor:
                return total

    def wait_idle(self, tasks: Sequence[str] = ("default",), timeout: float | None = None) -> Stats:
        """Wait until no job of these tasks is ready, delayed or running.

        Returns:
            The counts at that moment.

        Raises:
            TimeoutError: not within ``timeout`` seconds.
            Corrupt: only jobs of damaged segments are left, which nobody can run.
        """
        timeout_s = None if timeout is None else duration("timeout", timeout, least=0)
        return self._face.wait_idle(task_names(tasks), timeout_s)


def push_operation(
    payloads: Sequence[bytes], options: PushOptions, *, watch: bool = False, fitting: bool = False
) -> Push:
    """The operation that pushes these payloads, or those that fit."""
    return Push(
        payloads if isinstance(payloads, list) else [*payloads],
        options.task,
        options.priority,
        options.delay_s,
        options.timeout_s,
        options.max_attempts,
        options.key,
        watch,
        fitting,
    )


def _why_nobody(path: Path) -> str:
    if not path.is_dir():
        return "there is no such directory, so no broker has a queue open in it"
    return "no broker has the queue in this directory open: start a LocalPool or `osqueue serve` there, or Broker.open"


def _directory(directory: object) -> Path:
    if not isinstance(directory, str | os.PathLike):
        raise TypeError(f"directory is a path, not {type(directory).__name__}")
    if not os.fspath(directory):
        raise ValueError("the directory's path is empty; write . for the current one")
    return Path(directory).absolute()


def _lease_lost(job: Job[Any]) -> LeaseLost:
    return LeaseLost(f"the job is no longer held under this lease id={job.id}")


def id_list(ids: int | Iterable[int]) -> list[int]:
    """One id or several, as a list.

    Raises:
        TypeError: something else.
    """
    if isinstance(ids, str | bytes) or not isinstance(ids, int | Iterable):
        raise TypeError(f"ids is a job's number, or several, not {type(ids).__name__}")
    given = [ids] if isinstance(ids, int) else [*ids]
    return [job_number("ids", one) for one in given]
