"""What a worker does before its first job and after its last."""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import os
import signal
import time

import pytest

from osqueue.lifecycle import lifecycle
from osqueue.supervisor import crew
from osqueue.worker_process import start_context
from tests.processes import course_handlers as course
from tests.processes.yard import Yard, exists, in_loop


@in_loop
async def test_what_the_initializer_returns_is_the_worker_state_of_every_job(tmp_path):
    own = lifecycle(course.load, ("a", {"b": 1}), None)
    async with Yard(course.own_state, tmp_path, workers=2, lifecycle=own) as yard:
        states = await yard.run(*range(50))

    assert all(state == [pid, "a", {"b": 1}] for pid, (*state,) in states)


@in_loop
async def test_without_an_initializer_there_is_no_state(tmp_path):
    async with Yard(course.state, tmp_path, workers=1) as yard:
        assert await yard.run(1) == [None]


@in_loop
async def test_functions_may_be_named_as_text(tmp_path):
    own = lifecycle("tests.processes.course_handlers:load", (), "tests.processes.course_handlers:note_nothing")
    async with Yard(course.own_state, tmp_path, workers=1, lifecycle=own) as yard:
        [[pid, state]] = await yard.run(1)

    assert state == [pid]


@in_loop
async def test_async_ones_run_in_the_loop_of_async_handlers(tmp_path):
    own = lifecycle(course.load_async, ("a",), None)
    async with Yard(course.state_async, tmp_path, workers=1, lifecycle=own) as yard:
        [[loop, (first_loop, value)]] = await yard.run(1)

    assert (first_loop, value) == (loop, "a")


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
@in_loop
async def test_a_lock_of_multiprocessing_may_be_an_argument(tmp_path, method):
    lock = multiprocessing.get_context(method).Lock()
    own = lifecycle(course.load, (lock,), None)
    async with Yard(course.use_lock, tmp_path, workers=1, lifecycle=own, mp_context=method) as yard:
        with lock:
            [job_id] = yard.push(1)
            await yard.until(lambda: bool(yard.supervisor.running()), "it runs")
            await asyncio.sleep(0.05)
            assert job_id not in yard.broker.final

        assert await yard.results(job_id) == [1]


@pytest.mark.parametrize("finalizer", [course.note, course.note_async])
@in_loop
async def test_a_stop_calls_the_finalizer_of_every_worker_with_its_state(tmp_path, finalizer):
    notes = tmp_path / "notes"
    own = lifecycle(course.note_path, (str(notes),), finalizer)
    async with Yard(course.pid, tmp_path, workers=3, lifecycle=own) as yard:
        await yard.all_up()
        pids = {str(process.pid) for process in yard.supervisor._processes.values()}
        await asyncio.wait_for(yard.supervisor.stop(30), 60)

    assert set(notes.read_text().split()) == pids


@in_loop
async def test_without_an_initializer_the_finalizer_gets_none(tmp_path, capfd):
    own = lifecycle(None, (), course.note_nothing)
    async with Yard(course.pid, tmp_path, workers=1, lifecycle=own, mp_context="spawn") as yard:
        await yard.run(1)
        await asyncio.wait_for(yard.supervisor.stop(30), 60)

    assert "the state is None\n" in capfd.readouterr().err


@in_loop
async def test_a_worker_that_is_killed_is_not_finalized_and_its_successor_is_initialized(tmp_path):
    notes = tmp_path / "notes"
    own = lifecycle(course.note_path, (str(notes),), course.note)
    async with Yard(course.pid, tmp_path, workers=1, lifecycle=own) as yard:
        [first] = await yard.run(1)
        os.kill(first, signal.SIGKILL)
        # The next one stands within milliseconds, perhaps before anybody sees that there is none.
        second = first
        while second == first:
            [second] = await yard.run(1)
        await asyncio.wait_for(yard.supervisor.stop(30), 60)

    assert notes.read_text().split() == [str(second)]
    assert first != second


