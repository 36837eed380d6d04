"""One attempt at one job: payload to value, handler, result to bytes; and what its failure means.

decode ──▶ handler ──▶ encode ──▶ succeeded
   │          │           └─ unencodable, not of its type, too large ─▶ judged like any error
   │          ├─ Discard, no_retry_on ─▶ dead
   │          ├─ Retry, retry_on ─▶ failed: the queue decides what follows
   │          └─ anything else ─▶ dead
   └─ no such value ─▶ dead
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from msgspec import Struct

from osqueue.core.messages import MAX_DELAY_S, Handout, JobError, Outcome, Verdict
from osqueue.errors import Discard, PayloadTooLarge, Retry
from osqueue.values import Values
from osqueue.worker.failure import describe


class Judgement(Struct, frozen=True):
    """Which exceptions are worth another attempt."""

    retry_on: tuple[type[BaseException], ...] = (Exception,)
    no_retry_on: tuple[type[BaseException], ...] = ()

    def verdict(self, error: BaseException) -> Verdict:
        """``failed`` if the job may run again, else ``dead``."""
        if isinstance(error, Discard):
            return "dead"
        if isinstance(error, Retry):
            return "failed"
        if isinstance(error, self.no_retry_on):
            return "dead"
        if isinstance(error, self.retry_on):
            return "failed"
        # SystemExit and its like are no Exception, yet in a handler they are a failure like any other.
        stray = not isinstance(error, Exception) and Exception in self.retry_on
        return "failed" if stray else "dead"


class Task:
    """A handler that is a plain function, and how its values cross. The worker's main thread runs it."""

    def __init__(
        self, handler: Callable[[Any], Any], payloads: Values[Any], results: Values[Any], max_result_bytes: int
    ) -> None:
        self.payloads = payloads
        self._results = results
        self._max_result_bytes = max_result_bytes
        self._run = handler

    def attempt(self, job: Handout, judgement: Judgement) -> Outcome:
        """Run the job once; whatever it raises is in the outcome. Times are left to the caller."""
        try:
            payload = self.payloads.decode(job.payload)
        except BaseException as error:  # noqa: BLE001
            # Whatever it is, a codec's SystemExit too: another attempt would read the same bytes.
            return failure(job, error, "dead")
        try:
            result = self._results.encode_checked(self._run(payload))
        except BaseException as error:  # noqa: BLE001
            # Everything that a handler can raise, SystemExit and KeyboardInterrupt included, ends its attempt alone.
            return self._failed(job, error, judgement)
        if len(result) > self._max_result_bytes:
            return self._failed(job, self._too_large(len(result)), judgement)
        return Outcome(job.id, job.attempt, "succeeded", result=result)

    def _failed(self, job: Handout, error: BaseException, judgement: Judgement) -> Outcome:
        if not isinstance(error, Retry):
            return failure(job, error, judgement.verdict(error))
        delay_s = error.delay
        if delay_s is None or _is_delay(delay_s):
            return failure(job, error, "failed", retry_delay_s=None if delay_s is None else float(delay_s))
        limits = f"Retry(delay=...) is a number of seconds between 0 and {MAX_DELAY_S}"
        wrong = ValueError(f"{limits}, got {delay_s!r}")
        return failure(job, wrong, "failed")

    def _too_large(self, size: int) -> PayloadTooLarge:
        message = "the result is above max_payload: store it elsewhere and return a reference"
        return PayloadTooLarge(f"{message} bytes={size} limit={self._max_result_bytes}")


def failure(job: Handout, error: BaseException, verdict: Verdict, *, retry_delay_s: float | None = None) -> Outcome:
    """The outcome of an attempt that raised."""
    told: JobError = describe(error, attempt=job.attempt)
    return Outcome(job.id, job.attempt, verdict, error=told, retry_delay_s=retry_delay_s)


def _is_delay(delay_s: object) -> bool:
    return isinstance(delay_s, int | float) and 0 <= delay_s <= MAX_DELAY_S
