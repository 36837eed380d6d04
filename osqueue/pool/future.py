"""A job's future: `concurrent.futures` in its manners, with the job's id.

pending ──succeeded──▶ result          ──dead──▶ JobFailed, WorkerCrashed, JobTimeout        ──lost to damage──▶ Corrupt
        ──cancelled──▶ JobCancelled    ──cancel() before the start──▶ cancelled, as in concurrent.futures
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import threading
from collections.abc import Callable
from typing import Any, TypeVar

from osqueue.core.messages import JobRecord
from osqueue.errors import InvalidPayload, JobCancelled, JobFailed, JobTimeout, WorkerCrashed
from osqueue.values import Values, told

R = TypeVar("R")

_settling = threading.Lock()

_KINDS: dict[str, type[JobFailed]] = {
    "WorkerCrashed": WorkerCrashed,
    "HostLost": WorkerCrashed,
    "JobTimeout": JobTimeout,
    "SoftTimeout": JobTimeout,
}


class JobFuture(concurrent.futures.Future[R]):
    """The result of a job to come. Works with `as_completed`, `wait` and `asyncio.wrap_future`.

    Attributes:
        job_id: the job's id; None until the broker has answered.
    """

    def __init__(self, cancel: Callable[[JobFuture[R]], bool], refuse_wait: Callable[[], None]) -> None:
        """For pools.

        Args:
            cancel: asks for the job's end before its start, and says whether that was in time.
            refuse_wait: raises where waiting would never end.
        """
        super().__init__()
        self._refuse_wait = refuse_wait
        self.job_id: int | None = None
        self._ask_cancel = cancel
        self.cancel_asked = False
        self._told_cancelled = False

    def cancel(self) -> bool:
        """Cancel the job, if it has not begun; waits for the queue's answer, while its broker is replaced too.

        Returns:
            Whether it is cancelled: it will never run. If the pool broke meanwhile it is not; the future has the error.
        """
        if self.done():
            return self.cancelled()
        self.cancel_asked = True
        if not self._ask_cancel(self):
            self.cancel_asked = False
            return self.cancelled()
        self.settle_cancelled()
        return True

    def result(self, timeout: float | None = None) -> R:
        """As in `concurrent.futures`; in a callback of the pool's futures only if the job has ended."""
        if not self.done():
            self._refuse_wait()
        return super().result(timeout)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """As `result`."""
        if not self.done():
            self._refuse_wait()
        return super().exception(timeout)

    # ----------------------------------------------------------------------------------------------------- for the pool

    def settle(self, end: JobRecord | Exception, values: Values[Any]) -> None:
        """The job has ended, or how it ends can no longer be known."""
        if isinstance(end, Exception):
            self.settle_error(end)
        elif end.state == "succeeded":
            self._settle_result(end, values)
        elif end.state == "cancelled" and self.cancel_asked:
            self.settle_cancelled()
        else:
            self.settle_error(job_failure(end))

    def settle_error(self, error: BaseException) -> None:
        """There will be no result."""
        with contextlib.suppress(concurrent.futures.InvalidStateError):  # it has ended otherwise
            self.set_exception(error)

    def settle_cancelled(self) -> None:
        """The job will never run. Whoever asked and whoever hears of it may both say so."""
        with _settling:
            told, self._told_cancelled = self._told_cancelled, True
        if not told and super().cancel():
            self.set_running_or_notify_cancel()

    def _settle_result(self, record: JobRecord, values: Values[Any]) -> None:
        try:
            result = values.decode(b"null" if record.result is None else record.result)
        except BaseException as error:  # noqa: BLE001  not even a codec's SystemExit may leave anybody waiting
            self.settle_error(_undecodable(record, error))
            return
        with contextlib.suppress(concurrent.futures.InvalidStateError):  # as above
            self.set_result(result)


def _undecodable(record: JobRecord, error: BaseException) -> InvalidPayload:
    why = error if isinstance(error, InvalidPayload) else told(error)
    told_so = InvalidPayload(f"{why} job_id={record.id}")
    told_so.__cause__ = error
    return told_so


def job_failure(record: JobRecord) -> JobFailed:
    """The error of a job that ended without success."""
    if record.state == "cancelled":
        failure: JobFailed = JobCancelled(f"the job was cancelled id={record.id}")
    elif not record.errors:
        failure = JobFailed(f"the job is dead id={record.id}")
    else:
        last = record.errors[-1]
        failure = _KINDS.get(last.error_type, JobFailed)(f"{last.error_type}: {last.message}".rstrip(": "))
        failure.error_type = last.error_type
        failure.traceback = last.traceback
    failure.job_id = record.id
    failure.attempts = record.attempts
    return failure
