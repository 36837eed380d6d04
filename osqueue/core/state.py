"""The queue's parts under one roof, and the moves of a job that several operations share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from msgspec import UNSET, Raw, structs

from osqueue.core import codec, policy
from osqueue.core.backlog import Backlog
from osqueue.core.counts import TaskCounts
from osqueue.core.finished import Finished
from osqueue.core.keys import Keys
from osqueue.core.leases import Lease, Leases
from osqueue.core.locator import Place
from osqueue.core.messages import FromBroker, JobError, Outcome, Progress
from osqueue.core.model import INLINE, Frame, Job, Record, Root
from osqueue.core.runs import SlotRun
from osqueue.core.segment import NeedsObjectsError
from osqueue.core.sessions import Sessions
from osqueue.core.settings import QueueSettings
from osqueue.core.watchers import Watchers


class QueueState:
    """Everything durable, taken apart, and what is rebuilt from it. Not thread-safe; owned by the machine.

    Attributes:
        outbox: messages to sessions, in order; they leave once the batch that made them has landed.
        changed: whether there is anything to commit.
        wanted: keys of objects that something waits for.
        has_room: False while the store is nearly full, so that pushes are refused.
    """

    def __init__(self, root: Root, settings: QueueSettings, *, now_ms: int) -> None:
        self.settings = settings
        self.frame = Frame(**{name: getattr(root, name) for name in Frame.__struct_fields__})
        self.backlog = Backlog(root)
        self.counts = TaskCounts(root.tasks)
        self.leases = Leases(root.leases, term_ms=round(settings.lease_s * 1000), now_ms=now_ms)
        self.keys = Keys(root.keys, root.key_objects, root.keys_since or 1)
        self.sessions = Sessions(root.sessions, root.forgotten)
        self.finished = Finished([bytes(raw) for raw in root.finished])
        self.watchers = Watchers()
        self.outbox: list[tuple[str, FromBroker]] = []
        self.wanted: set[str] = set()
        self.changed = False
        self.has_room = True

    # -------------------------------------------------------------------------------------------------- a job's end

    def finish(self, job: Job, state: str, *, now_ms: int, outcome: Outcome | None = None, clean: bool = True) -> None:
        """Write a job's record; ``outcome`` is its last attempt's, ``clean`` whether the result is plain JSON."""
        result = outcome.result if outcome is not None and state == "succeeded" else None
        attempts = job.attempts if outcome is None or result is None else outcome.attempt
        self.finished.add(
            Record(
                id=job.id,
                task=job.task,
                payload=job.payload,
                payload_base64=job.payload_base64,
                state=state,  # type: ignore[arg-type]
                attempts=attempts,
                errors=job.errors,
                result=Raw(b"null" if result is None else result) if clean else UNSET,
                result_base64=UNSET if clean or result is None else result,
                pushed_at=codec.iso(job.pushed_ms),
                started_at=codec.iso(outcome.started_ms) if outcome is not None and outcome.started_ms else None,
                finished_at=codec.iso(outcome.finished_ms if outcome is not None and outcome.finished_ms else now_ms),
                worker=outcome.worker or None if outcome is not None else None,
                priority=job.priority or UNSET,
                key=job.key or UNSET,
            )
        )
        if state != "dead":
            self.keys.release(job)
        if self.watchers:
            self.watchers.ended(job, state, attempts, result)

    # ---------------------------------------------------------------------------------------------- a failed attempt

    def charge(self, place: Place, outcome: Outcome, *, now_ms: int, seed: str) -> None:
        """A leased job's attempt failed: it leaves its place, whole, for the deferred or the dead."""
        job = self._charged(place.job, outcome, now_ms)
        self.backlog.remove_leased([place])
        if outcome.verdict == "dead" or job.attempts >= policy.attempts_allowed(job, self.settings):
            self.bury(job)
            return
        delay_s = outcome.retry_delay_s
        if delay_s is None:
            delay_s = policy.retry_delay_s(job.id, job.attempts, self.settings, seed)
        job.due_ms = policy.due_ms(now_ms, delay_s)
        delayed = self.backlog.defer([job], now_ms)
        self.counts.move(job.task, "leased", "delayed" if delayed else "ready")

    def _charged(self, job: Job, outcome: Outcome, now_ms: int) -> Job:
        error = outcome.error or JobError("UnknownError")
        error = structs.replace(
            error,
            error_type=policy.clip(error.error_type),
            message=policy.clip(error.message, policy.MAX_TEXT_BYTES),
            traceback=policy.clip_start(error.traceback, policy.MAX_TEXT_BYTES),
            signal=None if error.signal is None else policy.clip(error.signal),
            attempt=outcome.attempt,
            at=codec.iso(outcome.finished_ms or now_ms),
        )
        errors = (*job.errors, error)[-policy.MAX_ERRORS :]
        return structs.replace(job.apart(), attempts=outcome.attempt, errors=errors)

    def bury(self, job: Job) -> None:
        """A job that has failed for good."""
        self.backlog.inline.add("dead", [job])
        self.keys.release(job)
        self.counts.move(job.task, "leased", "dead")
        self.watchers.ended(job, "dead", job.attempts)

    # ------------------------------------------------------------------------------------------------------- leases

    def give_back(self, runs: Iterable[SlotRun]) -> None:
        """Runs that their lease no longer holds are ready again, uncharged."""
        for task, count in self.backlog.give_back(runs):
            self.counts.move(task, "leased", "ready", count)

    def forgo_records(self, jobs: int) -> None:
        """So many jobs that have ended have no record, or none any more once this has landed."""
        self.frame.pruned = (self.frame.pruned or 0) + jobs
        self.changed = True

    # -------------------------------------------------------------------------------------------------- looking up

    def find(self, job_id: int) -> Place | None:
        """As `locate`, for one job."""
        [place] = self.locate([job_id])
        return place

    def locate(self, ids: Sequence[int]) -> list[Place | None]:
        """As `Backlog.locate`, whoever may hold the jobs."""
        return self.backlog.locate(ids, self._is_leased)

    def locate_first(self, ids: Sequence[int]) -> list[Place | None]:
        """As `locate`, for as many of the first ids as may be looked up together."""
        return self.backlog.locate(ids, self._is_leased, in_parts=True)

    def _is_leased(self, object_: int, slot: int) -> bool:
        return any(lease.runs.find(object_, slot) for lease in self.leases.all())

    def places(self, runs: Iterable[SlotRun]) -> list[Place]:
        """The jobs of some runs; those in damaged segments are left out, since nobody can say what they are.

        Raises:
            NeedsObjectsError: with every key that is missing.
        """
        backlog, inline = self.backlog, self.backlog.inline.jobs
        runs = [run for run in runs if run[0] == INLINE or not backlog.segments[run[0]].damaged]
        keys = {s.key for run in runs if run[0] != INLINE and (s := backlog.segments[run[0]]).jobs is None}
        if keys:
            raise NeedsObjectsError(keys)
        return [
            Place(run[0], slot, inline[slot] if run[0] == INLINE else backlog.segments[run[0]].loaded()[slot])
            for run in runs
            for slot in range(run[1], run[2] + 1)
        ]

    def lease_of(self, place: Place) -> Lease | None:
        """Who holds a job."""
        for lease in self.leases.all():
            if lease.runs.find(place.object, place.slot):
                return lease
        return None

    def progress_of(self, place: Place) -> Progress | None:
        """How far a running job is, if its handler says so."""
        lease = self.lease_of(place)
        return None if lease is None else lease.progress.get(place.job.id)

    def has_lease(self, session: str) -> bool:
        """Whether a session holds anything, so that it must not be forgotten."""
        return bool(self.leases.of_session(session))

    def has_ready(self, tasks: Iterable[str]) -> bool:
        """Whether a job of these tasks waits for a claim."""
        return any(self.counts.ready(task) for task in tasks)

    def blocked(self, tasks: Iterable[str]) -> tuple[int, list[str]]:
        """How many unfinished jobs of these tasks are in damaged segments, and the segments' keys."""
        damaged = {n: segment for n, segment in self.backlog.damaged().items() if segment.line.kind != "dead"}
        jobs = Counter[str]()
        for task, count in self.backlog.by_task(run for run in self.backlog.lanes.returned() if run[0] in damaged):
            jobs[task] += count
        for task, count in self.backlog.untaken(damaged.values()):
            jobs[task] += count
        return sum(jobs[task] for task in tasks), sorted(segment.key for segment in damaged.values())

    def begun(self) -> Counter[str]:
        """By task: how many jobs run, as far as their holders have said; of a bare claim all do."""
        begun: Counter[str] = Counter()
        for lease in self.leases.all():
            if lease.standing:
                begun.update(lease.begun.values())
                continue
            for task, count in self.backlog.by_task(lease.runs):
                begun[task] += count
        return begun

    def waiting(self) -> int:
        """How many jobs wait: delayed, ready, or handed out and not begun."""
        begun = self.begun()
        return sum(of.ready + of.delayed + of.leased - min(begun[task], of.leased) for task, of in self.counts.items())

    def room(self, wanted: int) -> int:
        """How many of so many jobs ``max_queued`` leaves room for."""
        limit = self.settings.max_queued
        return wanted if limit is None else max(0, min(wanted, limit - self.waiting()))

    def state_of(self, place: Place) -> str | None:
        """A job's state by its place; None for a slot that its job has left."""
        if self.backlog.is_dead(place):
            return "dead"
        if self.backlog.is_waiting(place):
            return "delayed" if self.backlog.is_delayed(place) else "ready"
        lease = self.lease_of(place)
        if lease is None:
            return None
        return "running" if not lease.standing or place.job.id in lease.begun else "ready"
