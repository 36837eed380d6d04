"""The workers as the foreman knows them: which stand, what each has been sent, when a dead one is replaced.

    absent ──start──▶ starting ──up──▶ up ──┬─ killed ──▶ dying ──ended──▶ absent
                          │                 └─ ending ────────────ended──▶ absent
                          └──────────────────────────ended──▶ absent, later again

Rules:
* The first worker starts alone; the others follow once it stands.
* Slots from ``size`` on are surplus: their workers get nothing more, end when they are done, and are not replaced.
* A worker that dies is replaced at once, unless it died before its first job and young: that is a failed start.
  Failed starts wait 0.1 s, doubled each time; five in a row and the pool is broken.
* One that was told to end is no failed start, whatever its age and however it ends.
* One that takes long to start is waited for, and named once.
"""

from __future__ import annotations

from typing import Literal

from osqueue.core.messages import Handout
from osqueue.supervisor.pace import Pace
from osqueue.worker.messages import Progressed

MAX_FAILED_STARTS = 5
_FIRST_PAUSE_NS = 100_000_000
_PROVEN_AFTER_NS = 1_000_000_000
SLOW_START_NS = 30_000_000_000
UNKNOWN_NS = float("inf")

KilledFor = Literal["timeout", "cancel", "stop"]


class Member:
    """One slot of the crew, and the worker that has it now."""

    def __init__(self, slot: int) -> None:
        self.slot = slot
        self.state: Literal["absent", "starting", "up", "ending", "dying"] = "absent"
        self.start_at_ns: int | None = None
        """When to start a worker here; None while there is one, or none is wanted."""
        self.slow_at_ns: int | None = None
        """When to say that the worker here takes long to start; None once it stands, or that is said."""
        self.fresh(0)

    def fresh(self, pid: int) -> None:
        """A new worker, or none: it has been sent nothing."""
        self.pid = pid
        self.up_ns = 0
        self.since_ns = 0
        """Nothing that it runs began before: when it last wrote, or was sent the first of what it has."""
        self.looked_ns = 0
        self.has_worked = False
        self.finished = 0
        """How many attempts it has ended."""
        self.worn = False
        """It is to be replaced once what it has begun has ended; until then it gets nothing more."""
        self.sent: dict[int, Handout] = {}
        """What it has, in order: at most the first that has no outcome has begun."""
        self.counts: dict[str, int] = {}
        self.payload_bytes = 0
        self.alone = False
        self.stuck = False
        """It was asked to give back what it has not begun; until it is heard of, it gets nothing more."""
        self.nudged = False
        """It was asked to write out what it has finished."""
        self.doomed: dict[int, int] = {}
        """Jobs to stop, and until when they may stop by themselves, in nanoseconds."""
        self.least_timeout_s: float | None = None
        self.progress: Progressed | None = None
        """What the handler last said of the job that it runs, or ran."""
        self.killed_for: KilledFor | None = None
        self.killed_job = 0
        self.end_by_ns: int | None = None

    def send(self, jobs: list[Handout], now_ns: int) -> None:
        """These jobs are on their way to it."""
        if not self.sent:
            self.since_ns = now_ns
            self.looked_ns = 0
        for job in jobs:
            self.sent[job.id] = job
            self.counts[job.task] = self.counts.get(job.task, 0) + 1
            self.payload_bytes += len(job.payload)
            self.alone = self.alone or job.alone
            if job.timeout_s is not None:
                self.least_timeout_s = min(job.timeout_s, self.least_timeout_s or job.timeout_s)

    def take(self, job_id: int) -> Handout | None:
        """The job is no longer with it: it ended, was given back, or its worker died."""
        job = self.sent.pop(job_id, None)
        if job is None:
            return None
        self.counts[job.task] -= 1
        self.payload_bytes -= len(job.payload)
        if not self.sent:
            self.alone = False
            self.least_timeout_s = None
            self.counts.clear()
        return job

    def work_ns(self, pace: Pace) -> float:
        """How long what it has will usually take; infinite while that is unknown."""
        total = 0.0
        for task, count in self.counts.items():
            if count:
                usual_ns = pace.usual_ns(task)
                if usual_ns is None:
                    return UNKNOWN_NS
                total += count * usual_ns
        return total

    def condemn(self, reason: KilledFor, job_id: int = 0) -> None:
        """It is being killed by us, perhaps for the sake of one job."""
        self.killed_for, self.killed_job = reason, job_id
        self.state = "dying"

    def end(self, by_ns: int) -> None:
        """It is told to end in good order, and has until then."""
        self.state = "ending"
        self.end_by_ns = by_ns

    def is_late(self, now_ns: int) -> bool:
        """Whether it was told to end, and has not in its time."""
        return self.state == "ending" and self.end_by_ns is not None and now_ns >= self.end_by_ns

    def heard(self, now_ns: int, ended: int) -> None:
        """It wrote so many outcomes."""
        self.since_ns = now_ns
        self.finished += ended
        self.has_worked = True
        self.stuck = self.nudged = False


