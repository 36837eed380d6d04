"""Jobs that end by themselves: values, errors, context, order."""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import sys

import pytest

from tests.processes import handlers
from tests.processes.yard import Yard, exists, in_loop

METHODS = ["spawn", pytest.param("forkserver", marks=pytest.mark.skipif(sys.platform != "linux", reason="Linux"))]


@pytest.mark.parametrize("method", METHODS)
@in_loop
async def test_jobs_run_in_worker_processes_and_their_results_come_back(tmp_path, method):
    async with Yard(handlers.pid, tmp_path, mp_context=method) as yard:
        pids = await yard.run(*range(20))

    assert os.getpid() not in pids


@in_loop
async def test_outcomes_carry_the_brokers_time_and_the_workers_name(tmp_path):
    async with Yard(handlers.pid, tmp_path) as yard:
        before = yard.broker.now_ms()
        [outcome] = await yard.outcomes(*yard.push(None))
        after = yard.broker.now_ms()

    assert before <= outcome.started_ms <= outcome.finished_ms <= after
    assert outcome.worker.endswith(f":{int(outcome.result)}")


@in_loop
async def test_payloads_arrive_as_the_annotated_type(tmp_path):
    async with Yard(handlers.mirror, tmp_path) as yard:
        assert await yard.run({"x": 1, "y": 2}) == [{"x": 2, "y": 1}]


@in_loop
async def test_declared_types_win_over_annotations(tmp_path):
    async with Yard(handlers.type_name, tmp_path, payload_type=handlers.Point) as yard:
        assert await yard.run({"x": 1}) == ["Point"]


@in_loop
async def test_a_payload_that_is_not_of_the_type_is_dead_at_once(tmp_path):
    async with Yard(handlers.double, tmp_path, max_attempts=4) as yard:
        [outcome] = await yard.outcomes(*yard.push("two"))

    assert outcome.verdict == "dead"
    assert outcome.error.error_type == "InvalidPayload"
    assert "Expected `int`, got `str`" in outcome.error.message


@in_loop
async def test_payload_bytes_that_are_no_json_are_dead_at_once(tmp_path):
    async with Yard(handlers.echo, tmp_path, max_attempts=4) as yard:
        outcomes = await yard.outcomes(*yard.push(b'1},{"id":9', b"\xff", b"[" * 100_000))

    assert [outcome.verdict for outcome in outcomes] == ["dead"] * 3


@in_loop
async def test_each_task_runs_its_own_handler(tmp_path):
    tasks = {"double": handlers.double, "text": "tests.processes.handlers:echo"}

    async with Yard(tasks, tmp_path) as yard:
        doubled = yard.push(2, 3, task="double")
        echoed = yard.push("a", task="text")

        assert await yard.results(*doubled, *echoed) == [4, 6, "a"]


@in_loop
async def test_an_exception_crosses_as_type_message_and_traceback_of_the_handler_alone(tmp_path):
    async with Yard(handlers.fail, tmp_path) as yard:
        [outcome] = await yard.outcomes(*yard.push("no such thing"))

    assert outcome.verdict == "failed"
    assert outcome.error.error_type == "LookupError"
    assert outcome.error.message == "no such thing"
    assert outcome.error.attempt == 1
    assert "in fail\n" in outcome.error.traceback
    assert "osqueue/worker" not in outcome.error.traceback


@in_loop
async def test_of_a_long_traceback_the_end_is_kept(tmp_path):
    async with Yard(handlers.fail_deep, tmp_path) as yard:
        [outcome] = await yard.outcomes(*yard.push(300))

    assert len(outcome.error.traceback.encode()) <= 2048
    assert outcome.error.traceback.endswith("LookupError: at the bottom\n")


