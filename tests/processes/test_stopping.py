"""Stops, take-backs, drops, restarts of the broker."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

from osqueue.worker_process import NO_MAIN_GUARD, start_context
from tests.processes import handlers
from tests.processes.yard import Yard, exists, in_loop, is_gone

ROOT = Path(__file__).parents[2]


@in_loop
async def test_stop_lets_what_runs_finish_and_returns_the_rest_uncharged(tmp_path):
    async with Yard({"sleep": handlers.sleep, "hang": handlers.say_begun}, tmp_path, workers=1) as yard:
        await yard.all_up()
        ids = yard.push(*[0.5] * 6, task="sleep")
        await yard.until(lambda: bool(yard.supervisor.running()), "one runs")
        await asyncio.wait_for(yard.supervisor.stop(30), 60)

    verdicts = [yard.broker.reported[job_id][-1].verdict for job_id in ids if job_id in yard.broker.reported]
    assert verdicts.count("succeeded") == 1
    assert set(verdicts) == {"succeeded", "returned"}
    assert yard.broker.held == {}
    assert yard.supervisor.held() == []


@in_loop
async def test_stop_kills_what_outlasts_grace_and_returns_it_uncharged(tmp_path):
    async with Yard({"hang": handlers.say_begun}, tmp_path, workers=2) as yard:
        ids = yard.push(str(tmp_path / "a"), str(tmp_path / "b"), task="hang")
        await exists(tmp_path / "a")
        await exists(tmp_path / "b")
        pids = [process.pid for process in yard.supervisor._processes.values()]
        await asyncio.wait_for(yard.supervisor.stop(0.2), 60)

        assert [yard.broker.reported[job_id][-1].verdict for job_id in ids] == ["returned"] * 2
        assert all(is_gone(pid) for pid in pids)


@in_loop
async def test_a_second_stop_may_shorten_the_grace(tmp_path):
    async with Yard({"hang": handlers.say_begun}, tmp_path, workers=1) as yard:
        yard.push(str(tmp_path / "a"), task="hang")
        await exists(tmp_path / "a")
        stopped = yard.supervisor.stop(600)
        yard.supervisor.stop(0)

        await asyncio.wait_for(stopped, 60)


@in_loop
async def test_stop_waits_until_the_outcomes_are_durable(tmp_path):
    async with Yard(handlers.echo, tmp_path, workers=1) as yard:
        await yard.run(1)
        yard.broker.answering = False
        await yard.outcomes(*yard.push(2))
        stopped = yard.supervisor.stop(10)
        await yard.until(lambda: not yard.supervisor._processes, "the workers have ended")
        assert not stopped.done()
        for answer in yard.broker.unanswered:
            answer([])

        await asyncio.wait_for(stopped, 60)


@in_loop
async def test_stop_before_the_first_worker_stands_ends_too(tmp_path):
    async with Yard(handlers.echo, tmp_path, workers=4) as yard:
        [job_id] = yard.push(1)

        await asyncio.wait_for(yard.supervisor.stop(10), 60)

    assert all(outcome.verdict == "returned" for outcome in yard.broker.reported.get(job_id, []))


@in_loop
async def test_jobs_behind_a_long_one_are_taken_back_for_an_idle_worker(tmp_path):
    async with Yard({"some": handlers.spin_some}, tmp_path, workers=2) as yard:
        await yard.all_up()
        await yard.run(*[0] * 2000, task="some")  # now the task is known as short: chunks are long
        release = tmp_path / "release"
        ids = yard.push(*[0] * 50, str(release), *[0] * 250, task="some")
        long = ids.pop(50)  # with finished jobs before it, and waiting ones behind it, in the same worker

        await yard.outcomes(*ids)

        assert long not in yard.broker.final
        release.touch()
        await yard.outcomes(long)
        assert all(len(yard.broker.reported[job_id]) == 1 for job_id in [long, *ids])


@in_loop
async def test_drop_takes_back_what_has_not_begun_and_only_that(tmp_path):
    async with Yard({"hang": handlers.say_begun}, tmp_path, workers=1) as yard:
        ids = yard.push(*[str(tmp_path / str(n)) for n in range(5)], task="hang")
        await exists(tmp_path / "0")
        await yard.until(lambda: len(yard.supervisor.held()) >= 2, "one more is here")
        here = [job_id for job_id, _ in yard.supervisor.held()]

        dropped = await yard.supervisor.drop(ids)

        assert sorted(dropped) == sorted(set(here) - {ids[0]})
        assert all(yard.broker.reported[job_id][-1].verdict == "cancelled" for job_id in dropped)


@in_loop
async def test_drop_gives_up_on_a_worker_that_cannot_answer(tmp_path):
    async with Yard(handlers.hold_lock, tmp_path, workers=1) as yard:
        [holding] = yard.push("hold")
        await yard.until(lambda: bool(yard.supervisor.running()), "it runs")

        assert await asyncio.wait_for(yard.supervisor.drop([holding, 999]), 60) == []


@in_loop
async def test_a_new_broker_is_asked_again_for_what_the_old_one_had_not_granted(tmp_path):
    async with Yard(handlers.echo, tmp_path, workers=2) as yard:
        await yard.run(1)
        wanted = yard.broker.credits
        assert wanted > 0
        yard.broker.credits = 0
        yard.supervisor.reconnected()

        assert await yard.run(2) == [2]
        assert yard.broker.credits > 0


@in_loop
async def test_jobs_that_were_lost_are_stopped_and_told_to_nobody(tmp_path):
    async with Yard({"hang": handlers.say_begun, "echo": handlers.echo}, tmp_path, workers=1, grace_s=0) as yard:
        [lost] = yard.push(str(tmp_path / "a"), task="hang")
        await exists(tmp_path / "a")
        del yard.broker.held[lost]
        yard.supervisor.lost([lost])

        assert await yard.run("next", task="echo") == ["next"]
        assert lost not in yard.broker.reported


def test_fork_is_refused():
    with pytest.raises(ValueError, match="mp_context: fork"):
        start_context("fork")


UNGUARDED = """
import asyncio, multiprocessing, os, pathlib, sys
sys.path[:0] = {path!r}
if getattr(multiprocessing.current_process(), "_inheriting", False):
    os._exit({status})  # as LocalPool does
