"""What a supervisor decides: which worker gets what, whom a death is charged to, when to claim, report, start, kill.

    broker ──granted, cancelled, lost, answered──▶ ┌─────────┐ ──SendWorker, KillWorker, StartWorker──▶ workers
    workers ──up, wrote, gave back, ended────────▶ │ Foreman │
    time ──tick──────────────────────────────────▶ └─────────┘ ──ClaimJobs, SendReport──▶ broker

No I/O, thread or clock: events and the time come in, effects are taken out with `settle`.

Rules:
* Every job here is in one place: the queue, one worker, or (as an outcome) the reports.
* A worker that dies charges the one job in its blame slot. What it had not begun goes to others, uncharged.
* If we killed it for the sake of one job, and it is on another by then, that other one is not charged.
* While it is paused nothing is claimed, and what has not begun is returned.
* A job that was cancelled or lost is no longer ours: whatever becomes of it is told to nobody.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from osqueue.blame import Blamed
from osqueue.core.messages import Handout, JobError, Outcome, Progress, Verdict
from osqueue.supervisor import deaths
from osqueue.supervisor.claims import Claims
from osqueue.supervisor.crew import Crew, Member
from osqueue.supervisor.drops import Drops
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
    WithdrawClaims,
)
from osqueue.supervisor.ending import Ending
from osqueue.supervisor.feeding import Feeding
from osqueue.supervisor.pace import Pace
from osqueue.supervisor.reports import Reports
from osqueue.supervisor.retirement import Retirement
from osqueue.supervisor.watch import RunningOn, Watch
from osqueue.worker.messages import CancelJobs, GiveBack, Progressed, Ran, Work
from osqueue.worker_process import Ended

_NS_PER_S = 1_000_000_000
_NS_PER_MS = 1_000_000


class Foreman:
    """The decisions of one supervisor. One thread; every time is nanoseconds of the boot clock.

    Args:
        workers: how many.
        timeout_s: the pool's hard timeout, for jobs without one of their own.
        grace_s: how long a cancelled job may go on, and a worker may take to end.
        running_on: which job a slot's worker is on now, from the blame file.
        max_tasks_per_child: after how many jobs a worker is replaced; None for never.
        max_memory_per_child_bytes: above how much resident memory, likewise.
    """

    def __init__(
        self,
        *,
        workers: int,
        timeout_s: float | None,
        grace_s: float,
        running_on: RunningOn,
        max_tasks_per_child: int | None = None,
        max_memory_per_child_bytes: int | None = None,
    ) -> None:
        self._grace_ns = round(grace_s * _NS_PER_S)
        self._pace = Pace()
        self._crew = Crew(workers)
        self._feeding = Feeding(self._pace)
        self._claims = Claims(workers)
        self._reports = Reports()
        self._drops = Drops()
        self._watch = Watch(timeout_s, running_on)
        self._retirement = Retirement(
            max_jobs=max_tasks_per_child, max_memory_bytes=max_memory_per_child_bytes, grace_ns=self._grace_ns
        )
        self._effects: list[Effect] = []
        self._offset_ms = 0
        self._told: JobError | None = None
        self._claiming = False
        self._paused = False
        self._newest_id = 0
        self._ending = Ending()

    # ------------------------------------------------------------------------------------------- events from the broker

    def start(self, now_ns: int) -> None:
        """Start the first worker, and claim."""
        self._claiming = True
        self._crew.begin(now_ns)

    def granted(self, jobs: list[Handout], now_ns: int) -> None:
        """Jobs have arrived."""
        self._claims.granted([len(job.payload) for job in jobs])
        jobs = self._not_held(jobs)
        if self._takes:
            self._feeding.put(jobs)
        else:
            self._return(jobs, now_ns)

    def _not_held(self, jobs: list[Handout]) -> list[Handout]:
        """Without those that are here: a segment that could not be read for long is granted anew when it can be."""
        oldest = min((job.id for job in jobs), default=self._newest_id + 1)
        newest, self._newest_id = self._newest_id, max(self._newest_id, *(job.id for job in jobs), 0)
        if oldest > newest:
            return jobs  # the common case, which costs no look at all that is held
        held = set(self.held())
        return [job for job in jobs if (job.id, job.attempt) not in held]

    def no_longer_ours(self, ids: Sequence[int], now_ns: int) -> None:
        """Jobs were cancelled or lost: drop those that have not begun, let the others stop or be killed."""
        wanted = frozenset(ids)
        self._feeding.remove(wanted)
        for member in self._crew.members:
            theirs = [job_id for job_id in member.sent if job_id in wanted]
            if theirs:
                member.doomed.update(dict.fromkeys(theirs, now_ns + self._grace_ns))
                self._send(member, CancelJobs(theirs))

    def answered(self, number: int) -> None:
        """A report is durable."""
        self._reports.answered(number)

    def reconnected(self) -> None:
        """A new broker knows nothing of what was asked for."""
        self._claims.forgotten()

    def held(self) -> list[tuple[int, int]]:
        """Id and attempt of every job that is here, its outcome included until it is durable."""
        held = [(job.id, job.attempt) for job in self._feeding.jobs]
        for member in self._crew.members:
            held.extend((job.id, job.attempt) for job in member.sent.values() if job.id not in member.doomed)
        return held + self._reports.held()

    # ------------------------------------------------------------------------------------------ events from the workers

    def worker_up(self, slot: int, pid: int, now_ns: int) -> None:
        """A worker stands."""
        member = self._crew.members[slot]
        if member.state == "starting":
            self._crew.up(member, pid, now_ns)

    def worker_not_up(self, error: JobError) -> None:
        """A worker says why it cannot stand; its end follows."""
        self._told = error

    def wrote(self, slot: int, outcomes: list[Outcome], ran: list[Ran], now_ns: int, *, rss_bytes: int = 0) -> None:
        """A worker has finished jobs, and had so much memory then; 0 if it did not measure."""
        member = self._crew.members[slot]
        member.heard(now_ns, len(outcomes))
        self._pace.note(ran)
        self._reports.add(self._accepted(member, outcomes), now_ns)
        self._effects += self._retirement.measured(member, rss_bytes)

    def gave_back(self, slot: int, number: int, ids: list[int], now_ns: int) -> None:
        """A worker will not run these jobs."""
        member = self._crew.members[slot]
        jobs = self._taken(member, ids)
        verdict = self._drops.verdict(number)
        if verdict == "cancelled":
            self._report(jobs, "cancelled", now_ns)
        else:
            self._requeue(jobs, now_ns)
        if verdict is not None:
            self._effects += self._drops.answered(number, slot, [job.id for job in jobs])

    def progressed(self, slot: int, message: Progressed) -> None:
        """A handler says how far its job is."""
        job = self._crew.members[slot].sent.get(message.id)
        if job is not None and job.attempt == message.attempt:
            self._crew.members[slot].progress = message

    def worker_ended(self, slot: int, ended: Ended, now_ns: int, *, rss_bytes: int | None = None) -> None:
        """A worker's process is gone, or could not be started."""
        member = self._crew.members[slot]
        blamed = self._watch.current(member)
        if blamed is not None:
            self._charge(member, blamed, ended, now_ns, rss_bytes)
        rest = self._taken(member, list(member.sent))
        dropped = [job for job in rest if self._drops.cancels(slot, job.id)]
        self._report(dropped, "cancelled", now_ns)
        self._effects += self._drops.ended(slot, [job.id for job in dropped])
        self._requeue([job for job in rest if job not in dropped], now_ns)
        if self._crew.ended(member, now_ns, was_on_job=blamed is not None):
            self._failed_start(ended, now_ns)

    # -------------------------------------------------------------------------------------------- events from the owner

    def drop(self, number: int, ids: Sequence[int], now_ns: int) -> None:
        """Take these jobs back if they have not begun, and report them as cancelled; a `Dropped` effect answers.

        Args:
            number: any number above 0, not used before.
        """
        wanted = frozenset(ids)
        here = self._feeding.remove(wanted)
        self._report(here, "cancelled", now_ns)
        asked = self._ask_back(number, wanted)
        self._effects += self._drops.begin(number, "cancelled", [job.id for job in here], asked, now_ns)

    def pause(self, number: int, now_ns: int) -> None:
        """Let no job begin any more, and return what has not; a `Dropped` effect answers. ``number`` as for `drop`."""
        self._paused = True
        self._effects.append(WithdrawClaims())
        self._return(self._feeding.clear(), now_ns)
        self._effects += self._drops.begin(number, "returned", [], self._ask_back(number), now_ns)

    def resume(self) -> None:
        """Claim again."""
        self._paused = False
        self._claims.forgotten()

    def resize(self, workers: int, now_ns: int) -> None:
        """Have so many workers: start those that lack, end the surplus when they have done what they are on."""
        self._crew.resize(workers, now_ns)
        self._claims.resize(workers)
        for member in self._crew.standing():
            if self._crew.is_surplus(member) and self._unbegun(member):
                self._send(member, GiveBack(0))

    def _ask_back(self, number: int, wanted: Collection[int] | None = None) -> dict[int, list[int]]:
        """Ask the workers for those of these jobs, or of all, that have not begun; whom for which."""
        asked: dict[int, list[int]] = {}
        for member in self._crew.standing():
            if theirs := [one for one in self._unbegun(member) if wanted is None or one in wanted]:
                asked[member.slot] = theirs
                self._send(member, GiveBack(number, theirs))
        return asked

    def _unbegun(self, member: Member) -> list[int]:
        """What it has not begun. What it has is not asked for: one that cannot answer now would be waited for."""
        blamed = self._watch.current(member)
        begun = None if blamed is None else blamed.job_id
        return [one for one in member.sent if one != begun and one not in member.doomed]

    def stop(self, grace_s: float, now_ns: int) -> None:
        """Let what runs finish within ``grace_s``, return the rest uncharged, end the workers; `Stopped` follows."""
        self._close(now_ns)
        self._ending.ask(self._crew, now_ns + round(grace_s * _NS_PER_S), now_ns)
        for member in self._crew.members:
            if member.sent:
                self._send(member, GiveBack(0))  # what it has begun it finishes; the rest comes back, and is returned

    def kill(self, now_ns: int) -> None:
        """Kill every worker; what was here is returned uncharged, as far as there is time."""
        self._close(now_ns)
        for member in self._crew.present():
            member.condemn("stop")
            self._effects.append(KillWorker(member.slot))

    def running(self) -> dict[str, list[int]]:
        """The jobs that have begun, by task."""
        running: dict[str, list[int]] = {}
        for member in self._crew.members:
            blamed = self._watch.current(member)
            if blamed is not None and blamed.job_id not in member.doomed:
                running.setdefault(member.sent[blamed.job_id].task, []).append(blamed.job_id)
        return running

    def progress(self) -> list[Progress]:
        """How far the jobs are that have begun, where their handlers say so."""
        told = [(member, member.progress) for member in self._crew.members if member.progress is not None]
        return [
            Progress(one.id, one.fraction, one.message)
            for member, one in told
            if (job := member.sent.get(one.id)) is not None and job.attempt == one.attempt
        ]

    def workers(self) -> int:
        """How many workers stand."""
        return len(self._crew.standing())

    def busy(self) -> list[tuple[int, int]]:
        """Slot and pid of each worker that has jobs."""
        return [(member.slot, member.pid) for member in self._crew.members if member.sent]

    # ------------------------------------------------------------------------------------------------- effects and time

    def settle(self, now_ns: int, offset_ms: int) -> list[Effect]:
        """Decide what follows from the events so far, and from the time; to be called after events and at `alarm_ns`.

        Args:
            offset_ms: the broker's time less the boot clock, in milliseconds.
        """
        self._offset_ms = offset_ms
        self._effects += [StartWorker(member.slot) for member in self._crew.due(now_ns)]
        if slow := self._crew.slow(now_ns):
            self._effects.append(SlowStart([member.slot for member in slow]))
        self._effects += self._retirement.advance(self._crew, now_ns)
        self._look_after_workers(now_ns)
        self._effects += self._drops.expired(now_ns)
        self._dispatch(now_ns)
        # Whoever asked for jobs to be dropped is told when the report that says so is durable: it must be under way.
        at_once = any(isinstance(effect, Dropped) for effect in self._effects)
        self._effects += [SendReport(*report) for report in self._reports.take(now_ns, at_once=at_once)]
        # What is on its way back is not to be granted here again before that is known: after a lost connection nobody
        # could tell whether the job that both sides name is the one that came back, or the one that went out again.
        if self._takes and not self._reports.returning:
            in_hand = len(self._feeding) + sum(len(member.sent) for member in self._crew.members)
            if (jobs := self._claims.more(in_hand, self._pace)) > 0:
                self._effects.append(ClaimJobs(jobs))
        self._effects += self._ending.advance(self._crew, now_ns, all_durable=not self._reports)
        effects, self._effects = self._effects, []
        return effects

    def alarm_ns(self) -> int | None:
        """When `settle` must be called again, if no event comes before."""
        alarms = [
            self._crew.next_start_ns(),
            self._reports.due_ns(),
            self._drops.due_ns(),
            self._watch.next_ns(self._crew, hungry=self._is_hungry()),
            self._retirement.next_ns(self._crew),
            self._ending.next_ns(self._crew),
        ]
        return min((alarm for alarm in alarms if alarm is not None), default=None)

    # ---------------------------------------------------------------------------------------------------------- private

    @property
    def _takes(self) -> bool:
        """Whether jobs may begin here."""
        return self._claiming and not self._paused

    def _send(self, member: Member, message: Work | GiveBack | CancelJobs) -> None:
        self._effects.append(SendWorker(member.slot, message))

    def _accepted(self, member: Member, outcomes: list[Outcome]) -> list[Outcome]:
        """The outcomes of jobs that are still ours; the worker no longer has any of them."""
        doomed = member.doomed
        accepted = []
        for outcome in outcomes:
            known = member.take(outcome.id)
            if doomed and doomed.pop(outcome.id, None) is not None:
                continue
            if known is not None:
                accepted.append(outcome)
        return accepted

    def _taken(self, member: Member, ids: Iterable[int]) -> list[Handout]:
        """Take these jobs from the worker, and leave out those that are no longer ours."""
        jobs = [member.take(job_id) for job_id in ids]
        return [job for job in jobs if job is not None and member.doomed.pop(job.id, None) is None]

    def _requeue(self, jobs: list[Handout], now_ns: int) -> None:
        if self._takes:
            self._feeding.put_back(jobs)
        else:
            self._return(jobs, now_ns)

    def _return(self, jobs: list[Handout], now_ns: int) -> None:
        self._report(jobs, "returned", now_ns)

    def _report(self, jobs: list[Handout], verdict: Verdict, now_ns: int) -> None:
        now_ms = now_ns // _NS_PER_MS + self._offset_ms
        self._reports.add([Outcome(job.id, job.attempt, verdict, finished_ms=now_ms) for job in jobs], now_ns)

    def _charge(self, member: Member, blamed: Blamed, ended: Ended, now_ns: int, rss_bytes: int | None) -> None:
        """The worker died on this job: one failed attempt, unless that was our own doing and not for its sake."""
        job = member.sent[blamed.job_id]
        if member.doomed.pop(job.id, None) is not None:
            member.take(job.id)
            return
        timeout_s = self._watch.timeout_s(job)
        error = deaths.error_of(job, member, ended, timeout_s=timeout_s, rss_bytes=rss_bytes)
        if error is None:
            return
        member.take(job.id)
        outcome = Outcome(job.id, job.attempt, "failed", error=error, worker=str(member.pid))
        outcome.started_ms = blamed.started_ns // _NS_PER_MS + self._offset_ms
        outcome.finished_ms = now_ns // _NS_PER_MS + self._offset_ms
        self._reports.add([outcome], now_ns)

    def _failed_start(self, ended: Ended, now_ns: int) -> None:
        error = deaths.broken(ended, self._told, self._crew.failed_in_a_row)
        self._told = None
        if error is None or not self._claiming:
            return
        self._close(now_ns)
        self._effects.append(PoolIsBroken(error))

    def _close(self, now_ns: int) -> None:
        """Take no more jobs, start no more workers, return what no worker has."""
        self._claiming = False
        # Else what is returned comes back at once.
        self._effects.append(WithdrawClaims())
        self._crew.close()
        self._return(self._feeding.clear(), now_ns)

    def _look_after_workers(self, now_ns: int) -> None:
        for due in self._watch.due(self._crew, now_ns, hungry=self._is_hungry()):
            if due.kill_for is not None:
                due.member.condemn(due.kill_for, due.job_id)
                self._effects.append(KillWorker(due.member.slot))
            elif due.message is not None:
                self._effects.append(SendWorker(due.member.slot, due.message))

    def _is_hungry(self) -> bool:
        """Whether a worker is idle and there is nothing here to give it."""
        return self._takes and not self._feeding and any(not member.sent for member in self._crew.takers())

    def _dispatch(self, now_ns: int) -> None:
        if not self._feeding:
            return
        takers = sorted(
            (member for member in self._crew.takers() if not member.stuck), key=lambda member: len(member.sent)
        )
        share = max(1, len(self._feeding) // max(1, len(takers)))
        for member in takers:
            if chunk := self._feeding.chunk_for(member, share=min(share, self._retirement.may_have(member))):
                member.send(chunk, now_ns)
                self._send(member, Work(self._offset_ms, chunk))
