"""A supervisor on the test's own event loop, and a broker for it that is a list.

The list broker is the peer, not the thing under test: it grants what is claimed, retries what failed at once until the
attempts are used up, and answers each report.
"""

from __future__ import annotations

import asyncio
import functools
import time
from collections import deque
from collections.abc import Callable, Coroutine, Iterable
from pathlib import Path
from typing import Any, Self

import msgspec

from osqueue import clock
from osqueue.core.messages import Handout, Outcome, Progress
from osqueue.errors import PoolBroken
from osqueue.jobs import Handlers
from osqueue.supervisor import Supervisor, SupervisorSettings

DEADLINE_S = 60.0


class ListBroker:
    """A `Link` over a list."""

    def __init__(self, loop: asyncio.AbstractEventLoop, max_attempts: int) -> None:
        self.loop = loop
        self.max_attempts = max_attempts
        self.supervisor: Supervisor | None = None
        self.waiting: deque[Handout] = deque()
        self.credits = 0
        self.held: dict[int, Handout] = {}
        self.reported: dict[int, list[Outcome]] = {}
        self.final: dict[int, Outcome] = {}
        self.beats: list[list[int]] = []
        self.progress: list[Progress] = []
        self.claims: list[int] = []
        self.answering = True
        self.unanswered: list[Callable[[list[int]], None]] = []
        self.news = asyncio.Event()

    def push(self, jobs: Iterable[Handout]) -> None:
        self.waiting.extend(jobs)
        self.grant()

    def grant(self) -> None:
        count = min(self.credits, len(self.waiting))
        if not count:
            return
        jobs = [self.waiting.popleft() for _ in range(count)]
        self.credits -= count
        for job in jobs:
            assert job.id not in self.held
            self.held[job.id] = job
        assert self.supervisor is not None
        self.loop.call_soon(self.supervisor.granted, jobs)

    def cancel(self, ids: list[int]) -> None:
        assert self.supervisor is not None
        for job_id in ids:
            job = self.held.pop(job_id)
            self.final[job_id] = Outcome(job_id, job.attempt, "cancelled")
        self.supervisor.cancelled(ids)

    def claim(self, jobs: int) -> None:
        assert jobs > 0
        self.claims.append(jobs)
        self.credits += jobs
        self.grant()

    def report(self, outcomes: list[Outcome], on_answer: Callable[[list[int]], None]) -> None:
        lost = [outcome.id for outcome in outcomes if not self.take(outcome)]
        self.news.set()
        if self.answering:
            self.loop.call_soon(on_answer, lost)
        else:
            self.unanswered.append(on_answer)

    def take(self, outcome: Outcome) -> bool:
        job = self.held.get(outcome.id)
        if job is None or job.attempt != outcome.attempt:
            return False
        del self.held[outcome.id]
        self.reported.setdefault(outcome.id, []).append(outcome)
        if outcome.verdict == "failed" and job.attempt < self.max_attempts:
            self.push([msgspec.structs.replace(job, attempt=job.attempt + 1)])
        elif outcome.verdict == "returned":
            self.waiting.appendleft(job)
        else:
            self.final[outcome.id] = outcome
        return True

    bounded = False

    def withdraw(self) -> None:
        self.credits = 0

    def heartbeat(self, running: list[int], progress: list[Progress]) -> None:
        self.beats.append(running)
        self.progress = progress
        self.news.set()

    def now_ms(self) -> int:
        return clock.boot_ms() + 1_000_000


class Yard:
    """``async with Yard(handler, tmp_path) as yard``: pushes jobs, waits for what becomes of them."""

    def __init__(
        self,
        handler: Any,
        directory: Path,
        *,
        workers: int = 2,
        max_attempts: int = 1,
        start: bool = True,
        payload_type: Any = None,
        result_type: Any = None,
        **settings: Any,
    ) -> None:
        handlers = Handlers(handler, payload_type=payload_type, result_type=result_type)
        self.settings = SupervisorSettings(
            handlers=handlers.names,
            blame_path=str(directory / f"blame-{time.monotonic_ns()}"),
            workers=workers,
            payload_type=payload_type,
            result_type=result_type,
            **settings,
        )
        self.max_attempts = max_attempts
        self.start = start
        self.last_id = 0
        self.broken: PoolBroken | None = None

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self.broker = ListBroker(loop, self.max_attempts)
        self.supervisor = Supervisor(loop, self.broker, self.settings, when_broken=self.when_broken)
        self.broker.supervisor = self.supervisor
        if self.start:
            self.supervisor.start()
        return self

    async def __aexit__(self, kind: object, error: object, traceback: object) -> None:
        self.supervisor.kill()
        await self.until(lambda: not self.supervisor._processes, "killed workers are gone")

    def when_broken(self, error: PoolBroken) -> None:
        self.broken = error
        self.broker.news.set()

    def push(self, *payloads: Any, task: str = "default", **options: Any) -> list[int]:
        jobs = []
        for payload in payloads:
            self.last_id += 1
            data = payload if isinstance(payload, bytes) else msgspec.json.encode(payload)
            jobs.append(Handout(self.last_id, 1, task, data, 0, **options))
        self.broker.push(jobs)
        return [job.id for job in jobs]

    async def outcomes(self, *ids: int) -> list[Outcome]:
        """The last outcomes of these jobs, once they are all final."""
        await self.until(lambda: all(job_id in self.broker.final for job_id in ids), "the jobs are final")
        return [self.broker.final[job_id] for job_id in ids]

    async def results(self, *ids: int) -> list[Any]:
        outcomes = await self.outcomes(*ids)
        assert [outcome.verdict for outcome in outcomes] == ["succeeded"] * len(ids), outcomes
        return [msgspec.json.decode(outcome.result) for outcome in outcomes]

    async def run(self, *payloads: Any, **options: Any) -> list[Any]:
        return await self.results(*self.push(*payloads, **options))

    async def all_up(self) -> None:
        workers = self.settings.workers
        await self.until(lambda: self.supervisor.workers() == workers, f"{workers} workers stand")

    async def until(self, condition: Callable[[], bool], what: str) -> None:
        """Wait for a condition with a deadline; looked at after each event and every few milliseconds."""
        deadline = time.monotonic() + DEADLINE_S
        while not condition():
            assert time.monotonic() < deadline, f"waited in vain until {what}"
            self.broker.news.clear()
            try:
                await asyncio.wait_for(self.broker.news.wait(), 0.01)
            except TimeoutError:
                continue


async def exists(path: Path, *, text: str | None = None) -> str:
    """Wait for a file that a handler writes, and perhaps for its text."""
    deadline = time.monotonic() + DEADLINE_S
    while (found := _text_of(path)) is None or (text is not None and found != text):
        assert time.monotonic() < deadline, f"waited in vain for {path}"
        await asyncio.sleep(0.005)
    return found


def _text_of(path: Path) -> str | None:
    return path.read_text() if path.exists() else None


def is_gone(pid: int) -> bool:
    """Whether the process runs no more; a zombie does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return True
    return state in "ZX"


def in_loop(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run an ``async def`` test in an event loop of its own."""

    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        asyncio.run(test(*args, **kwargs))

    return run
