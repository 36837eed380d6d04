"""Workers that are replaced after so many jobs, or above so much memory."""

from __future__ import annotations

import pytest

from osqueue.worker.messages import End, GiveBack
from tests.supervisor.scene import MS, Scene

MIB = 1024 * 1024


def test_a_worker_is_never_sent_more_jobs_than_it_may_still_run():
    scene = Scene(workers=1, max_tasks_per_child=3).open()
    scene.know(0.01)
    ids = scene.grant(10)

    assert scene.has(0) == ids[:3]
    scene.finish(0, ids[0])
    scene.finish(0, ids[1])

    assert scene.has(0) == ids[2:3]


def test_after_its_last_job_a_worker_is_told_to_end_and_another_starts_at_once():
    scene = Scene(workers=1, max_tasks_per_child=2).open()
    scene.finish(0)
    ids = scene.grant(3)
    scene.finish(0, *scene.has(0))
    scene.finish(0, *scene.has(0))

    assert scene.messages(0) == [End()]
    assert scene.has(0) == []
    scene.die(0, 0)
    assert scene.started() == [0, 0]
    scene.up(0)
    assert scene.has(0) == ids[2:]


def test_what_a_worker_gives_back_it_has_not_run():
    scene = Scene(workers=1, max_tasks_per_child=3).open()
    scene.know(50)
    first, second, *_ = scene.grant(6)
    assert scene.has(0) == [first, second]

    scene.give_back(0, second)
    scene.finish(0, first, run_ms=50)
    scene.finish(0, second, run_ms=50)

    assert scene.messages(0) == []
    assert len(scene.has(0)) == 1


@pytest.mark.parametrize("age_ms", [0, 5_000])
def test_replaced_workers_are_no_failed_starts_whatever_their_age(age_ms):
    scene = Scene(workers=1, max_tasks_per_child=1)
    scene.foreman.start(scene.now)
    scene.settle()

    for number in range(20):
        assert scene.started() == [0] * (number + 1)
        scene.up(0)
        scene.wait(age_ms)
        scene.finish(0, *scene.grant(1))
        scene.die(0, -11)

    assert scene.broken() is None


def test_a_worker_above_its_memory_gives_back_what_it_has_not_begun_and_is_told_to_end():
    scene = Scene(workers=2, max_memory_per_child_bytes=100 * MIB).open()
    scene.know(1)
    ids = scene.grant(8)
    mine, others = [*scene.has(0)], [*scene.has(1)]
    assert len(mine) >= 3
    scene.finish(0, mine[0], rss_bytes=101 * MIB)
    scene.begin(0, mine[1])

    assert scene.messages(0) == [GiveBack(0)]
    scene.give_back(0, *mine[2:])
    scene.finish(1, *others)
    assert scene.has(0) == [mine[1]]
    assert set(mine[2:]) <= set(scene.has(1))
    scene.finish(0, mine[1])
    assert scene.messages(0) == [GiveBack(0), End()]
    scene.finish(1, *scene.has(1))
    scene.die(0, 0)
    scene.wait(10)

    assert scene.started() == [0, 1, 0]
    assert scene.verdicts() == dict.fromkeys(ids, "succeeded")


def test_an_idle_worker_above_its_memory_is_told_to_end_at_once():
    scene = Scene(workers=1, max_memory_per_child_bytes=100).open()

    scene.finish(0, *scene.grant(1), rss_bytes=101)

    assert scene.messages(0) == [End()]


def test_a_worker_at_its_memory_stays():
    scene = Scene(workers=1, max_memory_per_child_bytes=100).open()

    scene.finish(0, *scene.grant(1), rss_bytes=100)
    scene.finish(0, *scene.grant(1))

    assert scene.messages(0) == []


def test_a_replaced_worker_that_does_not_end_is_killed_after_the_grace():
    scene = Scene(workers=1, max_tasks_per_child=1, grace_s=3).open()
    scene.finish(0, *scene.grant(1))

    scene.wait(2_999)
    assert scene.killed() == []
    assert scene.foreman.alarm_ns() == scene.now + 1 * MS
    scene.wait(1)
    assert scene.killed() == [0]
    scene.die(0, -9)

    assert scene.started() == [0, 0]


def test_however_short_the_grace_a_worker_has_a_second_to_end():
    scene = Scene(workers=1, max_tasks_per_child=1, grace_s=0).open()
    scene.finish(0, *scene.grant(1))

    scene.wait(999)
    assert scene.killed() == []
    scene.wait(1)
    assert scene.killed() == [0]


def test_a_second_stop_shortens_the_time_of_workers_that_end_already():
    scene = Scene(workers=1).open()
    scene.foreman.stop(600, scene.now)
    scene.settle()
    scene.wait(2_000)
    assert scene.messages(0) == [End()]

    scene.foreman.stop(0, scene.now)
    scene.wait(1_000)

    assert scene.killed() == [0]


def test_a_job_that_is_lost_while_its_worker_is_to_be_replaced_is_killed_in_time():
    scene = Scene(workers=1, max_tasks_per_child=1, grace_s=5).open()
    [job] = scene.grant()
    scene.begin(0, job)
    scene.foreman.no_longer_ours([job], scene.now)
    scene.settle()

    scene.wait(5_100)

    assert scene.killed() == [0]
    scene.die(0)
    assert scene.verdicts() == {}


def test_without_limits_workers_stay():
    scene = Scene(workers=1).open()

    for _ in range(100):
        scene.finish(0, *scene.grant(1), rss_bytes=1 << 60)

    assert scene.messages(0) == []
    assert scene.started() == [0]
