"""Workers that die: who pays, what is recorded, how soon there is another."""

from __future__ import annotations

import asyncio
import logging
import os
import select
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest

from osqueue.worker.messages import WriteOut
from tests.processes import handlers
from tests.processes.yard import DEADLINE_S, Yard, exists, in_loop, is_gone


@pytest.mark.parametrize("name", ["SIGKILL", "SIGTERM", "SIGUSR1"])
@in_loop
async def test_a_worker_killed_by_a_signal_costs_its_own_job_one_attempt(tmp_path, name):
    async with Yard(handlers.die_by, tmp_path, workers=2) as yard:
        before = yard.push(*range(200))
        [killer] = yard.push(name)
        after = yard.push(*range(200))

        await yard.results(*before, *after)
        [outcome] = await yard.outcomes(killer)
        await yard.all_up()

    assert outcome.verdict == "failed"
    assert outcome.error.error_type == "WorkerCrashed"
    assert outcome.error.signal == name
    assert outcome.error.exit_status is None
    assert name in outcome.error.message
    assert 0 < outcome.started_ms <= outcome.finished_ms
    assert all(len(outcomes) == 1 for outcomes in yard.broker.reported.values())


@in_loop
async def test_a_kill_that_is_not_ours_hints_at_the_memory_killer(tmp_path):
    async with Yard(handlers.die_by, tmp_path, workers=1) as yard:
        [outcome] = await yard.outcomes(*yard.push("SIGKILL"))

    assert "out-of-memory killer" in outcome.error.message


@in_loop
async def test_a_segfault_leaves_the_python_stack_in_the_error(tmp_path):
    async with Yard(handlers.read_null, tmp_path, workers=1) as yard:
        [outcome] = await yard.outcomes(*yard.push("null"))

    assert outcome.error.signal == "SIGSEGV"
    assert "in read_null" in outcome.error.traceback
    assert "osqueue/worker" not in outcome.error.traceback


@in_loop
async def test_an_exit_is_recorded_with_its_status(tmp_path):
    async with Yard(handlers.die_by, tmp_path, workers=1) as yard:
        [outcome] = await yard.outcomes(*yard.push("exit"))

    assert outcome.error.error_type == "WorkerCrashed"
    assert (outcome.error.signal, outcome.error.exit_status) == (None, 3)


@in_loop
async def test_a_job_that_always_kills_its_worker_uses_up_its_own_attempts_while_1000_others_succeed(tmp_path):
    async with Yard(handlers.die_by, tmp_path, workers=2, max_attempts=4) as yard:
        first = yard.push(*range(500))
        [killer] = yard.push("SIGKILL")
        second = yard.push(*range(500))

        await yard.results(*first, *second)
        await yard.outcomes(killer)

        assert [outcome.attempt for outcome in yard.broker.reported[killer]] == [1, 2, 3, 4]
        assert all(len(yard.broker.reported[job_id]) == 1 for job_id in first + second)


@in_loop
async def test_jobs_that_take_over_a_millisecond_are_written_out_one_by_one_and_never_repeated(tmp_path):
    path = tmp_path / "marks"

    async with Yard(handlers.mark_or_die, tmp_path, workers=1) as yard:
        await yard.run(*[[str(path), "known", 0]] * 20)
        for number in range(5):
            texts = [f"{number}a", f"{number}b", "die", f"{number}c"]
            await yard.outcomes(*yard.push(*[[str(path), text, 0] for text in texts]))

    marks = path.read_text().split()[20:]
    assert marks == [mark for n in range(5) for mark in (f"{n}a", f"{n}b", "die", f"{n}c")]


