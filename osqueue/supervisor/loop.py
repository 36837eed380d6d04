"""The supervisor on its event loop: events to the foreman, the foreman's effects to processes and broker.

    Link ──granted, cancelled, lost──▶ Supervisor ──▶ Foreman ──effects──▶ Supervisor ──▶ WorkerProcess, Link

Rules:
* Everything here runs on the loop's thread and waits for nothing; a burst of events is settled once per loop turn.
* It knows its broker only as a `Link`, so it is the same beside the broker and on another host.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import assert_never

from osqueue import clock, host
from osqueue.blame import Blame
from osqueue.core.messages import Handout, Progress
from osqueue.errors import PoolBroken
from osqueue.supervisor.crew import SLOW_START_NS
from osqueue.supervisor.drop_answers import DropAnswers
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
    WithdrawClaims,
)
from osqueue.supervisor.foreman import Foreman
from osqueue.supervisor.heartbeats import Heartbeats
from osqueue.supervisor.link import Link
from osqueue.supervisor.memory import Memory
from osqueue.supervisor.settings import SupervisorSettings
from osqueue.worker.main import WorkerSpec
from osqueue.worker.messages import FromWorker, GivenBack, NotUp, Progressed, Up, Wrote
from osqueue.worker_process import Ended, Starter, WorkerProcess, start_context

_log = logging.getLogger("osqueue")

_NS_PER_S = 1_000_000_000


class Supervisor:
    """Workers, and the jobs that they run. Every method belongs to the loop's thread.

    Args:
        loop: the event loop it lives in.
        link: its broker.
        settings: what to run, and how.
        when_broken: called at most once, when workers cannot start; jobs that were here have then been returned.

    Raises:
        OSError: the blame file cannot be made.
        ValueError: the start method is refused.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        link: Link,
        settings: SupervisorSettings,
        *,
        when_broken: Callable[[PoolBroken], None],
    ) -> None:
        self._loop = loop
        self._link = link
        self._settings = settings
        self._when_broken = when_broken
        self._context = start_context(settings.mp_context)
        self._blame = Blame.create(settings.blame_path, settings.workers, owner=host.this_process())
        self._foreman = Foreman(
            workers=settings.workers,
            timeout_s=settings.timeout_s,
            grace_s=settings.grace_s,
            running_on=self._blame.current,
            max_tasks_per_child=settings.max_tasks_per_child,
            max_memory_per_child_bytes=settings.max_memory_per_child_bytes,
        )
        self._memory = Memory()
        self._heartbeats = Heartbeats(loop, link, self._foreman, self._memory)
        self._starter = Starter()
        self._processes: dict[int, WorkerProcess] = {}
        self._drops = DropAnswers(loop)
        self._stopped: asyncio.Future[None] = loop.create_future()
        self._over = False
        self._settling = False
        self._alarm: asyncio.TimerHandle | None = None
        self._alarm_ns = 0

    # -------------------------------------------------------------------------------------------------- from the broker

    def granted(self, jobs: list[Handout]) -> None:
        """Jobs that were claimed have arrived."""
        self._foreman.granted(jobs, clock.boot_ns())
        self._settle_soon()

    def cancelled(self, ids: Sequence[int]) -> None:
        """These jobs were cancelled and are final: handlers are told, then killed after ``grace``; none is reported."""
        self._foreman.no_longer_ours(ids, clock.boot_ns())
        self._settle_soon()

    def lost(self, ids: Sequence[int]) -> None:
        """These jobs are no longer ours: as `cancelled`."""
        self.cancelled(ids)

    def reconnected(self) -> None:
        """A new broker: what was claimed and not granted is forgotten there, and is claimed again."""
        self._foreman.reconnected()
        self._heartbeats.forgotten()
        self._settle_soon()

    # --------------------------------------------------------------------------------------------------- from the owner

    def start(self) -> None:
        """Start the workers, and claim."""
        self._foreman.start(clock.boot_ns())
        self._settle_soon()

    def held(self) -> list[tuple[int, int]]:
        """Id and attempt of every job here: waiting, in a worker, or with an outcome that is not yet durable."""
        return self._foreman.held()

    def running(self) -> dict[str, list[int]]:
        """The jobs that have begun, by task."""
        return self._foreman.running()

    def progress(self) -> list[Progress]:
        """How far some of those are."""
        return self._foreman.progress()

    def workers(self) -> int:
        """How many workers stand."""
        return self._foreman.workers()

    def beat(self) -> None:
        """Send a heartbeat now, with what runs at this moment."""
        self._heartbeats.beat()

    def drop(self, ids: Iterable[int]) -> asyncio.Future[list[int]]:
        """Take back those of these jobs that have not begun, and report them as cancelled.

        Returns:
            The ids of those; the others have begun, or are not here. Workers have a second to answer; then it waits,
            as long as it takes, until the broker has made durable what was reported, or is given up.
        """
        number, answer = self._drops.new()
        self._foreman.drop(number, list(ids), clock.boot_ns())
        self._settle_soon()
        return answer

    def pause(self) -> asyncio.Future[list[int]]:
        """Let no job begin any more, and return what has not begun.

        Returns:
            Done when both are so: the first after a second at most, the second once the broker has made it durable. It
            waits for a broker that is silent or being replaced, until that is given up.
        """
        number, answer = self._drops.new()
        self._foreman.pause(number, clock.boot_ns())
        self._settle_soon()
        return answer

    def resume(self) -> None:
        """Claim again."""
        self._foreman.resume()
        self._settle_soon()

    def resize(self, workers: int) -> None:
        """Have so many workers: those that lack start now, the surplus ends after the jobs that it is on.

        Raises:
            OSError: there is no room for their slots; nothing has changed.
        """
        self._blame.grow(workers)
        self._foreman.resize(workers, clock.boot_ns())
        self._settle_soon()

    def stop(self, grace_s: float) -> asyncio.Future[None]:
        """End in good order: what runs has ``grace_s`` to finish, the rest is returned uncharged, the workers end.

        Returns:
            Done when no worker lives and all outcomes are durable (or the broker has not answered for 10 s). Calling
            again sets a new grace.
        """
        self._foreman.stop(grace_s, clock.boot_ns())
        self._settle_soon()
        return self._stopped

    def kill(self) -> None:
        """Kill every worker now. What was here is reported as returned if the loop goes on long enough to see it."""
        self._foreman.kill(clock.boot_ns())
        self._settle()
        self._end()

    # ------------------------------------------------------------------------------------------------- from the workers

    def _message(self, slot: int, message: FromWorker) -> None:
        now_ns = clock.boot_ns()
        match message:
            case Wrote():
                self._foreman.wrote(slot, message.outcomes, message.ran, now_ns, rss_bytes=message.rss_bytes)
            case GivenBack():
                self._foreman.gave_back(slot, message.number, message.ids, now_ns)
            case Up():
                self._foreman.worker_up(slot, message.pid, now_ns)
            case NotUp():
                self._foreman.worker_not_up(message.error)
            case Progressed():
                self._foreman.progressed(slot, message)
                return  # it goes along with the next heartbeat
            case _:
                assert_never(message)
        self._settle_soon()

    def _ended(self, slot: int, ended: Ended) -> None:
        process = self._processes.pop(slot)
        rss_bytes = self._memory.forget(slot)
        _log.info("worker ended slot=%d pid=%s exit_code=%s", slot, process.pid, ended.exit_code)
        self._foreman.worker_ended(slot, ended, clock.boot_ns(), rss_bytes=rss_bytes)
        self._settle_soon()
        self._release()

    # --------------------------------------------------------------------------------------------------------- settling

    def _settle_soon(self) -> None:
        if not self._settling:
            self._settling = True
            self._loop.call_soon(self._settle)

    def _settle(self) -> None:
        self._settling = False
        now_ns = clock.boot_ns()
        for effect in self._foreman.settle(now_ns, self._link.now_ms() - clock.boot_ms()):
            self._do(effect)
        self._drops.settled()
        self._set_alarm(now_ns)
        self._heartbeats.go_on()

    def _do(self, effect: Effect) -> None:
        match effect:
            case SendWorker() | KillWorker():
                self._do_to_worker(effect)
            case SendReport():
                self._drops.reported(effect.number)
                self._link.report(effect.outcomes, lambda lost: self._answered(effect.number, lost))
            case ClaimJobs():
                self._link.claim(effect.jobs)
            case WithdrawClaims():
                self._link.withdraw()
            case StartWorker():
                self._start_worker(effect.slot)
            case SlowStart():
                self._warn_of_slow_start(effect.slots)
            case Dropped():
                self._drops.dropped(effect)
            case PoolIsBroken():
                self._when_broken(effect.error)
            case Stopped():
                self._end()
                Path(self._settings.blame_path).unlink(missing_ok=True)
            case _:
                assert_never(effect)

    def _do_to_worker(self, effect: SendWorker | KillWorker) -> None:
        process = self._processes.get(effect.slot)
        if process is None:
            return
        if isinstance(effect, KillWorker):
            process.kill()
        else:
            process.send(effect.message)

    def _answered(self, number: int, lost: list[int]) -> None:
        if lost:
            _log.warning("outcomes refused, the jobs are no longer ours count=%d first=%d", len(lost), lost[0])
        self._foreman.answered(number)
        self._drops.durable(number)
        self._settle_soon()

    def _start_worker(self, slot: int) -> None:
        settings = self._settings
        pid = os.getpid()
        spec = WorkerSpec(
            tasks=settings.handlers,
            blame_path=settings.blame_path,
            slot=slot,
            supervisor_pid=pid,
            supervisor_started=host.start_time(pid) or 0,
            max_result_bytes=settings.max_payload_bytes,
            timeout_s=settings.timeout_s,
            soft_timeout_s=settings.soft_timeout_s,
            measure_memory=settings.max_memory_per_child_bytes is not None,
            lifecycle=settings.lifecycle,
            retry_on=settings.retry_on,
            no_retry_on=settings.no_retry_on,
            payload_type=settings.payload_type,
            result_type=settings.result_type,
            codec=settings.codec,
            knows_other_tasks=settings.knows_other_tasks,
        )
        process = WorkerProcess(
            self._loop,
            self._context,
            spec,
            on_message=lambda message: self._message(slot, message),
            on_ended=lambda ended: self._ended(slot, ended),
        )
        self._processes[slot] = process
        self._starter.submit(process.launch)

    def _warn_of_slow_start(self, slots: list[int]) -> None:
        one = len(slots) == 1
        workers = f"worker {slots[0]} has" if one else f"workers {', '.join(map(str, slots))} have"
        its = "its" if one else "their"
        _log.warning(
            "%s not come up for %d s: %s imports or %s initializer take long or hang pid=%s",
            workers,
            SLOW_START_NS // _NS_PER_S,
            its,
            its,
            ",".join(str(self._processes[slot].pid) for slot in slots),
        )

    def _set_alarm(self, now_ns: int) -> None:
        alarm_ns = self._foreman.alarm_ns()
        if self._alarm is not None:
            if alarm_ns is not None and self._alarm_ns <= alarm_ns:
                return  # it rings early, and is set again then: cheaper than setting it at each message
            self._alarm.cancel()
            self._alarm = None
        if alarm_ns is not None:
            self._alarm_ns = alarm_ns
            self._alarm = self._loop.call_later(max(0, alarm_ns - now_ns) / _NS_PER_S, self._ring)

    def _ring(self) -> None:
        self._alarm = None
        self._settle_soon()

    def _end(self) -> None:
        self._over = True
        self._release()
        self._starter.end()
        self._heartbeats.end()
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        self._drops.end()
        if not self._stopped.done():
            self._stopped.set_result(None)

    def _release(self) -> None:
        """Once over, and the last worker gone: nobody reads the blame file here any more."""
        if self._over and not self._processes:
            self._blame.close()
