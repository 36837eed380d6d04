"""Workers that are replaced after so many jobs, or above so much memory."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter

import pytest

from osqueue.lifecycle import lifecycle
from tests.processes import course_handlers as course
from tests.processes import handlers
from tests.processes.yard import Yard, in_loop

MIB = 1024 * 1024


@pytest.mark.parametrize("max_tasks", [1, 2, 7])
@in_loop
async def test_no_worker_runs_more_jobs_than_it_may(tmp_path, max_tasks):
    async with Yard(course.pid, tmp_path, workers=2, max_tasks_per_child=max_tasks) as yard:
        ids = yard.push(*range(60))
        runs = Counter(await yard.results(*ids))

    assert max(runs.values()) == max_tasks
    assert len(runs) <= 60 // max_tasks + 2
    assert all(len(yard.broker.reported[job_id]) == 1 for job_id in ids)
    assert yard.broken is None


@in_loop
async def test_failed_attempts_count_too(tmp_path):
    async with Yard({"fail": handlers.fail, "pid": course.pid}, tmp_path, workers=1, max_tasks_per_child=2) as yard:
        [before] = await yard.run(1, task="pid")
        await yard.outcomes(*yard.push("x", task="fail"))
        [after] = await yard.run(1, task="pid")

    assert before != after


@in_loop
async def test_a_replaced_worker_ends_in_good_order_and_its_finalizer_runs(tmp_path, caplog):
    notes = tmp_path / "notes"
    own = lifecycle(course.note_path, (str(notes),), course.note)
    with caplog.at_level(logging.INFO, logger="osqueue"):
        async with Yard(course.pid, tmp_path, workers=1, max_tasks_per_child=2, lifecycle=own) as yard:
            pids = await yard.run(*range(6))
            await asyncio.wait_for(yard.supervisor.stop(30), 60)

    ended = list(dict.fromkeys(map(str, pids)))
    assert notes.read_text().split()[: len(ended)] == ended
    assert all("exit_code=0" in record.getMessage() for record in caplog.records)


@in_loop
async def test_a_finalizer_that_hangs_does_not_keep_its_slot_for_longer_than_the_grace(tmp_path):
    own = lifecycle(course.note_path, (str(tmp_path / "notes"),), course.hang_at_end)
    async with Yard(course.pid, tmp_path, workers=1, max_tasks_per_child=1, grace_s=0.1, lifecycle=own) as yard:
        first, second = await yard.run(1, 2)

    assert first != second


@in_loop
async def test_a_worker_that_has_grown_is_replaced_after_its_job(tmp_path):
    async with Yard(course.grow, tmp_path, workers=1, max_memory_per_child_bytes=300 * MIB) as yard:
        small = await yard.run(1, 1, 1)
        [grown] = await yard.run(400)
        [after] = await yard.run(1)

    assert set(small) == {grown}
    assert after != grown
    assert yard.broken is None


@in_loop
async def test_what_a_worker_that_has_grown_has_not_begun_goes_to_another_uncharged(tmp_path):
    tasks = {"grow": course.grow, "sleep": course.pid_after}
    async with Yard(tasks, tmp_path, workers=1, max_memory_per_child_bytes=300 * MIB, max_attempts=1) as yard:
        await yard.run(0, task="grow")
        await yard.run(*[0.001] * 200, task="sleep")  # known as short: chunks are long
        [grown] = yard.push(400, task="grow")
        behind = yard.push(*[0.001] * 50, task="sleep")

        [old] = await yard.results(grown)
        pids = await yard.results(*behind)
        assert pids[-1] != old
        assert all(len(yard.broker.reported[job_id]) == 1 for job_id in [grown, *behind])


@in_loop
async def test_a_worker_that_dies_in_between_costs_its_own_job_alone(tmp_path):
    async with Yard(handlers.die_by, tmp_path, workers=2, max_tasks_per_child=3, max_attempts=2) as yard:
        before = yard.push(*range(30))
        [killer] = yard.push("SIGKILL")
        after = yard.push(*range(30))

        await yard.results(*before, *after)
        await yard.outcomes(killer)
        assert [outcome.attempt for outcome in yard.broker.reported[killer]] == [1, 2]
        assert all(len(yard.broker.reported[job_id]) == 1 for job_id in before + after)
