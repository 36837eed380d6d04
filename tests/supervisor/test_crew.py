"""When workers are started, and when the pool is broken."""

from __future__ import annotations

import pytest

from osqueue.core.messages import JobError
from osqueue.supervisor.crew import Crew
from osqueue.worker_process import NO_MAIN_GUARD
from tests.supervisor.scene import S, Scene


def test_the_first_worker_starts_alone_and_the_others_once_it_stands():
    scene = Scene(workers=4)

    scene.foreman.start(scene.now)
    scene.settle()
    assert scene.started() == [0]

    scene.up(0)
    assert scene.started() == [0, 1, 2, 3]
    assert scene.foreman.workers() == 1


def test_a_failed_start_is_repeated_after_a_pause_that_doubles():
    scene = Scene(workers=3)
    scene.foreman.start(scene.now)
    scene.settle()

    for pause_ms in (100, 200, 400, 800):
        before = len(scene.started())
        scene.die(0, 1)
        scene.wait(pause_ms - 1)
        assert len(scene.started()) == before
        scene.wait(1)
        assert len(scene.started()) == before + 1


def test_five_failed_starts_in_a_row_break_the_pool_with_the_last_reason():
    scene = Scene(workers=3)
    scene.foreman.start(scene.now)
    scene.settle()
    [job] = scene.grant()

    for number in range(5):
        assert scene.broken() is None
        scene.wait(2_000)
        scene.not_up(0, JobError("ImportError", f"failure {number}", "Traceback: …"))

    assert "ImportError: failure 4" in str(scene.broken())
    assert "Traceback: …" in str(scene.broken())
    assert scene.verdicts() == {job: "returned"}
    scene.wait(60_000)
    assert len(scene.started()) == 5


def test_a_start_that_succeeds_in_between_begins_the_count_anew():
    scene = Scene(workers=1)
    scene.foreman.start(scene.now)
    scene.settle()

    for _ in range(3):
        for _ in range(4):
            scene.die(0, 1)
            scene.wait(2_000)
        scene.up(0)
        scene.grant()
        scene.begin(0, scene.last_id)
        scene.die(0)

    assert scene.broken() is None


def test_a_missing_main_guard_breaks_the_pool_at_once():
    scene = Scene(workers=3)
    scene.foreman.start(scene.now)
    scene.settle()

    scene.die(0, NO_MAIN_GUARD)

    assert 'if __name__ == "__main__":' in str(scene.broken())


def test_the_guards_exit_status_of_a_standing_worker_means_nothing():
    scene = Scene().open()

    scene.die(0, NO_MAIN_GUARD)

    assert scene.broken() is None


def test_idle_workers_killed_from_outside_are_replaced_at_once():
    scene = Scene(workers=8).open()

    for slot in range(8):
        scene.die(slot)

    assert scene.started() == list(range(8)) * 2
    assert scene.broken() is None


def test_workers_that_stand_and_die_at_once_without_a_job_count_as_failed_starts():
    scene = Scene(workers=1)
    scene.foreman.start(scene.now)
    scene.settle()

    for _ in range(5):
        scene.wait(2_000)
        scene.up(0)
        scene.die(0)

    assert scene.broken() is not None


@pytest.mark.parametrize("count", [1, 6])
def test_a_worker_that_dies_on_a_job_is_replaced_at_once_however_often(count):
    scene = Scene(workers=1).open()

    for _ in range(count):
        [job] = scene.grant()
        scene.begin(0, job)
        scene.die(0)
        scene.up(0)

    assert len(scene.started()) == 1 + count
    assert scene.foreman.workers() == 1


def test_workers_that_take_30_seconds_to_start_are_named_once_and_waited_for():
    scene = Scene(workers=3)
    scene.foreman.start(scene.now)
    scene.settle()

    scene.wait(29_999)
    assert scene.slow() == []
    scene.wait(1)
    assert scene.slow() == [[0]]
    scene.wait(600_000)
    assert scene.slow() == [[0]]
    scene.up(0)
    scene.wait(30_000)
    assert scene.slow() == [[0], [1, 2]]

    assert scene.started() == [0, 1, 2]
    assert scene.broken() is None


def test_a_worker_that_stands_in_time_is_not_named():
    scene = Scene(workers=1)
    scene.foreman.start(scene.now)
    scene.settle()
    scene.wait(29_000)

    scene.up(0)
    scene.wait(60_000)

    assert scene.slow() == []


def test_each_start_has_a_time_of_its_own():
    scene = Scene(workers=1)
    scene.foreman.start(scene.now)
    scene.settle()

    for _ in range(4):
        scene.wait(29_950)
        scene.die(0, 1)
        scene.wait(99)  # until it is started again

    assert scene.slow() == []


def test_a_stop_while_a_worker_takes_long_to_start_kills_it_at_once_and_names_nobody():
    scene = Scene(workers=2)
    scene.foreman.start(scene.now)
    scene.settle()
    [job] = scene.grant()

    scene.foreman.stop(600, scene.now)
    scene.settle()

    assert scene.killed() == [0]
    assert scene.verdicts() == {job: "returned"}
    scene.wait(60_000)
    assert scene.slow() == []


def test_a_worker_that_was_told_to_end_is_no_failed_start():
    crew = Crew(1)
    crew.begin(0)
    [member] = crew.due(0)
    crew.up(member, 100, 1)
    member.end(2 * S)

    assert not crew.ended(member, 3, was_on_job=False)
    assert crew.next_start_ns() == 3