class Crew:
    """All members, and when workers are started."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.members = [Member(slot) for slot in range(size)]
        self.failed_in_a_row = 0
        self._closed = False

    def begin(self, now_ns: int) -> None:
        """Start the first worker."""
        self.members[0].start_at_ns = now_ns

    def due(self, now_ns: int) -> list[Member]:
        """The members whose worker is to be started now; they count as starting."""
        due = [m for m in self.members if m.start_at_ns is not None and m.start_at_ns <= now_ns]
        for member in due:
            member.start_at_ns = None
            member.state = "starting"
            member.fresh(0)
            member.slow_at_ns = now_ns + SLOW_START_NS
        return due

    def slow(self, now_ns: int) -> list[Member]:
        """The members whose worker has been starting for long; each is named once."""
        slow = [m for m in self.members if m.slow_at_ns is not None and m.slow_at_ns <= now_ns]
        for member in slow:
            member.slow_at_ns = None
        return slow

    def up(self, member: Member, pid: int, now_ns: int) -> None:
        """A worker stands: the members that wait for the first one follow."""
        member.fresh(pid)
        member.state = "up"
        member.up_ns = now_ns
        member.slow_at_ns = None
        self._fill(now_ns)

    def resize(self, size: int, now_ns: int) -> None:
        """Have so many slots."""
        self.size = size
        self.members += [Member(slot) for slot in range(len(self.members), size)]
        for member in self.members[size:]:
            member.start_at_ns = None
        self._trim()
        if any(member.up_ns for member in self.present()):
            self._fill(now_ns)

    def _fill(self, now_ns: int) -> None:
        """Start a worker in every slot that has none, and waits for none."""
        for member in [] if self._closed else self.members[: self.size]:
            if member.state == "absent" and member.start_at_ns is None:
                member.start_at_ns = now_ns

    def _trim(self) -> None:
        """Forget the surplus slots that nobody has."""
        while len(self.members) > self.size and self.members[-1].state == "absent":
            self.members.pop()

    def ended(self, member: Member, now_ns: int, *, was_on_job: bool) -> bool:
        """A worker is gone: plan its replacement. True if this was a failed start."""
        standing = member.state in ("up", "ending", "dying") and member.up_ns > 0
        proven = standing and (
            was_on_job
            or member.end_by_ns is not None
            or member.has_worked
            or member.killed_for is not None
            or now_ns - member.up_ns >= _PROVEN_AFTER_NS
        )
        member.state = "absent"
        member.slow_at_ns = None
        pause_ns = 0
        if proven:
            self.failed_in_a_row = 0
        else:
            pause_ns = _FIRST_PAUSE_NS * 2**self.failed_in_a_row
            self.failed_in_a_row += 1
        member.start_at_ns = None if self._closed or self.is_surplus(member) else now_ns + pause_ns
        self._trim()
        return not proven

    def close(self) -> None:
        """Start no more workers."""
        self._closed = True
        for member in self.members:
            member.start_at_ns = member.slow_at_ns = None

    def next_start_ns(self) -> int | None:
        """When the next worker is to be started, or one to be named as slow."""
        times = (time for m in self.members for time in (m.start_at_ns, m.slow_at_ns) if time is not None)
        return min(times, default=None)

    def is_surplus(self, member: Member) -> bool:
        """Whether there are more workers than are wanted, and this is one of them."""
        return member.slot >= self.size

    def standing(self) -> list[Member]:
        """Those that may have jobs."""
        return [m for m in self.members if m.state == "up"]

    def takers(self) -> list[Member]:
        """Those that take jobs."""
        return [m for m in self.members[: self.size] if m.state == "up"]

    def present(self) -> list[Member]:
        """Those with a process, starting and dying ones too."""
        return [m for m in self.members if m.state != "absent"]
