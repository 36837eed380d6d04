"""A foreman with time, workers and a broker that stand still: each test moves them by hand."""

from __future__ import annotations

from osqueue.blame import Blamed
from osqueue.core.messages import Handout, JobError, Outcome
from osqueue.errors import PoolBroken
from osqueue.supervisor.effects import (
    ClaimJobs,
    Dropped,
    Effect,
    KillWorker,
    PoolIsBroken,
    SendReport,
    SendWorker,
    SlowStart,
    StartWorker,
    Stopped,
)
from osqueue.supervisor.foreman import Foreman
from osqueue.worker.messages import FromWorker, Ran, ToWorker, Work
from osqueue.worker_process import Ended

MS = 1_000_000
S = 1_000 * MS
FIRST_PID = 1000
OFFSET_MS = 5_000


class Scene:
    """Moves a foreman; remembers what it wanted."""

    def __init__(
        self, workers: int = 2, *, timeout_s: float | None = None, grace_s: float = 10.0, **limits: int
    ) -> None:
        self.workers = workers
        self.now = 100 * S
        self.on: dict[int, Blamed] = {}
        self.sent: dict[int, list[int]] = {}
        self.effects: list[Effect] = []
        self.last_id = 0
        self.foreman = Foreman(workers=workers, timeout_s=timeout_s, grace_s=grace_s, running_on=self.on.get, **limits)

    # -- arranging

    def open(self) -> Scene:
        """All workers stand, and have stood for a while."""
        self.foreman.start(self.now)
        self.settle()
        for slot in range(self.workers):
            self.up(slot)
        self.wait(2_000)
        return self

    def up(self, slot: int) -> None:
        self.foreman.worker_up(slot, FIRST_PID + slot, self.now)
        self.settle()

    def know(self, run_ms: float, *, task: str = "default", count: int = 1_000) -> None:
        """The task's usual run time is known."""
        self.foreman.wrote(0, [], [Ran(task, count, round(count * run_ms * MS))], self.now)
        self.settle()

    # -- acting

    def grant(self, *jobs: int, task: str = "default", size: int = 10, **options: object) -> list[int]:
        """Grant so many jobs (one number), in one message."""
        [count] = jobs or (1,)
        ids = [self.last_id + 1 + n for n in range(count)]
        self.last_id += count
        payload = b"x" * size
        self.foreman.granted([Handout(n, 1, task, payload, 0, **options) for n in ids], self.now)  # type: ignore[arg-type]
        self.settle()
        return ids

    def begin(self, slot: int, job_id: int, *, attempt: int = 1) -> None:
        """The slot's worker is on this job from now on."""
        self.on[slot] = Blamed(slot, FIRST_PID + slot, 1, job_id, attempt, self.now)

    def finish(self, slot: int, *ids: int, run_ms: float = 1.0, task: str = "default", rss_bytes: int = 0) -> None:
        """The worker has written that these jobs succeeded."""
        self.on.pop(slot, None)
        outcomes = [Outcome(n, 1, "succeeded") for n in ids]
        ran = [Ran(task, len(ids), round(len(ids) * run_ms * MS))]
        self.foreman.wrote(slot, outcomes, ran, self.now, rss_bytes=rss_bytes)
        self.forget(slot, ids)
        self.settle()

    def give_back(self, slot: int, *ids: int, number: int = 0) -> None:
        self.forget(slot, ids)
        self.foreman.gave_back(slot, number, list(ids), self.now)
        self.settle()

    def die(self, slot: int, exit_code: int | None = -9, **known: int) -> None:
        self.sent.pop(slot, None)
        self.foreman.worker_ended(slot, Ended(exit_code), self.now, **known)
        self.on.pop(slot, None)
        self.settle()

    def not_up(self, slot: int, error: JobError) -> None:
        self.foreman.worker_not_up(error)
        self.die(slot, 1)

    def wait(self, ms: float) -> None:
        """Let time pass; alarms ring in their time."""
        end = self.now + round(ms * MS)
        while (alarm := self.foreman.alarm_ns()) is not None and alarm <= end:
            self.now = max(alarm, self.now + 1)
            self.settle()
        self.now = end
        self.settle()

    def settle(self) -> None:
        for effect in self.foreman.settle(self.now, OFFSET_MS):
            self.effects.append(effect)
            if isinstance(effect, SendWorker) and isinstance(effect.message, Work):
                self.sent.setdefault(effect.slot, []).extend(job.id for job in effect.message.jobs)

    def forget(self, slot: int, ids: tuple[int, ...]) -> None:
        self.sent[slot] = [n for n in self.sent.get(slot, []) if n not in ids]

    # -- asserting

    def has(self, slot: int) -> list[int]:
        """The jobs that the slot's worker has been sent and has not done with."""
        return self.sent.get(slot, [])

    def messages(self, slot: int) -> list[ToWorker | FromWorker]:
        """What the slot's worker was told, jobs apart."""
        sends = [e for e in self.effects if isinstance(e, SendWorker) and e.slot == slot]
        return [e.message for e in sends if not isinstance(e.message, Work)]

    def started(self) -> list[int]:
        return [e.slot for e in self.effects if isinstance(e, StartWorker)]

    def slow(self) -> list[list[int]]:
        return [e.slots for e in self.effects if isinstance(e, SlowStart)]

    def killed(self) -> list[int]:
        return [e.slot for e in self.effects if isinstance(e, KillWorker)]

    def claimed(self) -> list[int]:
        return [e.jobs for e in self.effects if isinstance(e, ClaimJobs)]

    def reports(self) -> list[SendReport]:
        return [e for e in self.effects if isinstance(e, SendReport)]

    def answer_all(self) -> None:
        for report in self.reports():
            self.foreman.answered(report.number)
        self.settle()

    def outcomes(self) -> dict[int, Outcome]:
        """Every reported outcome; no job may have two."""
        found: dict[int, Outcome] = {}
        for report in self.reports():
            for outcome in report.outcomes:
                assert outcome.id not in found
                found[outcome.id] = outcome
        return found

    def verdicts(self) -> dict[int, str]:
        return {job_id: outcome.verdict for job_id, outcome in self.outcomes().items()}

    def dropped(self) -> list[list[int]]:
        return [e.ids for e in self.effects if isinstance(e, Dropped)]

    def broken(self) -> PoolBroken | None:
        return next((e.error for e in self.effects if isinstance(e, PoolIsBroken)), None)

    def stopped(self) -> bool:
        return any(isinstance(e, Stopped) for e in self.effects)