@in_loop
async def test_an_oversized_message_with_surrogates_is_cut_and_cleaned(tmp_path):
    async with Yard(handlers.fail_oddly, tmp_path) as yard:
        [outcome] = await yard.outcomes(*yard.push(None))

    assert outcome.error.error_type == "ValueError"
    assert outcome.error.message.startswith("\\ud800xxx")
    assert len(outcome.error.message.encode()) <= 2048


@in_loop
async def test_sys_exit_in_a_handler_fails_the_attempt_and_the_worker_lives_on(tmp_path):
    async with Yard({"leave": handlers.leave, "pid": handlers.pid}, tmp_path, workers=1, max_attempts=2) as yard:
        [before] = await yard.run(None, task="pid")
        [job_id] = yard.push(None, task="leave")
        await yard.outcomes(job_id)
        [after] = await yard.run(None, task="pid")

        outcomes = yard.broker.reported[job_id]
        assert [outcome.error.error_type for outcome in outcomes] == ["SystemExit", "SystemExit"]
        assert [outcome.attempt for outcome in outcomes] == [1, 2]
        assert before == after


@in_loop
async def test_retry_fails_the_attempt_with_its_delay(tmp_path):
    async with Yard(handlers.again, tmp_path) as yard:
        outcomes = await yard.outcomes(*yard.push(2.5, None, -1, 1e13))

    assert [outcome.verdict for outcome in outcomes] == ["failed"] * 4
    assert [outcome.retry_delay_s for outcome in outcomes] == [2.5, None, None, None]
    assert [outcome.error.error_type for outcome in outcomes] == ["Retry", "Retry", "ValueError", "ValueError"]


@in_loop
async def test_discard_is_dead_at_once(tmp_path):
    async with Yard(handlers.discard, tmp_path, max_attempts=4) as yard:
        [outcome] = await yard.outcomes(*yard.push(None))

    assert (outcome.verdict, outcome.error.error_type, outcome.error.message) == ("dead", "Discard", "no use")


@in_loop
async def test_no_retry_on_makes_its_exceptions_final(tmp_path):
    async with Yard(handlers.fail, tmp_path, max_attempts=4, no_retry_on=("builtins:LookupError",)) as yard:
        [outcome] = await yard.outcomes(*yard.push("x"))

    assert outcome.verdict == "dead"


@in_loop
async def test_retry_on_makes_all_other_exceptions_final(tmp_path):
    async with Yard(handlers.fail, tmp_path, max_attempts=4, retry_on=("builtins:OSError",)) as yard:
        [outcome] = await yard.outcomes(*yard.push("x"))

    assert outcome.verdict == "dead"


@pytest.mark.parametrize(
    ("kind", "told"),
    [("nan", "holds nan"), ("object", "cannot be encoded"), ("surrogate", "lone surrogate")],
)
@in_loop
async def test_a_result_that_json_cannot_say_fails_the_attempt(tmp_path, kind, told):
    async with Yard(handlers.make, tmp_path) as yard:
        [outcome] = await yard.outcomes(*yard.push(kind))

    assert outcome.verdict == "failed"
    assert outcome.error.error_type == "InvalidPayload"
    assert told in outcome.error.message


@in_loop
async def test_a_result_above_max_payload_fails_the_attempt(tmp_path):
    async with Yard(handlers.make, tmp_path, max_payload_bytes=100_000) as yard:
        [outcome] = await yard.outcomes(*yard.push("large"))

    assert outcome.error.error_type == "PayloadTooLarge"
    assert "limit=100000" in outcome.error.message


@in_loop
async def test_large_payloads_and_results_pass_both_ways_at_once(tmp_path):
    large = ["x" * (1 << 20)] * 24

    async with Yard(handlers.echo, tmp_path, workers=2) as yard:
        assert await yard.run(*large) == large


