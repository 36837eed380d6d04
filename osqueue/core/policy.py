"""What follows a failed attempt: another one, when, or none."""

from __future__ import annotations

import hashlib

from osqueue.core.model import Job
from osqueue.core.settings import QueueSettings

MAX_ERRORS = 4
MAX_TEXT_BYTES = 2048
"""Of an error's message and of its traceback."""
MAX_NAME_BYTES = 256
"""Of what a client calls itself or an error: all of it stands in the root."""
DUE_STEP_MS = 125
"""Due times are rounded up to eighths of a second, so that jobs that fail together come back together."""
_LARGEST_POWER = 62


def attempts_allowed(job: Job, settings: QueueSettings) -> int:
    """How many charged attempts the job has in all, those that `requeue` granted included."""
    return job.granted + (settings.max_attempts if job.max_attempts is None else job.max_attempts)


def is_last_attempt(job: Job, settings: QueueSettings) -> bool:
    """Whether the attempt to come is the last one that the job is allowed."""
    return job.attempts + 1 >= attempts_allowed(job, settings)


def clip(text: str, limit: int = MAX_NAME_BYTES) -> str:
    """The first ``limit`` bytes of a text, in whole characters."""
    return text if len(text) * 4 <= limit else text.encode()[:limit].decode(errors="ignore")


def clip_start(text: str, limit: int) -> str:
    """The last ``limit`` bytes of a text, in whole characters."""
    return text if len(text) * 4 <= limit else text.encode()[-limit:].decode(errors="ignore")


def retry_delay_s(job_id: int, attempt: int, settings: QueueSettings, seed: str) -> float:
    """Exponential back-off with full jitter: anywhere between 0 and ``min(max, backoff * 2**(attempt-1))``.

    "Full jitter" is from M. Brooker, *Exponential Backoff And Jitter*, AWS Architecture Blog, 2015. The dice are a
    hash of job, attempt and ``seed``: the core has no randomness of its own.
    """
    ceiling = min(settings.retry_backoff_max_s, settings.retry_backoff_s * 2 ** min(attempt - 1, _LARGEST_POWER))
    return float(ceiling * _unit(f"{seed}:{job_id}:{attempt}") if settings.retry_jitter else ceiling)


def _unit(text: str) -> float:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=7).digest()) / (1 << 56)


def due_ms(now_ms: int, delay_s: float) -> int:
    """When a job that waits for ``delay_s`` is ready."""
    if delay_s <= 0:
        return now_ms
    return -(-(now_ms + round(delay_s * 1000)) // DUE_STEP_MS) * DUE_STEP_MS
