"""Who pays for a death, a timeout, a cancel."""

from __future__ import annotations

import pytest

from osqueue.worker.messages import CancelJobs
from tests.supervisor.scene import MS, OFFSET_MS, Scene


def test_a_death_costs_the_job_in_the_blame_slot_one_attempt_and_no_other():
    scene = Scene(workers=2).open()
    scene.know(0.1)
    scene.grant(8)
    finished, killer, *behind = scene.has(0)
    scene.finish(0, finished, run_ms=0.1)
    scene.begin(0, killer)
    began = scene.now
    scene.wait(3)

    scene.die(0, -11, rss_bytes=12345678)
    scene.wait(10)

    assert scene.verdicts() == {finished: "succeeded", killer: "failed"}
    outcome = scene.outcomes()[killer]
    assert outcome.error is not None
    assert (outcome.error.error_type, outcome.error.signal) == ("WorkerCrashed", "SIGSEGV")
    assert outcome.error.rss_bytes == 12345678
    assert outcome.started_ms == began // MS + OFFSET_MS
    assert scene.has(1)[-len(behind) :] == behind


def test_unbegun_jobs_of_a_dead_worker_go_first_and_in_order():
    scene = Scene(workers=1).open()
    scene.know(5)
    ids = scene.grant(6)
    assert scene.has(0) == ids[:2]

    scene.die(0, -9)
    scene.up(0)

    assert scene.has(0) == ids[:2]


def test_a_death_on_no_job_costs_nobody():
    scene = Scene(workers=1).open()
    ids = scene.grant(3)

    scene.die(0, -9)
    scene.wait(1_000)

    assert scene.verdicts() == {}
    scene.up(0)
    assert scene.has(0) == ids[:1]


def test_what_an_earlier_worker_left_in_the_slot_costs_nobody():
    scene = Scene(workers=1).open()
    [job] = scene.grant(1)
    scene.begin(0, job)
    scene.foreman._crew.members[0].pid = 4711  # another process has the slot now

    scene.die(0, -9)
    scene.wait(10)

    assert scene.verdicts() == {}


@pytest.mark.parametrize(
    ("exit_code", "signal", "status"), [(-9, "SIGKILL", None), (3, None, 3), (0, None, 0), (None, None, None)]
)
def test_signal_or_exit_status_are_on_record(exit_code, signal, status):
    scene = Scene(workers=1).open()
    [job] = scene.grant(1)
    scene.begin(0, job)

    scene.die(0, exit_code)

    error = scene.outcomes()[job].error
    assert error is not None
    assert (error.signal, error.exit_status) == (signal, status)


def test_a_timeout_kills_the_worker_and_fails_the_job():
    scene = Scene(workers=1, timeout_s=3).open()
    [job] = scene.grant(1)
    scene.begin(0, job)

    scene.wait(2_990)
    assert scene.killed() == []
    scene.wait(60)
    assert scene.killed() == [0]
    scene.die(0, -9)

    error = scene.outcomes()[job].error
    assert error is not None
    assert error.error_type == "JobTimeout"


def test_a_jobs_own_timeout_wins_over_the_pools():
    scene = Scene(workers=2, timeout_s=3).open()
    [patient] = scene.grant(1, timeout_s=100.0)
    [hasty] = scene.grant(1, timeout_s=0.5)
    scene.begin(0, patient)
    scene.begin(1, hasty)

    scene.wait(600)
    assert scene.killed() == [1]
    scene.wait(50_000)
    assert scene.killed() == [1]
    scene.wait(60_000)
    assert scene.killed() == [1, 0]


def test_time_spent_waiting_in_a_worker_does_not_count_towards_the_timeout():
    scene = Scene(workers=1, timeout_s=1).open()
    scene.know(50)
    first, second = scene.grant(2)
    scene.begin(0, first)
    scene.wait(900)
    scene.begin(0, second)

    scene.wait(900)
    assert scene.killed() == []
    scene.wait(200)
    assert scene.killed() == [0]


def test_a_job_that_follows_the_one_we_killed_for_is_not_charged():
    scene = Scene(workers=1, timeout_s=1).open()
    scene.know(50)
    late, innocent = scene.grant(2)
    scene.begin(0, late)
    scene.wait(1_100)
    assert scene.killed() == [0]
    scene.finish(0, late, run_ms=1_100)  # it ended while the signal was on its way
    scene.begin(0, innocent)

    scene.die(0, -9)
    scene.wait(10)

    assert scene.verdicts() == {late: "succeeded"}
    assert innocent in [job.id for job in scene.foreman._feeding.jobs]


def test_a_cancelled_job_is_told_and_then_killed_after_grace_and_reported_to_nobody():
    scene = Scene(workers=1, grace_s=2).open()
    [job] = scene.grant(1)
    scene.begin(0, job)

    scene.foreman.no_longer_ours([job], scene.now)
    scene.settle()
    assert scene.messages(0) == [CancelJobs([job])]
    assert scene.foreman.held() == []
    assert scene.foreman.running() == {}
    scene.wait(1_900)
    assert scene.killed() == []
    scene.wait(200)
    assert scene.killed() == [0]
    scene.die(0, -9)
    scene.wait(1_000)

    assert scene.verdicts() == {}


def test_a_cancelled_job_that_ends_by_itself_is_reported_to_nobody_and_its_worker_lives():
    scene = Scene(workers=1, grace_s=2).open()
    [job] = scene.grant(1)
    scene.begin(0, job)
    scene.foreman.no_longer_ours([job], scene.now)

    scene.finish(0, job)
    scene.wait(10_000)

    assert scene.verdicts() == {}
    assert scene.killed() == []


def test_cancelled_jobs_that_nobody_has_begun_vanish():
    scene = Scene(workers=1).open()
    scene.know(50)
    first, second, third = scene.grant(3)
    scene.begin(0, first)

    scene.foreman.no_longer_ours([second, third], scene.now)
    scene.settle()
    scene.give_back(0, second)
    scene.finish(0, first, run_ms=50)
    scene.wait(60_000)

    assert scene.verdicts() == {first: "succeeded"}
    assert scene.foreman.held() == [(first, 1)]  # until the report is answered
    assert scene.killed() == []
