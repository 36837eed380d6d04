"""What a claim hands out."""

from __future__ import annotations

from typing import Generic, TypeVar

from msgspec import Struct

from osqueue.core.codec import iso
from osqueue.core.messages import Handout

T = TypeVar("T")


class Job(Struct, Generic[T], frozen=True, kw_only=True):
    """A claimed job: what to do, and what to say when it is done.

    Attributes:
        id: the job's number.
        task: the name of the handler that runs it.
        payload: what was pushed; bytes from a `Broker` or `Client`, the declared type from a `Queue`.
        attempt: which attempt this is, from 1.
        pushed_at: when it was pushed, ISO 8601 UTC.
    """

    id: int
    task: str
    payload: T
    attempt: int
    pushed_at: str
    _lease: int
    _claimed_ms: int


def claimed(handout: Handout, lease: int, now_ms: int) -> Job[bytes]:
    """A handed-out job as users see it; ``now_ms``: the broker's time."""
    return Job(
        id=handout.id,
        task=handout.task,
        payload=handout.payload,
        attempt=handout.attempt,
        pushed_at=iso(handout.pushed_ms),
        _lease=lease,
        _claimed_ms=now_ms,
    )
