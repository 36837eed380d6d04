"""`SoftTimeout`: raised in the handler that runs too long, wherever that is, and in no other."""

from __future__ import annotations

import json
import random

import pytest

from tests.processes import handlers, timed_handlers
from tests.processes.yard import Yard, in_loop

S = 0.1


@pytest.mark.parametrize("handler", timed_handlers.SYNC)
@in_loop
async def test_it_reaches_a_plain_handler_whatever_that_does(tmp_path, handler):
    async with Yard(handler, tmp_path, workers=1, soft_timeout_s=S) as yard:
        [outcome] = await yard.outcomes(*yard.push(None))

    assert (outcome.verdict, outcome.error.error_type) == ("failed", "SoftTimeout")
    assert outcome.error.message == "the job ran longer than its soft timeout soft_timeout_s=0.1"
    assert f"in {handler.__name__}\n" in outcome.error.traceback
    assert outcome.finished_ms - outcome.started_ms >= 1000 * S


@pytest.mark.parametrize("handler", timed_handlers.ASYNC)
@in_loop
async def test_it_reaches_a_coroutine_whatever_that_does_and_leaves_no_task_behind(tmp_path, handler):
    tasks = {"long": handler, "tasks": timed_handlers.tasks}
    async with Yard(tasks, tmp_path, workers=1, soft_timeout_s=S) as yard:
        [outcome] = await yard.outcomes(*yard.push(None, task="long"))
        left = await yard.run(None, task="tasks")

    assert (outcome.verdict, outcome.error.error_type) == ("failed", "SoftTimeout")
    assert f"in {handler.__name__}\n" in outcome.error.traceback
    assert left == [1]


@pytest.mark.parametrize("inside", [False, True])
@in_loop
async def test_a_task_group_ends_with_it(tmp_path, inside):
    tasks = {"group": timed_handlers.group, "tasks": timed_handlers.tasks}
    async with Yard(tasks, tmp_path, workers=1, soft_timeout_s=S) as yard:
        [outcome] = await yard.outcomes(*yard.push(inside, task="group"))
        left = await yard.run(None, task="tasks")

    assert (outcome.verdict, outcome.error.error_type) == ("failed", "SoftTimeout")
    assert left == [1]


@pytest.mark.parametrize("name", [handler.__name__ for handler in timed_handlers.SYNC])
@in_loop
async def test_a_handler_that_catches_it_may_return_a_result(tmp_path, name):
    async with Yard(timed_handlers.caught, tmp_path, workers=1, soft_timeout_s=S) as yard:
        [[message, took_s]] = await yard.run(name)

    assert "soft timeout" in message
    assert took_s > S / 2  # an attempt begins some time before its handler's first line


@pytest.mark.parametrize("name", [handler.__name__ for handler in timed_handlers.ASYNC])
@in_loop
async def test_a_coroutine_that_catches_it_may_go_on_and_return_a_result(tmp_path, name):
    async with Yard(timed_handlers.caught_async, tmp_path, workers=1, soft_timeout_s=S) as yard:
        [[message, took_s, cancelling]] = await yard.run(name)

    assert "soft timeout" in message
    assert took_s > S / 2  # an attempt begins some time before its handler's first line
    assert cancelling == 0


@in_loop
async def test_it_comes_once_for_each_attempt(tmp_path):
    tasks = {"sync": timed_handlers.again_and_again, "async": timed_handlers.again_and_again_async}
    async with Yard(tasks, tmp_path, workers=2, soft_timeout_s=S) as yard:
        ids = yard.push(S, task="sync") + yard.push(S, task="async")

        assert await yard.results(*ids) == ["once", "once"]


@in_loop
async def test_it_is_not_raised_in_the_event_loops_own_code_and_comes_once_afterwards(tmp_path):
    async with Yard(timed_handlers.spin_in_asyncio, tmp_path, workers=1, soft_timeout_s=S) as yard:
        assert await yard.run(2 * S) == ["the coroutine"]


