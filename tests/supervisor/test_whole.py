"""Whatever workers, broker and time do: each job has one fate, and only those that ran pay."""

from __future__ import annotations

import random
from collections import Counter, deque

from hypothesis import given, settings
from hypothesis import strategies as st

from osqueue.blame import Blamed
from osqueue.core.messages import Handout, Outcome
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
from tests.supervisor.model_worker import MS, TASKS, Worker

LIMIT_BYTES = 1_000


class World:
    """Foreman, workers and a broker that is a list, under one seed."""

    def __init__(
        self, seed: int, *, workers: int, jobs: int, deadly: float, max_tasks_per_child: int | None = None
    ) -> None:
        self.random = random.Random(seed)
        self.now = 10**12
        self.deadly = deadly
        self.on: dict[int, Blamed] = {}
        self.max_runs = max_tasks_per_child
        self.foreman = Foreman(
            workers=workers,
            timeout_s=2.0,
            grace_s=0.1,
            running_on=self.on.get,
            max_tasks_per_child=max_tasks_per_child,
            max_memory_per_child_bytes=LIMIT_BYTES,
        )
        self.workers: dict[int, Worker] = {}
        self.events: deque[object] = deque()
        self.last_pid = 100
        self.waiting = deque(self.job(n + 1) for n in range(jobs))
        self.credits = 0
        self.held: dict[int, Handout] = {}
        self.final: dict[int, str] = {}
        self.cancelled: set[int] = set()
        self.running: Counter[int] = Counter()
        self.runs: Counter[int] = Counter()
        self.runs_in: Counter[int] = Counter()
        self.charged: Counter[int] = Counter()
        self.deaths_on: Counter[int] = Counter()
        self.drops = 0
        self.dropped: list[int] = []
        self.pauses: set[int] = set()
        self.quiet = False
        """Whether no job may begin: a pause was answered."""
        self.broken = self.stopped = False

    def job(self, job_id: int) -> Handout:
        task = self.random.choice(list(TASKS))
        timeout_s = self.random.choice([None, None, None, 0.3])
        return Handout(job_id, 1, task, b"1", 0, timeout_s, self.random.random() < 0.03)

    def soon(self, event: object) -> None:
        self.events.append(event)

    def began_run(self, job: Handout) -> None:
        self.running[job.id] += 1
        self.runs[job.id] += 1
        assert not self.quiet, f"job begins in a paused pool id={job.id}"
        assert self.running[job.id] == 1, f"job runs twice at once id={job.id}"
        assert self.final.get(job.id) != "succeeded", f"job runs after its success id={job.id}"
        if job.id not in self.cancelled:
            assert job.id in self.held, f"job runs though it is not held id={job.id}"

        [pid] = [worker.pid for worker in self.workers.values() if worker.job is job]
        self.runs_in[pid] += 1
        assert self.max_runs is None or self.runs_in[pid] <= self.max_runs, f"one job too many in a worker id={job.id}"

    def ended_run(self, job: Handout) -> None:
        self.running[job.id] -= 1

    def rss_bytes(self) -> int:
        return LIMIT_BYTES + (self.random.random() < self.deadly)

    def outcome(self, job: Handout) -> Outcome:
        return Outcome(job.id, job.attempt, "succeeded")

    def worker_gone(self, worker: Worker, exit_code: int) -> None:
        if worker.job is not None:
            self.deaths_on[worker.job.id] += 1
        self.foreman.worker_ended(worker.slot, Ended(exit_code), self.now)
        self.on.pop(worker.slot, None)

    def do(self, effect: Effect) -> None:  # noqa: C901
        match effect:
            case StartWorker(slot=slot):
                assert slot not in self.workers
                self.last_pid += 1
                self.workers[slot] = Worker(self, slot, self.last_pid)
            case SendWorker(slot=slot, message=message):
                if slot in self.workers:
                    self.workers[slot].hear(message)
            case KillWorker(slot=slot):
                if slot in self.workers:
                    self.workers[slot].die(-9)
            case ClaimJobs(jobs=jobs):
                self.credits += jobs
            case WithdrawClaims():
                self.credits = 0
            case SendReport(number=number, outcomes=outcomes):
                for outcome in outcomes:
                    self.take(outcome)
                self.soon(lambda: self.foreman.answered(number))
            case Dropped(number=number, ids=ids):
                if number in self.pauses:
                    self.pauses.clear()
                    self.quiet = True
                else:
                    self.dropped += ids
            case PoolIsBroken():
                self.broken = True
            case Stopped():
                self.stopped = True

    def take(self, outcome: Outcome) -> None:
        job = self.held.pop(outcome.id, None)
        if job is None:
            assert outcome.id in self.cancelled, f"outcome of a job that is not held {outcome}"
            return
        assert job.attempt == outcome.attempt
        if outcome.verdict == "failed":
            self.charged[outcome.id] += 1
            self.waiting.append(Handout(job.id, job.attempt + 1, job.task, job.payload, 0, job.timeout_s, job.alone))
        elif outcome.verdict == "returned":
            self.waiting.append(job)
        else:
            assert outcome.id not in self.final
            self.final[outcome.id] = outcome.verdict

    def act(self) -> None:
        """One thing happens, and time passes."""
        dice = self.random.random()
        if dice < self.deadly and self.workers:
            self.random.choice(list(self.workers.values())).die(self.random.choice([-9, -11, 3]))
        elif dice < self.deadly + 0.01 and self.held:
            self.cancel(self.random.sample(list(self.held), min(3, len(self.held))))
        elif dice < self.deadly + 0.02 and self.held:
            self.drops += 1
            self.foreman.drop(self.drops, self.random.sample(list(self.held), min(3, len(self.held))), self.now)
        elif dice < self.deadly + 0.03:
            self.credits = 0
            self.foreman.reconnected()
        elif dice < self.deadly + 0.04:
            self.drops += 1
            self.pauses.add(self.drops)
            self.foreman.pause(self.drops, self.now)
        elif dice < self.deadly + 0.06:
            self.resume()
        elif dice < self.deadly + 0.07:
            self.foreman.resize(self.random.randint(1, 6), self.now)
        self.step()

    def resume(self) -> None:
        self.pauses.clear()
        self.quiet = False
        self.foreman.resume()

    def cancel(self, ids: list[int]) -> None:
        for job_id in ids:
            del self.held[job_id]
            self.cancelled.add(job_id)
            self.final.setdefault(job_id, "cancelled")
        self.foreman.no_longer_ours(ids, self.now)

    def step(self) -> None:
        self.now += round(self.random.expovariate(1.0) * MS)
        for worker in list(self.workers.values()):
            if worker.state == "starting" and self.random.random() < 0.2:
                worker.state = "up"
                self.foreman.worker_up(worker.slot, worker.pid, self.now)
            worker.step()
        count = min(self.credits, len(self.waiting))
        if count:
            self.credits -= count
            jobs = [self.waiting.popleft() for _ in range(count)]
            self.held.update((job.id, job) for job in jobs)
            self.soon(lambda: self.foreman.granted(jobs, self.now))
        while self.events and self.random.random() < 0.9:
            self.events.popleft()()  # type: ignore[operator]
        for effect in self.foreman.settle(self.now, 0):
            self.do(effect)

    def become(self, size: int) -> None:
        """What a pool has in the end is what was asked for last."""
        steps = 0
        while {slot for slot, worker in self.workers.items() if worker.state == "up"} != set(range(size)) or (
            self.foreman.workers() != size  # one that is up here may have been told to end
        ):
            self.step()
            steps += 1
            assert steps < 10_000, f"workers={sorted(self.workers)} size={size}"

    def check_held(self) -> None:
        """With nothing on its way, foreman and broker agree on what is held."""
        if not self.events:
            assert {(job.id, job.attempt) for job in self.held.values()} <= set(self.foreman.held())


