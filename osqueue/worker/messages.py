"""What a supervisor and one of its workers say to each other, over a socket pair of their own.

    supervisor ──Work, GiveBack, CancelJobs, WriteOut, End──▶ worker
    supervisor ◀─Up, NotUp, Wrote, GivenBack, Progressed── worker

Rules:
* `Up` or `NotUp` comes first, before any job is sent.
* Of each job of a `Work` the worker says one thing: an outcome, or that it gave the job back; or it dies.
* Each `GiveBack` is answered by one `GivenBack`, with the same number; `CancelJobs` by one that has number 0.
"""

from __future__ import annotations

from msgspec import Struct

from osqueue.core.messages import Handout, JobError, Outcome


class Work(Struct, tag="work", array_like=True):
    """Run these jobs in this order, after what was sent before. ``offset_ms``: broker's time less the boot clock."""

    offset_ms: int
    jobs: list[Handout]


class GiveBack(Struct, tag="give_back", array_like=True):
    """Give back what has not begun: these ids, or all if there are none; and write out what is finished."""

    number: int
    ids: list[int] = []


class CancelJobs(Struct, tag="cancel", array_like=True):
    """These jobs were cancelled: drop them if they have not begun, else let the handler know."""

    ids: list[int]


class WriteOut(Struct, tag="write_out", array_like=True):
    """Write out what is finished, though the job that runs now goes on."""


class End(Struct, tag="end", array_like=True):
    """End in good order once the jobs sent before are done."""


class Up(Struct, tag="up", array_like=True):
    """The worker stands and takes jobs."""

    pid: int
    process_started: int


class NotUp(Struct, tag="not_up", array_like=True):
    """The worker cannot stand, and ends: an import or its initializer failed."""

    error: JobError


class Ran(Struct, array_like=True, gc=False):
    """How many jobs of a task ran since the last `Wrote`, and how long they took together."""

    task: str
    count: int
    total_ns: int


class Wrote(Struct, tag="wrote", array_like=True):
    """What became of jobs, in the order in which they ended; and perhaps the worker's resident memory after them."""

    outcomes: list[Outcome]
    ran: list[Ran]
    rss_bytes: int = 0


class GivenBack(Struct, tag="given_back", array_like=True):
    """These jobs had not begun and will not; in the order in which they were sent."""

    number: int
    ids: list[int]


class Progressed(Struct, tag="progressed", array_like=True):
    """A handler says how far its job is. Of many only some are said, and always the last."""

    id: int
    attempt: int
    fraction: float
    message: str


ToWorker = Work | GiveBack | CancelJobs | WriteOut | End
FromWorker = Up | NotUp | Wrote | GivenBack | Progressed