@pytest.mark.parametrize("name", ["log_slowly", "end_slowly", "call_back_slowly"])
@pytest.mark.parametrize("handler", [timed_handlers.go_on_after, timed_handlers.go_on_after_async])
@in_loop
async def test_code_that_would_swallow_it_is_left_alone_and_its_caller_interrupted_next(tmp_path, handler, name):
    tasks = {"long": handler, "traced": timed_handlers.traced}
    async with Yard(tasks, tmp_path, workers=1, soft_timeout_s=S) as yard:
        [outcome] = await yard.outcomes(*yard.push(name, task="long"))
        traced = await yard.run(None, task="traced")

    assert (outcome.verdict, outcome.error.error_type) == ("failed", "SoftTimeout")
    assert outcome.error.traceback.splitlines()[2].startswith("    spun_until(")
    assert outcome.finished_ms - outcome.started_ms < 1000
    assert traced == [False]


@in_loop
async def test_a_handler_that_returns_from_such_code_has_ended_in_time(tmp_path):
    tasks = {"long": timed_handlers.log_and_return, "traced": timed_handlers.traced}
    async with Yard(tasks, tmp_path, workers=1, soft_timeout_s=S) as yard:
        assert await yard.run(None, task="long") == [None]
        assert await yard.run(None, task="traced") == [False]


@in_loop
async def test_uncaught_it_is_retried_like_any_exception(tmp_path):
    async with Yard(timed_handlers.sleep, tmp_path, workers=1, max_attempts=3, soft_timeout_s=S) as yard:
        [job_id] = yard.push(None)
        await yard.outcomes(job_id)

        assert [outcome.attempt for outcome in yard.broker.reported[job_id]] == [1, 2, 3]
        assert {outcome.error.error_type for outcome in yard.broker.reported[job_id]} == {"SoftTimeout"}


@in_loop
async def test_retry_on_and_no_retry_on_decide_what_follows(tmp_path):
    never = ("osqueue.errors:SoftTimeout",)
    async with Yard(timed_handlers.sleep, tmp_path, workers=1, soft_timeout_s=S, no_retry_on=never) as yard:
        [outcome] = await yard.outcomes(*yard.push(None))

    assert outcome.verdict == "dead"


@in_loop
async def test_what_a_handler_raises_for_it_is_what_counts(tmp_path):
    async with Yard(timed_handlers.clean_up_and_fail, tmp_path, workers=1, soft_timeout_s=S) as yard:
        [outcome] = await yard.outcomes(*yard.push(None))

    assert outcome.error.error_type == "LookupError"
    assert "SoftTimeout" in outcome.error.traceback


@in_loop
async def test_the_worker_lives_on_and_the_hard_timeout_does_not_come(tmp_path):
    tasks = {"sleep": timed_handlers.sleep, "pid": handlers.pid}
    async with Yard(tasks, tmp_path, workers=1, soft_timeout_s=S, timeout_s=60) as yard:
        [before] = await yard.run(None, task="pid")
        await yard.outcomes(*yard.push(*[None] * 5, task="sleep"))
        [after] = await yard.run(None, task="pid")

    assert before == after


@in_loop
async def test_a_handler_that_takes_no_notice_is_killed_by_the_hard_timeout(tmp_path):
    async with Yard(timed_handlers.again_and_again, tmp_path, workers=1, soft_timeout_s=S, timeout_s=0.5) as yard:
        [outcome] = await yard.outcomes(*yard.push(60))

    assert outcome.error.error_type == "JobTimeout"


@in_loop
async def test_a_jobs_own_timeout_below_it_comes_first(tmp_path):
    async with Yard(timed_handlers.sleep, tmp_path, workers=1, soft_timeout_s=30) as yard:
        [outcome] = await yard.outcomes(*yard.push(None, timeout_s=0.1))

    assert outcome.error.error_type == "JobTimeout"


@in_loop
async def test_time_remaining_is_about_the_hard_timeout(tmp_path):
    async with Yard(timed_handlers.remaining, tmp_path, workers=1, soft_timeout_s=10, timeout_s=100) as yard:
        [remaining] = await yard.run(None)

    assert remaining > 10


