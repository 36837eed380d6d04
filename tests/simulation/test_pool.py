"""A whole pool: foreman, model workers, sessions and commit loop; whatever is lost or killed, each job ends once."""

from __future__ import annotations

import os
from collections import Counter, deque
from collections.abc import Callable
from typing import assert_never

import pytest

from osqueue.blame import Blamed
from osqueue.client.runs import from_runs
from osqueue.core.ending import Attempt
from osqueue.core.messages import AnswerBody, Granted, Handout, Holder, Outcome, Report, Reported
from osqueue.supervisor.effects import (
    ClaimJobs,
    Dropped,
    Effect,
    KillWorker,
    PoolIsBroken,
    SendReport,
    SendWorker,
    StartWorker,
    Stopped,
    WithdrawClaims,
)
from osqueue.supervisor.foreman import Foreman
from osqueue.worker_process import Ended
from tests.simulation.network import Network
from tests.supervisor.model_worker import MS, Worker

SEEDS = int(os.environ.get("OSQUEUE_SEEDS", "40"))
WORKERS = 3
LIMIT_BYTES = 1_000
"""Above it workers are replaced."""


class Claimant:
    """The foreman as the keeper of its session's standing lease."""

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self.foreman = Foreman(
            workers=WORKERS,
            timeout_s=None,
            grace_s=0.05,
            running_on=pool.on.get,
            max_tasks_per_child=pool.max_tasks,
            max_memory_per_child_bytes=LIMIT_BYTES,
        )
        self.lease = 0
        self.reports: dict[int, list[int]] = {}
        """Ids of reports that have not been answered."""

    def held(self) -> list[tuple[int, int]]:
        return self.foreman.held()

    def welcomed(self, lease: int) -> None:
        self.lease = lease or self.lease
        self.foreman.reconnected()

    def granted(self, message: Granted) -> None:
        self.lease = message.lease or self.lease
        self.foreman.granted(message.jobs, self.pool.now)

    def cancelled(self, ids: list[int]) -> None:
        self.foreman.no_longer_ours(ids, self.pool.now)

    def lost(self, ids: list[int]) -> None:
        self.foreman.no_longer_ours(ids, self.pool.now)