@in_loop
async def test_what_a_worker_wrote_before_it_died_counts_though_the_loop_was_late(tmp_path):
    path = tmp_path / "marks"

    async with Yard(handlers.mark_or_die, tmp_path, workers=1) as yard:
        await yard.run(*[[str(path), "known", 0]] * 20)
        # More than one read takes, less than the socket holds; and two such jobs always go to a worker together.
        ids = yard.push([str(path), "a", 300_000], [str(path), "die", 0])
        for _ in range(5):
            await asyncio.sleep(0)  # granted, dispatched, sent
        deadline = time.monotonic() + DEADLINE_S
        while not path.read_text().endswith("die\n") or not is_gone(
            next(iter(yard.supervisor._processes.values())).pid
        ):
            assert time.monotonic() < deadline
            time.sleep(0.01)  # noqa: ASYNC251 (the loop stands still meanwhile)
        await yard.outcomes(*ids)

        assert path.read_text().split()[20:] == ["a", "die"]


@in_loop
async def test_children_of_a_worker_that_exits_by_itself_die_too(tmp_path):
    async with Yard(handlers.leave_child_and_exit, tmp_path, workers=1) as yard:
        [outcome] = await yard.outcomes(*yard.push(str(tmp_path / "pid")))
        child = int(await exists(tmp_path / "pid"))

        assert outcome.error.exit_status == 3
        await yard.until(lambda: is_gone(child), "the child is gone")


@in_loop
async def test_a_job_that_closes_its_workers_socket_uses_up_its_attempts(tmp_path):
    async with Yard(handlers.close_everything, tmp_path, workers=1, max_attempts=3) as yard:
        [outcome] = await yard.outcomes(*yard.push(None))

    assert outcome.attempt == 3
    assert outcome.error.error_type == "WorkerCrashed"
    assert "closed descriptors" in outcome.error.message


@in_loop
async def test_idle_workers_that_are_killed_are_replaced_and_the_pool_is_not_broken(tmp_path):
    async with Yard(handlers.pid, tmp_path, workers=6) as yard:
        await yard.all_up()
        await yard.run(*range(200))
        old = {process.pid for process in yard.supervisor._processes.values()}
        for pid in old:
            os.kill(pid, signal.SIGKILL)

        await yard.until(lambda: not old & {p.pid for p in yard.supervisor._processes.values()}, "the old are gone")
        await yard.all_up()
        assert yard.broken is None
        assert set(await yard.run(*range(50))).isdisjoint(old)


@pytest.mark.parametrize(
    ("handler", "payload"), [(handlers.spin, "spin"), (handlers.hold_lock, "hold")], ids=["python loop", "c code"]
)
@in_loop
async def test_a_job_that_never_returns_ends_at_its_timeout(tmp_path, handler, payload):
    async with Yard(handler, tmp_path, workers=2) as yard:
        [job_id] = yard.push(payload, timeout_s=0.3)
        others = yard.push(*range(20))

        assert await yard.results(*others) == list(range(20))
        [outcome] = await yard.outcomes(job_id)
        await yard.all_up()

    assert outcome.verdict == "failed"
    assert outcome.error.error_type == "JobTimeout"
    assert "timeout_s=0.3" in outcome.error.message
    assert outcome.finished_ms - outcome.started_ms >= 300


@in_loop
async def test_the_pools_timeout_holds_for_every_job_that_has_none(tmp_path):
    async with Yard(handlers.sleep, tmp_path, workers=2, timeout_s=0.5) as yard:
        late, early, patient = *yard.push(600, 0.01), *yard.push(1.0, timeout_s=60)
        outcomes = await yard.outcomes(late, early, patient)

    assert [outcome.verdict for outcome in outcomes] == ["failed", "succeeded", "succeeded"]


@pytest.mark.parametrize(
    ("handler", "payload"), [(handlers.spin, "spin"), (handlers.hold_lock, "hold")], ids=["python loop", "c code"]
)
@in_loop
async def test_a_cancelled_job_that_does_not_stop_is_killed_after_grace(tmp_path, handler, payload):
    async with Yard(handler, tmp_path, workers=1, grace_s=0.2) as yard:
        [job_id] = yard.push(payload)
        await yard.until(lambda: bool(yard.supervisor.running()), "it runs")
        yard.broker.cancel([job_id])

        assert await yard.run(7) == [7]
        assert job_id not in yard.broker.reported
        await yard.until(lambda: yard.supervisor.held() == [], "nothing is held")