@pytest.mark.parametrize(
    ("initializer", "told"),
    [
        (course.raise_at_start, "LookupError: no such model"),
        (course.exit_at_start, "SystemExit: no licence"),
        (course.ask_at_start, "RuntimeError: no job runs here"),
    ],
)
@in_loop
async def test_an_initializer_that_raises_five_times_breaks_the_pool_with_its_traceback(tmp_path, initializer, told):
    async with Yard(course.pid, tmp_path, workers=2, lifecycle=lifecycle(initializer, (), course.note)) as yard:
        [job_id] = yard.push(1)
        await yard.until(lambda: yard.broken is not None, "the pool is broken")
        await yard.until(lambda: job_id in yard.broker.reported or not yard.broker.held, "the job is back")

    assert told in str(yard.broken)
    assert f"in {initializer.__name__}\n" in str(yard.broken)
    assert all(outcome.verdict == "returned" for outcome in yard.broker.reported.get(job_id, []))


@in_loop
async def test_arguments_that_cannot_be_unpickled_break_the_pool_with_the_reason(tmp_path):
    own = lifecycle(course.load, (course.Unreadable(),), None)
    async with Yard(course.pid, tmp_path, workers=1, lifecycle=own) as yard:
        await yard.until(lambda: yard.broken is not None, "the pool is broken")

    assert "LookupError: not made for workers" in str(yard.broken)


@in_loop
async def test_an_initializer_that_hangs_is_waited_for_and_named_and_a_stop_ends_it_at_once(
    tmp_path, caplog, monkeypatch
):
    monkeypatch.setattr(crew, "SLOW_START_NS", 200_000_000)
    own = lifecycle(course.hang_at_start, (str(tmp_path / "pid"),), None)
    async with Yard(course.pid, tmp_path, workers=2, lifecycle=own) as yard:
        [job_id] = yard.push(1)
        pid = (await exists(tmp_path / "pid")).strip()
        await yard.until(lambda: bool(caplog.records), "it is named")
        stopping = time.monotonic()
        await asyncio.wait_for(yard.supervisor.stop(600), 60)
        stopped = time.monotonic()

    [record] = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert (record.name, record.levelname) == ("osqueue", "WARNING")
    assert "worker 0 has not come up for" in record.getMessage()
    assert "its imports or its initializer take long or hang" in record.getMessage()
    assert f"pid={pid}" in record.getMessage()
    assert stopped - stopping < 30
    assert all(outcome.verdict == "returned" for outcome in yard.broker.reported.get(job_id, []))
    assert yard.broker.held == {}


@pytest.mark.parametrize(
    ("finalizer", "told"), [(course.raise_at_end, "LookupError: cannot let go"), (course.exit_at_end, "SystemExit: 7")]
)
@in_loop
async def test_a_finalizer_that_raises_is_told_on_standard_error_and_nothing_else(
    tmp_path, capfd, caplog, finalizer, told
):
    with caplog.at_level(logging.INFO, logger="osqueue"):
        own = lifecycle(None, (), finalizer)
        async with Yard(course.pid, tmp_path, workers=1, lifecycle=own, mp_context="spawn") as yard:
            await yard.run(1)
            await asyncio.wait_for(yard.supervisor.stop(30), 60)

    said = capfd.readouterr().err
    assert told in said
    assert f"in {finalizer.__name__}\n" in said
    assert all(record.levelno <= logging.INFO for record in caplog.records)
    assert all("exit_code=0" in record.getMessage() for record in caplog.records)


@in_loop
async def test_a_finalizer_that_hangs_is_killed_after_the_grace(tmp_path):
    notes = tmp_path / "notes"
    own = lifecycle(course.note_path, (str(notes),), course.hang_at_end)
    async with Yard(course.pid, tmp_path, workers=1, lifecycle=own) as yard:
        await yard.run(1)
        await asyncio.wait_for(yard.supervisor.stop(0.1), 60)

    assert notes.exists()


def test_a_context_that_starts_processes_is_not_needed_to_check_arguments():
    lifecycle(course.load, (start_context(None).Lock(), multiprocessing.get_context("spawn").Queue()), None)