class Pool(Network):
    """Clients push and change; workers run, and die; so do their program and the broker."""

    def __init__(self, seed: int) -> None:
        self.on: dict[int, Blamed] = {}
        self.workers: dict[int, Worker] = {}
        self.events: deque[Callable[[], None]] = deque()
        self.running: set[int] = set()
        self.charges: Counter[int] = Counter()
        """How often a job may have been charged, by id: its worker died on it, or it failed."""
        self.dropped: set[int] = set()
        self.pauses: set[int] = set()
        self.unheard: set[int] = set()
        """Ids whose outcome was reported by a program that did not live to hear the answer."""
        self._dead: dict[Holder, list[Attempt]] = {}
        self._last_pid = self._last_drop = 0
        self.max_tasks = [None, None, 1, 5][seed % 4]
        self.claimant = Claimant(self)
        super().__init__(seed, self.claimant)
        self.deadly = self.random.choice([0.0, 0.03, 0.2])
        self.failing = self.random.choice([0.0, 0.1])
        self.foreman.start(self.now)

    @property
    def foreman(self) -> Foreman:
        return self.claimant.foreman

    @property
    def now(self) -> int:
        return self.now_ms * MS

    def run(self) -> None:
        pick = self.random.choice
        what = [
            (2, lambda: self.push(pick([1, 3, 60]))),
            (1, lambda: self.change(pick([1, 5, 100]))),
            (1, self.drop),
            (1, self.pause),
            (2, self.resume),
            (1, lambda: self.foreman.resize(self.random.randint(1, 2 * WORKERS), self.now)),
            (5, self.worker_dies),
            (1, self.program_dies),
            (40, self.live),
        ]
        self.storm([*what, *self.weather()], self.random.randrange(200, 2000))
        self.foreman.resume()
        self.calm(self.live_on, lambda: self.live_jobs() == 0, 6000)

    def live_jobs(self) -> int:
        return self.count("ready", "delayed", "leased")

    # ------------------------------------------------------------------------------------------------ what happens here

    def live(self) -> None:
        """A little time passes for the workers and the foreman."""
        self.bed.now_ms += self.random.choice([0, 0, 1, 1, 2])
        for worker in list(self.workers.values()):
            if worker.state == "starting" and self.random.random() < 0.3:
                worker.state = "up"
                self.foreman.worker_up(worker.slot, worker.pid, self.now)
            worker.step()
        while self.events and self.random.random() < 0.9:
            self.events.popleft()()
        for effect in self.foreman.settle(self.now, 0):
            self._do(effect)

    def live_on(self) -> None:
        for _ in range(3):
            self.live()
        self.wait(500 if self.random.random() < 0.05 else 5)

    def drop(self) -> None:
        """The program cancels futures: what has not begun is taken back."""
        held = [job_id for job_id, _ in self.foreman.held()]
        if held:
            self._last_drop += 1
            self.foreman.drop(self._last_drop, self.random.sample(held, min(3, len(held))), self.now)

    def pause(self) -> None:
        self._last_drop += 1
        self.pauses.add(self._last_drop)
        self.foreman.pause(self._last_drop, self.now)

    def resume(self) -> None:
        self.foreman.resume()

    def worker_dies(self) -> None:
        # One that has something to do: five in a row that die idle mean that workers cannot start.
        busy = [worker for worker in self.workers.values() if worker.job is not None or worker.finished]
        if busy and self.random.random() < self.deadly:
            self.random.choice(busy).die(self.random.choice([-9, -11, 3]))

    def program_dies(self) -> None:
        """The program is killed, and its broker and its workers with it; it is started again."""
        if self.random.random() >= self.deadly / 3:
            return
        self._dead[self.holder] = [(blamed.job_id, blamed.attempt) for blamed in self.on.values()]
        self.charges.update(blamed.job_id for blamed in self.on.values())
        for gone in (self.on, self.workers, self.events, self.running):
            gone.clear()
        self.unheard.update(job_id for ids in self.claimant.reports.values() for job_id in ids)
        self.dropped -= self.unheard  # a drop is answered once its report is durable, and nobody is there for that
        self.unanswered -= len(self.claimant.reports)
        self.claimant = Claimant(self)
        self.join(self.claimant)
        self.foreman.start(self.now)
        self.crash()

    def crash(self) -> None:
        """The next broker learns from blame files what dead programs ran, until it is settled."""
        super().crash()
        for lease in self.bed.loop.machine.state.leases.all():
            if lease.holder in self._dead:
                self.bed.loop.lease_ended(lease.number, self._dead[lease.holder], marks=False)

    def _do(self, effect: Effect) -> None:  # noqa: C901
        match effect:
            case StartWorker():
                self._last_pid += 1
                self.workers[effect.slot] = Worker(self, effect.slot, self._last_pid)
            case SendWorker():
                if effect.slot in self.workers:
                    self.workers[effect.slot].hear(effect.message)
            case KillWorker():
                if effect.slot in self.workers:
                    self.workers[effect.slot].die(-9)
            case WithdrawClaims():
                self.keeper.session.claim_standing([], 0, "pool")
            case ClaimJobs():
                self.keeper.session.claim_standing(["default"], effect.jobs, "pool")
            case SendReport():
                self._report(effect)
            case Dropped():
                if effect.number not in self.pauses:
                    self.dropped.update(effect.ids)
            case PoolIsBroken() | Stopped():
                raise AssertionError(f"nothing asks for this {effect}")
            case _:
                assert_never(effect)

    def _report(self, report: SendReport) -> None:
        claimant = self.claimant
        claimant.reports[report.number] = [outcome.id for outcome in report.outcomes]

        def reported(body: AnswerBody) -> None:
            assert isinstance(body, Reported)
            lost = set(from_runs(body.lost))
            accepted = [outcome for outcome in report.outcomes if outcome.id not in lost]
            self.completed.update(outcome.id for outcome in accepted if outcome.verdict == "succeeded")
            self.cancelled.update(outcome.id for outcome in accepted if outcome.verdict == "cancelled")
            claimant.foreman.answered(report.number)
            del claimant.reports[report.number]

        self.operate(self.keeper, Report(claimant.lease, report.outcomes), reported)

    def hear_what_was_missed(self) -> None:
        """What became of reports whose answer nobody lived to hear."""
        for record in self.records():
            if record.id in self.unheard and record.state == "succeeded" and record.id not in self.completed:
                self.completed[record.id] += 1
            if record.id in self.unheard and record.state == "cancelled" and record.id not in self.cancelled:
                self.cancelled[record.id] += 1

    # ----------------------------------------------------------------------------------------------- where workers live

    def soon(self, event: Callable[[], None]) -> None:
        self.events.append(event)

    def began_run(self, job: Handout) -> None:
        assert job.id not in self.running, f"runs twice at once id={job.id}"
        assert job.attempt <= 1 + self.charges[job.id], f"was charged for what it did not do id={job.id}"
        self.running.add(job.id)

    def ended_run(self, job: Handout) -> None:
        self.running.discard(job.id)

    def outcome(self, job: Handout) -> Outcome:
        if self.random.random() >= self.failing:
            return Outcome(job.id, job.attempt, "succeeded")
        self.charges[job.id] += 1
        return Outcome(job.id, job.attempt, "failed", retry_delay_s=self.random.choice([None, 0]))

    def rss_bytes(self) -> int:
        return LIMIT_BYTES + (self.random.random() < self.deadly / 3)

    def worker_gone(self, worker: Worker, exit_code: int) -> None:
        if worker.job is not None:
            self.charges[worker.job.id] += 1
        self.foreman.worker_ended(worker.slot, Ended(exit_code), self.now)
        self.on.pop(worker.slot, None)


@pytest.mark.parametrize("seed", range(SEEDS))
def test_every_job_of_a_pool_ends_once_whoever_dies(seed: int) -> None:
    pool = Pool(seed)

    pool.run()

    pool.hear_what_was_missed()
    pool.everything_was_answered_and_happened_once()
    assert pool.live_jobs() == 0, "a job is stuck"
    assert pool.foreman.held() == []
    assert pool.dropped <= pool.cancelled.keys(), "what was dropped is cancelled"
    assert not pool.dropped & pool.completed.keys()