@in_loop
async def test_a_cancelled_job_is_told_and_may_end_by_itself(tmp_path):
    path = tmp_path / "file"

    async with Yard({"wait": handlers.until_cancelled, "pid": handlers.pid}, tmp_path, workers=1) as yard:
        [before] = await yard.run(None, task="pid")
        [job_id] = yard.push(str(path), task="wait")
        await exists(path, text="begun")
        yard.broker.cancel([job_id])
        await exists(path, text="told")

        assert await yard.run(None, task="pid") == [before]
        assert job_id not in yard.broker.reported


@in_loop
async def test_cancelled_jobs_that_have_not_begun_never_run(tmp_path):
    async with Yard({"hang": handlers.say_begun, "write": handlers.say_begun}, tmp_path, workers=1, grace_s=0) as yard:
        [running] = yard.push(str(tmp_path / "running"), task="hang")
        await exists(tmp_path / "running")
        waiting = yard.push(*[str(tmp_path / f"waiting{n}") for n in range(1)], task="write")
        await yard.until(lambda: len(yard.supervisor.held()) == 2, "all have arrived")
        yard.broker.cancel(waiting)
        yard.broker.cancel([running])
        [last] = yard.push(str(tmp_path / "last"), task="write")
        await exists(tmp_path / "last")

        assert not (tmp_path / "waiting0").exists()
        assert yard.supervisor.held() == [(last, 1)]


@in_loop
async def test_children_that_a_handler_left_running_die_with_its_worker(tmp_path):
    async with Yard(handlers.leave_child, tmp_path, workers=1) as yard:
        [job_id] = yard.push(str(tmp_path / "pids"), timeout_s=1)
        worker, child = map(int, (await exists(tmp_path / "pids")).split())
        assert not is_gone(child)
        await yard.outcomes(job_id)

        await yard.until(lambda: is_gone(worker) and is_gone(child), "worker and child are gone")


@in_loop
async def test_a_module_that_cannot_be_imported_breaks_the_pool_with_its_traceback(tmp_path):
    async with Yard("tests.processes.broken_module:handler", tmp_path, workers=4) as yard:
        [job_id] = yard.push(1)
        await yard.until(lambda: yard.broken is not None, "the pool is broken")

    assert "RuntimeError: this module cannot be imported" in str(yard.broken)
    assert "broken_module.py" in str(yard.broken)
    assert [outcome.verdict for outcome in yard.broker.reported[job_id]] == ["returned"]


@in_loop
async def test_a_handler_that_is_not_there_breaks_the_pool_and_is_named(tmp_path):
    async with Yard("tests.processes.handlers:no_such", tmp_path, workers=1) as yard:
        await yard.until(lambda: yard.broken is not None, "the pool is broken")

    assert "module tests.processes.handlers has no no_such" in str(yard.broken)


@in_loop
async def test_processes_that_cannot_be_started_break_the_pool(tmp_path, caplog):
    class Local(msgspec.Struct):
        """Cannot be pickled, being local."""

        x: int

    with caplog.at_level(logging.CRITICAL, logger="osqueue"):
        async with Yard(handlers.echo, tmp_path, workers=1, payload_type=Local) as yard:
            await yard.until(lambda: yard.broken is not None, "the pool is broken")

    assert "<locals>.Local" in str(yard.broken)


MAIN = """
import asyncio, pathlib, sys
sys.path[:0] = {path!r}
from osqueue.worker.messages import WriteOut
from tests.processes import handlers
from tests.processes.yard import Yard

async def main():
    yard = Yard({{"hang": handlers.leave_child, "lock": handlers.hold_lock}}, pathlib.Path({directory!r}), workers=3,
                mp_context={method!r})
    async with yard:
        yard.push({first!r}, task="hang")
        yard.push("hold", task="lock")
        yard.push({second!r}, task="hang")
        await asyncio.sleep(600)

if __name__ == "__main__":
    asyncio.run(main())
"""