@in_loop
async def test_async_handlers_share_one_loop_and_run_one_at_a_time(tmp_path):
    async with Yard(handlers.sleep_async, tmp_path, workers=1) as yard:
        ids = yard.push(*[0.05] * 4)
        results = await yard.results(*ids)
        outcomes = await yard.outcomes(*ids)

    assert len({loop for _, loop in results}) == 1
    spans = sorted((outcome.started_ms, outcome.finished_ms) for outcome in outcomes)
    assert all(ended <= begun + 1 for (_, ended), (begun, _) in itertools.pairwise(spans))


@in_loop
async def test_current_job_tells_the_handler_what_it_runs(tmp_path):
    async with Yard({"context": handlers.context}, tmp_path, timeout_s=100) as yard:
        [plain] = await yard.run(None, task="context")
        [own] = await yard.run(None, task="context", timeout_s=50)

    assert [*plain[:3], plain[4]] == [1, 1, "context", False]
    assert 50 < plain[3] <= 100
    assert 0 < own[3] <= 50


@in_loop
async def test_one_workers_jobs_run_in_the_order_of_their_push(tmp_path):
    async with Yard(handlers.echo, tmp_path, workers=1) as yard:
        ids = yard.push(*range(3000))
        await yard.outcomes(*ids)

    assert list(yard.broker.final) == ids


@in_loop
async def test_sigint_does_not_reach_workers_but_their_programs_get_it(tmp_path):
    tasks = {"child": handlers.sigint_of_child, "self": handlers.interrupt_self}

    async with Yard(tasks, tmp_path) as yard:
        assert await yard.results(*yard.push(None, task="self"), *yard.push(None, task="child")) == ["alive", 0]


@in_loop
async def test_a_forked_child_that_returns_from_its_handler_does_not_become_a_second_worker(tmp_path):
    path = tmp_path / "marks"

    async with Yard(handlers.fork_or_mark, tmp_path, workers=1) as yard:
        await yard.run(*[[str(path), "known"]] * 50)
        await yard.run(*[[str(path), text] for text in ("fork", "a", "b", "c", "fork", "d")])

    assert path.read_text().split()[50:] == ["a", "b", "c", "d"]
    assert all(len(outcomes) == 1 for outcomes in yard.broker.reported.values())


@in_loop
async def test_a_forked_child_does_not_clear_the_blame_of_its_parent(tmp_path):
    async with Yard(handlers.fork_or_mark, tmp_path, workers=1) as yard:
        [outcome] = await yard.outcomes(*yard.push([str(tmp_path / "marks"), "fork and die"]))

    assert outcome.error.signal == "SIGKILL"


@in_loop
async def test_running_names_the_jobs_that_have_begun_and_held_all_of_them(tmp_path):
    async with Yard({"hang": handlers.say_begun}, tmp_path, workers=1) as yard:
        first, second = yard.push(str(tmp_path / "a"), str(tmp_path / "b"), task="hang")
        await exists(tmp_path / "a")

        assert yard.supervisor.running() == {"hang": [first]}
        assert sorted(yard.supervisor.held()) == [(first, 1), (second, 1)]
        yard.supervisor.beat()
        assert yard.broker.beats[-1] == [first]


@in_loop
async def test_printed_text_goes_where_the_parents_goes(tmp_path, capfd):
    async with Yard(handlers.print_it, tmp_path, mp_context="spawn") as yard:  # a fork server may be older than capfd
        await yard.run("from a worker")
        await yard.supervisor.stop(10)

    assert "from a worker" in capfd.readouterr().out


@in_loop
async def test_an_orderly_stop_says_nothing_above_info(tmp_path, caplog):
    with caplog.at_level(logging.INFO, logger="osqueue"):
        async with Yard(handlers.echo, tmp_path, workers=3) as yard:
            await yard.all_up()
            await yard.run(1)
            await asyncio.wait_for(yard.supervisor.stop(10), 60)

    assert yard.supervisor.workers() == 0
    assert {record.levelname for record in caplog.records} <= {"INFO"}
    assert all("exit_code=0" in record.getMessage() for record in caplog.records)
