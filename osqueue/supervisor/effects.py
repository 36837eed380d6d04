"""What the foreman wants done. The supervisor does it, in order, without waiting for anything."""

from __future__ import annotations

from msgspec import Struct

from osqueue.core.messages import Outcome
from osqueue.errors import PoolBroken
from osqueue.worker.messages import ToWorker


class StartWorker(Struct, frozen=True):
    """Start a worker process for this slot; `Foreman.worker_up` or `Foreman.worker_ended` follows."""

    slot: int


class SlowStart(Struct, frozen=True):
    """The workers of these slots have not come up for `crew.SLOW_START_NS`; they are waited for."""

    slots: list[int]


class SendWorker(Struct, frozen=True):
    slot: int
    message: ToWorker


class KillWorker(Struct, frozen=True):
    """Kill the slot's worker and its process group; `Foreman.worker_ended` follows."""

    slot: int


class ClaimJobs(Struct, frozen=True):
    """Ask the broker for so many more jobs."""

    jobs: int


class WithdrawClaims(Struct, frozen=True):
    """Take back what was asked of the broker and not granted."""


class SendReport(Struct, frozen=True):
    """Report the outcomes; `Foreman.answered` with this number follows once they are durable."""

    number: int
    outcomes: list[Outcome]


class Dropped(Struct, frozen=True):
    """The answer to `Foreman.drop` and `Foreman.pause`: of the jobs asked for, these had not begun, and will not."""

    number: int
    ids: list[int]


class PoolIsBroken(Struct, frozen=True):
    """Workers cannot start."""

    error: PoolBroken


class Stopped(Struct, frozen=True):
    """The stop is complete: no worker lives, and every outcome is durable."""


Effect = (
    StartWorker
    | SlowStart
    | SendWorker
    | KillWorker
    | ClaimJobs
    | WithdrawClaims
    | SendReport
    | Dropped
    | PoolIsBroken
    | Stopped
)
