"""What is said of a worker that died: to the job that it ran, and of the pool when none can start."""

from __future__ import annotations

import signal

from osqueue.core.messages import Handout, JobError
from osqueue.errors import PoolBroken
from osqueue.supervisor.crew import MAX_FAILED_STARTS, Member
from osqueue.worker.failure import cut_end
from osqueue.worker.lifeline import CANNOT_SPEAK
from osqueue.worker_process import NO_MAIN_GUARD, Ended

_MIB = 1024 * 1024

GUARD_ADVICE = """\
the pool is made while its own workers import the program's main module: put it behind a main guard

    if __name__ == "__main__":
        with LocalPool(...) as pool:
            ...
"""


def error_of(
    job: Handout, member: Member, ended: Ended, *, timeout_s: float | None, rss_bytes: int | None
) -> JobError | None:
    """What the job that a dead worker was on failed of; None if it is not to blame, since we killed the worker."""
    if member.killed_for is None:
        return crash(ended, attempt=job.attempt, rss_bytes=rss_bytes)
    if member.killed_for == "timeout" and member.killed_job == job.id and timeout_s is not None:
        return timeout(timeout_s, attempt=job.attempt, rss_bytes=rss_bytes)
    return None


def crash(ended: Ended, *, attempt: int, rss_bytes: int | None) -> JobError:
    """The error of the job that a worker died under, by no doing of ours."""
    name = signal_name(ended)
    return JobError(
        error_type="WorkerCrashed",
        message=cut_end(_how(ended, rss_bytes)),
        traceback=ended.report,
        attempt=attempt,
        signal=name,
        exit_status=ended.exit_code if name is None else None,
        rss_bytes=rss_bytes,
    )


def timeout(timeout_s: float, *, attempt: int, rss_bytes: int | None) -> JobError:
    """The error of a job that was killed for running too long."""
    return JobError(
        error_type="JobTimeout",
        message=f"the job ran longer than its timeout and was killed timeout_s={timeout_s:g}",
        attempt=attempt,
        rss_bytes=rss_bytes,
    )


def broken(ended: Ended, told: JobError | None, failed_in_a_row: int) -> PoolBroken | None:
    """Why the pool cannot go on, if it cannot.

    Args:
        ended: how the last worker that could not start ended.
        told: what it said before, if it could.
        failed_in_a_row: how many starts have failed, this one included.
    """
    if ended.exit_code == NO_MAIN_GUARD:
        return PoolBroken(GUARD_ADVICE)
    if failed_in_a_row < MAX_FAILED_STARTS:
        return None
    head = f"workers cannot start, {failed_in_a_row} in a row died before their first job"
    if told is None:
        return PoolBroken(f"{head}; the last one: {_how(ended, None)}\n{ended.report}".rstrip())
    return PoolBroken(f"{head}; the last one: {told.error_type}: {told.message}\n\n{told.traceback}".rstrip())


def signal_name(ended: Ended) -> str | None:
    """The name of the signal that killed it; None if none did."""
    if ended.exit_code is None or ended.exit_code >= 0:
        return None
    try:
        return signal.Signals(-ended.exit_code).name
    except ValueError:
        return f"signal {-ended.exit_code}"  # a real-time signal


def _how(ended: Ended, rss_bytes: int | None) -> str:
    seen = "" if rss_bytes is None else f", last seen with {rss_bytes / _MIB:.0f} MiB of memory"
    if ended.exit_code is None:
        return f"the worker ended, its exit status is unknown{seen}"
    name = signal_name(ended)
    if ended.exit_code == CANNOT_SPEAK:
        return f"the worker can no longer be heard: its handler has closed descriptors that are not its own{seen}"
    if name is None:
        return f"the worker exited with status {ended.exit_code}{seen}"
    hint = "; not by osqueue: the kernel's out-of-memory killer is a usual cause" if name == "SIGKILL" else ""
    return f"the worker was killed by {name} (exit status {ended.exit_code}){seen}{hint}"