HELD = """
import asyncio, os, pathlib, subprocess, sys
sys.path[:0] = {path!r}
from osqueue.worker.messages import WriteOut
from tests.processes import handlers
from tests.processes.yard import Yard

async def main():
    async with Yard(handlers.say_begun, pathlib.Path({directory!r}), workers=1, mp_context={method!r}) as yard:
        yard.push({first!r})
        await yard.until(pathlib.Path({first!r}).exists, "it runs")
        [worker] = yard.supervisor._processes.values()
        ends = [worker._life.fileno(), worker._channel.fileno()]
        other = subprocess.Popen(["sleep", "600"], pass_fds=ends, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        print(worker.pid, other.pid, flush=True)
        await asyncio.sleep(600)

if __name__ == "__main__":
    asyncio.run(main())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="pidfd")
@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_a_worker_dies_with_its_supervisor_though_another_process_holds_the_ends_of_its_pipes(tmp_path, method):
    script = tmp_path / "script.py"
    root = str(Path(__file__).parents[2])
    first = str(tmp_path / "first")
    script.write_text(HELD.format(path=[root], directory=str(tmp_path), method=method, first=first))
    program = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True)
    assert program.stdout is not None
    worker, other = map(int, program.stdout.readline().split())
    try:
        program.kill()
        program.communicate()
        deadline = time.monotonic() + DEADLINE_S
        while not is_gone(worker):
            assert time.monotonic() < deadline, "the worker outlives its supervisor"
            time.sleep(0.02)
        assert not is_gone(other)
    finally:
        os.kill(other, signal.SIGKILL)


def process_tree(root: int) -> list[int]:
    """Every descendant's pid."""
    parents: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            pid, parent = int(stat.parent.name), int(stat.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        parents.setdefault(parent, []).append(pid)
    found, waiting = [], [root]
    while waiting:
        children = parents.get(waiting.pop(), [])
        found += children
        waiting += children
    return found


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_nothing_of_the_supervisor_lives_two_seconds_after_its_sigkill(tmp_path, method):
    script = tmp_path / "script.py"
    files = [str(tmp_path / "first"), str(tmp_path / "second")]
    root = str(Path(__file__).parents[2])
    text = MAIN.format(path=[root], directory=str(tmp_path), method=method, first=files[0], second=files[1])
    script.write_text(text)
    program = subprocess.Popen([sys.executable, str(script)])
    try:
        deadline = time.monotonic() + DEADLINE_S
        while not all(Path(name).exists() for name in files) or len(process_tree(program.pid)) < 5:
            assert time.monotonic() < deadline
            assert program.poll() is None
            time.sleep(0.02)
        tree = process_tree(program.pid)
    finally:
        program.kill()
        program.wait()

    time.sleep(2)  # the promise itself

    assert [pid for pid in tree if not is_gone(pid)] == []


@in_loop
async def test_what_a_worker_said_before_it_died_is_heard_though_writing_to_it_fails_first(tmp_path):
    log = tmp_path / "log"
    async with Yard(handlers.mark_or_die, tmp_path, workers=1) as yard:
        await yard.run(*[[str(log), "before", 0]] * 3)
        process = yard.supervisor._processes[0]
        ids = yard.push([str(log), "one", 0])
        while not yard.supervisor._foreman.busy():  # noqa: ASYNC110 - it must be seen in the very turn
            await asyncio.sleep(0)

        # The loop stands still until the worker has said its word and is dead, and writes before it can read.
        spoke = _poll(process._channel, select.POLLIN)
        os.kill(process.pid, signal.SIGKILL)
        hung_up = _poll(process._channel, 0)
        process.send(WriteOut())
        await yard.results(*ids)

    assert spoke
    assert hung_up
    assert log.read_text().split() == ["before"] * 3 + ["one"]


def _poll(channel: socket.socket, events: int) -> bool:
    poll = select.poll()
    poll.register(channel, events)
    return bool(poll.poll(DEADLINE_S * 1000))
