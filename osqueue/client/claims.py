"""What a holder of claimed jobs says about them: outcomes, and signs of life."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

import msgspec
from msgspec import structs

from osqueue import clock
from osqueue.client.job import Job
from osqueue.core.codec import iso
from osqueue.core.messages import JobError, Outcome
from osqueue.errors import LeaseLost, OsqueueError
from osqueue.settings import whole

_BEATS_A_TERM = 3


def success(job: Job[Any], result: bytes, now_ms: int) -> Outcome:
    """The job is done."""
    return Outcome(job.id, job.attempt, "succeeded", job._claimed_ms, now_ms, result)


def failure(job: Job[Any], error: JobError | BaseException | str, now_ms: int) -> Outcome:
    """The attempt failed, and the job may be tried again."""
    told = job_error(error, job.attempt, now_ms)
    return Outcome(job.id, job.attempt, "failed", job._claimed_ms, now_ms, error=told)


def job_error(error: JobError | BaseException | str, attempt: int, now_ms: int) -> JobError:
    """A failure as the queue keeps it."""
    if isinstance(error, JobError):
        return _sayable(error)
    if isinstance(error, BaseException):
        return JobError(type(error).__qualname__, clean_text(str(error))[:2048], attempt=attempt, at=iso(now_ms))
    if not isinstance(error, str):
        raise TypeError(f"error is text or an exception, not {type(error).__name__}")
    return JobError("Failed", clean_text(error)[:2048], attempt=attempt, at=iso(now_ms))


def _sayable(error: JobError) -> JobError:
    """An error that the caller made: of the right types, and of text that can be sent."""
    try:
        checked = msgspec.convert(structs.asdict(error), JobError)
    except msgspec.ValidationError as reason:
        raise TypeError(f"error: {reason}") from None
    for name, value in structs.asdict(checked).items():
        if isinstance(value, str):
            setattr(checked, name, clean_text(value))
        elif value is not None:
            whole(f"error.{name}", value, least=-(2**63), most=2**63 - 1)
    return checked


def check_job(job: object) -> None:
    """Refuse what no claim has returned.

    Raises:
        TypeError, ValueError: it is something else.
    """
    if not isinstance(job, Job):
        raise TypeError(f"job is what `claim` returns, not {type(job).__name__}")
    for name in ("id", "attempt", "_lease", "_claimed_ms"):
        whole(f"job.{name}", getattr(job, name), least=0, most=2**63 - 1)


def worker_name(worker: object) -> str:
    """The name of whoever claims; empty for None.

    Raises:
        TypeError: it is no text.
    """
    if worker is not None and not isinstance(worker, str):
        raise TypeError(f"worker is a name, not {type(worker).__name__}")
    return clean_text(worker or "")


def clean_text(text: str) -> str:
    """Text that can be sent: what is no Unicode, as parts of file names may be, is escaped."""
    return text.encode(errors="backslashreplace").decode()


class Heartbeats:
    """Signs of life in the background, for the length of a ``with`` block. See `Client.heartbeating`.

    Rules:
    * No two are further apart than a third of the lease's term, so that two more can be tried when one is late; the
      claim counts as one.
    * When the lease may have ended since the last one, another decides as the block is left.
    * A job that was finished inside the block is not lost.

    Args:
        beat: sends one.
        interval_s: seconds between two, if that is less than a third of the term.
        term_ms: the lease's term; 0 while it is not known.
        since_ms: when the job was claimed, by the boot clock.

    Attributes:
        lost: set once the lease was lost.
    """

    def __init__(
        self, beat: Callable[[], None], interval_s: float, term_ms: Callable[[], int], *, since_ms: int
    ) -> None:
        self.lost = threading.Event()
        self._beat = beat
        self._interval_s = interval_s
        self._term_ms = term_ms
        self._beaten_ms = since_ms
        self._job_ended = False
        self._ended = threading.Event()
        self._error: OsqueueError | None = None
        self._thread = threading.Thread(target=self._run, name="osqueue-heartbeat", daemon=True)

    def job_ended(self) -> None:
        """The job was completed or failed by its holder."""
        self._job_ended = True
        self._ended.set()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._ended.set()
        if kind is not None:
            return  # the thread ends by itself; a beat that is on its way keeps nobody here
        self._thread.join()
        if self._job_ended:
            return
        if not self.lost.is_set() and self._may_have_ended():
            self._beat_once()
        if self.lost.is_set():
            raise self._error or LeaseLost("the lease was lost")

    def _run(self) -> None:
        pause_s = max(0.0, self._pause_s() - (clock.boot_ms() - self._beaten_ms) / 1000)
        while not self._ended.wait(pause_s):
            self._beat_once()
            if self.lost.is_set():
                return
            pause_s = self._pause_s()

    def _pause_s(self) -> float:
        # Asked anew each time: another broker may have opened the queue with another lease.
        term_ms = self._term_ms()  # 0: the broker does not tell it
        return min(self._interval_s, term_ms / _BEATS_A_TERM / 1000) if term_ms else self._interval_s

    def _beat_once(self) -> None:
        sent_ms = clock.boot_ms()
        try:
            self._beat()
        except LeaseLost as error:
            self._give_up(error)
        except (OsqueueError, RuntimeError) as error:
            # One beat more or less is nothing; but when none has got through for a term, the lease has ended.
            if self._may_have_ended():
                self._give_up(error)
        else:
            self._beaten_ms = sent_ms

    def _may_have_ended(self) -> bool:
        return clock.boot_ms() - self._beaten_ms >= self._term_ms()

    def _give_up(self, error: Exception) -> None:
        self._error = error if isinstance(error, LeaseLost) else LeaseLost(f"no heartbeat got through: {error}")
        self.lost.set()