@given(
    seed=st.integers(0, 2**32),
    workers=st.integers(1, 4),
    jobs=st.integers(1, 120),
    deadly=st.sampled_from([0.0, 0.002, 0.02]),
    max_tasks=st.sampled_from([None, None, 1, 2, 7]),
)
@settings(max_examples=60, deadline=None)
def test_each_job_has_one_fate_and_only_those_that_ran_pay(seed, workers, jobs, deadly, max_tasks):
    world = World(seed, workers=workers, jobs=jobs, deadly=deadly, max_tasks_per_child=max_tasks)
    world.foreman.start(world.now)

    for _ in range(1_500):
        world.act()
        world.check_held()
    world.deadly = 0.0
    world.resume()
    size = world.random.randint(1, 6)
    world.foreman.resize(size, world.now)
    steps = 0
    while len(world.final) < jobs and not world.broken:  # five that die young in a row are the end of it
        world.step()
        steps += 1
        assert steps < 200_000, f"stalls seed={seed} {[j for j in range(1, jobs + 1) if j not in world.final]}"

    if not world.broken:
        assert set(world.final) == set(range(1, jobs + 1))
        world.become(size)
    for job_id in world.charged:
        assert world.charged[job_id] <= world.deaths_on[job_id], f"charged without a death on it id={job_id}"
    if deadly == 0.0 and not world.deaths_on:
        assert not world.charged


@given(seed=st.integers(0, 2**32), workers=st.integers(1, 4), grace_s=st.sampled_from([0.0, 0.05, 5.0]))
@settings(max_examples=60, deadline=None)
def test_a_stop_at_any_moment_ends_with_every_job_returned_or_done(seed, workers, grace_s):
    world = World(seed, workers=workers, jobs=60, deadly=0.005)
    world.foreman.start(world.now)
    for _ in range(world.random.randrange(800)):
        world.act()

    world.foreman.stop(grace_s, world.now)
    steps = 0
    while not world.stopped:
        world.step()
        steps += 1
        assert steps < 50_000, f"does not stop seed={seed}"

    while world.events:
        world.events.popleft()()
        for effect in world.foreman.settle(world.now, 0):
            world.do(effect)
    assert not world.workers
    assert world.held == {}