from tests.processes import handlers
from tests.processes.yard import Yard

async def main():
    async with Yard(handlers.echo, pathlib.Path({directory!r}), workers=4, mp_context={method!r}) as yard:
        await yard.until(lambda: yard.broken is not None, "broken")
        print(yard.broken)

asyncio.run(main())
"""


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_a_missing_main_guard_breaks_the_pool_at_once_and_shows_the_idiom(tmp_path, method):
    script = tmp_path / "script.py"
    text = UNGUARDED.format(path=[str(ROOT)], status=NO_MAIN_GUARD, directory=str(tmp_path), method=method)
    script.write_text(text)

    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=100, check=True)

    assert 'if __name__ == "__main__":' in done.stdout


FORGOTTEN = """
import asyncio, pathlib, sys, threading
sys.path[:0] = {path!r}
from tests.processes import handlers
from tests.processes.yard import Yard

def serve(ready):
    async def main():
        async with Yard(handlers.echo, pathlib.Path({directory!r}), workers=2, mp_context={method!r}) as yard:
            await yard.all_up()
            print(*[process.pid for process in yard.supervisor._processes.values()], flush=True)
            ready.set()
            await asyncio.sleep(600)
    asyncio.run(main())

if __name__ == "__main__":
    ready = threading.Event()
    threading.Thread(target=serve, args=[ready], daemon=True).start()
    ready.wait(60)
"""


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_a_forgotten_supervisor_does_not_keep_the_interpreter_from_ending(tmp_path, method):
    script = tmp_path / "script.py"
    script.write_text(FORGOTTEN.format(path=[str(ROOT)], directory=str(tmp_path), method=method))

    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=100, check=True)

    pids = list(map(int, done.stdout.split()))
    assert len(pids) == 2
    asyncio.run(_gone(pids))


async def _gone(pids: list[int]) -> None:
    for _ in range(1000):
        if all(is_gone(pid) for pid in pids):
            return
        await asyncio.sleep(0.01)
    raise AssertionError(f"still there: {[pid for pid in pids if not is_gone(pid)]}")


@in_loop
async def test_nothing_is_leaked_by_starts_and_stops(tmp_path):
    await _one_life(tmp_path)  # the fork server and its friends stay
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        await _one_life(tmp_path)

    assert len(os.listdir("/proc/self/fd")) <= before


async def _one_life(tmp_path: Path) -> None:
    async with Yard(handlers.echo, tmp_path, workers=2) as yard:
        assert await yard.run(1, 2, 3) == [1, 2, 3]
        await asyncio.wait_for(yard.supervisor.stop(10), 60)