@in_loop
async def test_a_handlers_own_alarm_goes_on_beside_it(tmp_path):
    async with Yard(timed_handlers.alarm, tmp_path, workers=1, soft_timeout_s=0.5) as yard:
        [alarms] = await yard.run(None)

    assert alarms >= 2


@in_loop
async def test_a_message_to_the_supervisor_is_never_cut_in_two(tmp_path):
    async with Yard(timed_handlers.say_much, tmp_path, workers=1, soft_timeout_s=0.5) as yard:
        assert await yard.run(1.5) == [True]


@in_loop
async def test_tasks_that_a_handler_leaves_behind_by_itself_are_left_alone(tmp_path):
    tasks = {"leave": timed_handlers.leave_task, "tasks": timed_handlers.tasks, "long": timed_handlers.sleep_async}
    async with Yard(tasks, tmp_path, workers=1, soft_timeout_s=S) as yard:
        await yard.run(None, task="leave")
        await yard.outcomes(*yard.push(None, task="long"))

        assert await yard.run(None, task="tasks") == [2]


@pytest.mark.parametrize("handler", [timed_handlers.signal_early, timed_handlers.signal_early_async])
@in_loop
async def test_a_signal_that_finds_a_job_which_is_not_due_does_nothing(tmp_path, handler):
    async with Yard(handler, tmp_path, workers=1, soft_timeout_s=60) as yard:
        assert await yard.run(*range(20)) == ["went on"] * 20


@pytest.mark.parametrize("handler", [timed_handlers.around, timed_handlers.around_async])
@in_loop
async def test_no_job_pays_for_another_however_close_to_the_timeout_jobs_end(tmp_path, handler):
    soft_s, seed = 0.02, random.randrange(1 << 32)
    dice = random.Random(seed)
    jobs = []
    for _ in range(200):
        jobs.append([soft_s + dice.uniform(-0.001, 0.001), dice.choice(["sleep", "spin"])])
        jobs += [[dice.choice([0, 0, 0.0001]), "spin"]] * 3  # what a late signal would hit

    async with Yard(handler, tmp_path, workers=2, soft_timeout_s=soft_s) as yard:
        ids = yard.push(*jobs)
        outcomes = await yard.outcomes(*ids)

    ends = {"returned": 0, "interrupted": 0}
    for job_id, job, outcome in zip(ids, jobs, outcomes, strict=True):
        about = f"seed={seed} job={job} {outcome}"
        was_due = outcome.finished_ms - outcome.started_ms >= 1000 * soft_s - 1
        if outcome.verdict == "failed":  # between the handler's last line and its end
            assert (outcome.error.error_type, was_due) == ("SoftTimeout", True), about
            continue
        own_id, end = json.loads(outcome.result)
        assert own_id == job_id, about
        assert end == "returned" or was_due, about
        ends[end] += 1
    assert min(ends.values()) > 0, f"seed={seed} {ends}"
    assert all(len(reported) == 1 for reported in yard.broker.reported.values())


@in_loop
async def test_uncaught_at_the_edge_it_fails_its_own_job_and_never_the_worker(tmp_path):
    soft_s, seed = 0.01, random.randrange(1 << 32)
    dice = random.Random(seed)
    lengths = [soft_s + dice.uniform(-0.0003, 0.0003) if dice.random() < 0.5 else 0 for _ in range(400)]

    async with Yard(timed_handlers.uncaught, tmp_path, workers=2, soft_timeout_s=soft_s) as yard:
        await yard.all_up()
        before = {process.pid for process in yard.supervisor._processes.values()}
        ids = yard.push(*[[length_s, ""] for length_s in lengths])
        outcomes = await yard.outcomes(*ids)
        assert {process.pid for process in yard.supervisor._processes.values()} == before

    for length_s, outcome in zip(lengths, outcomes, strict=True):
        about = f"seed={seed} length_s={length_s} {outcome}"
        if outcome.verdict == "failed":
            assert outcome.error.error_type == "SoftTimeout", about
            assert outcome.finished_ms - outcome.started_ms >= 1000 * soft_s - 1, about
