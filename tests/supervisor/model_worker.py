"""A model of worker processes, under a virtual clock."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from random import Random
from typing import Protocol

from osqueue.blame import Blamed
from osqueue.core.messages import Handout, Outcome
from osqueue.supervisor.foreman import Foreman
from osqueue.worker.messages import CancelJobs, End, GiveBack, Ran, ToWorker, Work, WriteOut

MS = 1_000_000
TASKS = {"default": 2.0, "short": 0.05, "middle": 4.0, "long": 30.0, "slow": 400.0}
"""Usual run times in milliseconds; each run is between half and ten times that."""


class Place(Protocol):
    """Where model workers live."""

    random: Random
    foreman: Foreman
    workers: dict[int, Worker]
    on: dict[int, Blamed]

    @property
    def now(self) -> int: ...

    def soon(self, event: Callable[[], None]) -> None: ...

    def began_run(self, job: Handout) -> None: ...

    def ended_run(self, job: Handout) -> None: ...

    def outcome(self, job: Handout) -> Outcome: ...

    def rss_bytes(self) -> int: ...

    def worker_gone(self, worker: Worker, exit_code: int) -> None: ...


class Worker:
    """One worker: it does what `osqueue.worker` does, and dies when told to."""

    def __init__(self, place: Place, slot: int, pid: int) -> None:
        self.place = place
        self.slot = slot
        self.pid = pid
        self.state = "starting"
        self.inbox: deque[Handout] = deque()
        self.finished: list[tuple[Outcome, str, int]] = []
        self.job: Handout | None = None
        self.cancelled: set[int] = set()
        self.ending = False
        self.began = self.until = 0

    def hear(self, message: ToWorker) -> None:
        if self.state != "up":
            return
        match message:
            case Work(jobs=jobs):
                self.inbox.extend(jobs)
            case GiveBack(number=number, ids=ids):
                self.write_out()
                self.give_back(number, [j for j in self.inbox if not ids or j.id in ids])
            case CancelJobs(ids=ids):
                not_begun = [j for j in self.inbox if j.id in ids]
                self.give_back(0, not_begun)
                self.cancelled.update(ids)
            case WriteOut():
                self.write_out()
            case End():
                self.ending = True

    def give_back(self, number: int, jobs: list[Handout]) -> None:
        for job in jobs:
            self.inbox.remove(job)
        self.place.soon(lambda: self.place.foreman.gave_back(self.slot, number, [j.id for j in jobs], self.place.now))

    def write_out(self) -> None:
        finished, self.finished = self.finished, []
        if finished:
            ran = [Ran(task, 1, took) for _, task, took in finished]
            outcomes = [outcome for outcome, _, _ in finished]
            rss_bytes = self.place.rss_bytes()
            self.place.soon(
                lambda: self.place.foreman.wrote(self.slot, outcomes, ran, self.place.now, rss_bytes=rss_bytes)
            )

    def step(self) -> None:
        """Live up to the present."""
        if self.state != "up":
            return
        if self.job is not None and (self.place.now >= self.until or self.stops_by_itself()):
            self.finished.append((self.place.outcome(self.job), self.job.task, self.took()))
            self.place.ended_run(self.job)
            self.place.on.pop(self.slot, None)
            self.job = None
        if self.job is None and self.inbox:
            self.begin(self.inbox.popleft())
        if self.job is None or self.took() > MS:
            self.write_out()
        if self.job is None and self.ending:
            self.die(0)

    def stops_by_itself(self) -> bool:
        assert self.job is not None
        return self.job.id in self.cancelled and self.job.id % 2 == 0

    def took(self) -> int:
        return self.place.now - self.began

    def begin(self, job: Handout) -> None:
        self.job = job
        self.began = self.place.now
        self.until = self.began + round(TASKS[job.task] * MS * self.place.random.choice([0.5, 1, 1, 1, 1, 10]))
        self.place.began_run(job)
        self.place.on[self.slot] = Blamed(self.slot, self.pid, 1, job.id, job.attempt, self.began)

    def die(self, exit_code: int) -> None:
        if self.state == "dead":
            return
        if self.job is not None:
            self.place.ended_run(self.job)
        self.state = "dead"
        del self.place.workers[self.slot]
        self.place.soon(lambda: self.place.worker_gone(self, exit_code))
