"""Who gets which jobs."""

from __future__ import annotations

from osqueue.worker.messages import GiveBack, WriteOut
from tests.supervisor.scene import Scene


def test_what_has_never_run_goes_to_idle_workers_one_each():
    scene = Scene(workers=2).open()

    first, second, *_ = scene.grant(10)

    assert (scene.has(0), scene.has(1)) == ([first], [second])


def test_the_first_chunks_grow_by_doubling():
    scene = Scene(workers=1).open()
    scene.grant(500)

    sizes = []
    for _ in range(6):
        sizes.append(len(scene.has(0)))
        scene.finish(0, *scene.has(0), run_ms=0.01)

    assert sizes == [1, 2, 6, 18, 54, 162]


def test_a_worker_has_at_most_ten_milliseconds_of_short_jobs():
    scene = Scene(workers=1).open()
    scene.know(0.5)

    scene.grant(500)

    assert len(scene.has(0)) == 20


def test_a_worker_is_topped_up_when_half_of_its_work_is_done():
    scene = Scene(workers=1).open()
    scene.know(0.5)
    ids = scene.grant(500)

    scene.finish(0, *ids[:9], run_ms=0.5)
    assert len(scene.has(0)) == 11
    scene.finish(0, ids[9], run_ms=0.5)
    assert len(scene.has(0)) == 20


def test_jobs_of_ten_milliseconds_and_more_have_one_waiting_behind_them():
    scene = Scene(workers=1).open()
    scene.know(50)

    scene.grant(10)

    assert len(scene.has(0)) == 2


def test_jobs_of_100_milliseconds_and_more_have_nothing_waiting_behind_them():
    scene = Scene(workers=1).open()
    scene.know(100)

    scene.grant(10)

    assert len(scene.has(0)) == 1


def test_a_job_whose_task_is_unknown_never_waits_behind_another():
    scene = Scene(workers=1).open()
    scene.know(0.1)
    [known] = scene.grant(1)

    scene.grant(1, task="new")

    assert scene.has(0) == [known]


def test_nothing_waits_behind_a_job_whose_task_is_unknown():
    scene = Scene(workers=1).open()
    scene.know(0.1)
    [new] = scene.grant(1, task="new")

    scene.grant(5)

    assert scene.has(0) == [new]


def test_few_jobs_are_shared_by_all_workers():
    scene = Scene(workers=4).open()
    scene.know(1)

    scene.grant(8)

    assert [len(scene.has(slot)) for slot in range(4)] == [2, 2, 2, 2]


def test_a_chunk_is_bounded_by_bytes():
    scene = Scene(workers=1).open()
    scene.know(0.01)

    scene.grant(100, size=300_000)

    assert len(scene.has(0)) == 3


def test_a_job_to_be_left_alone_waits_for_an_idle_worker_and_has_nothing_behind_it():
    scene = Scene(workers=1).open()
    scene.know(0.1)
    [first] = scene.grant(1)
    [lonely] = scene.grant(1, alone=True)
    rest = scene.grant(3)

    assert scene.has(0) == [first]
    scene.finish(0, first, run_ms=0.1)
    assert scene.has(0) == [lonely]
    scene.finish(0, lonely, run_ms=0.1)
    assert scene.has(0) == rest


def stuck(scene: Scene) -> tuple[int, list[int]]:
    """Worker 0 is on a job that turned out long, with others behind it; worker 1 is idle."""
    scene.know(0.1)
    scene.grant(12)
    long, *behind = scene.has(0)
    assert behind
    scene.begin(0, long)
    scene.finish(1, *scene.has(1), run_ms=0.1)
    assert scene.has(1) == []
    return long, behind


def test_jobs_behind_a_long_one_are_asked_back_after_20_ms_when_another_worker_is_idle():
    scene = Scene(workers=2).open()
    _, behind = stuck(scene)

    scene.wait(19)
    assert scene.messages(0) == []
    scene.wait(5)
    assert scene.messages(0) == [GiveBack(0)]

    scene.give_back(0, *behind)
    assert scene.has(1) == behind


def test_a_stuck_worker_gets_nothing_more_until_it_is_heard_of():
    scene = Scene(workers=2).open()
    long, behind = stuck(scene)
    scene.wait(30)
    scene.give_back(0, *behind)

    more = scene.grant(400)
    assert scene.has(0) == [long]
    scene.finish(0, long, run_ms=40)
    assert set(scene.has(0)) <= set(more)
    assert scene.has(0)


def test_it_is_asked_once_only():
    scene = Scene(workers=2).open()
    stuck(scene)

    scene.wait(5_000)

    assert scene.messages(0) == [GiveBack(0)]


def test_while_no_worker_is_idle_a_stuck_one_is_asked_to_write_out():
    scene = Scene(workers=1).open()
    scene.know(0.1)
    scene.grant(12)
    scene.begin(0, scene.has(0)[3])

    scene.wait(500)

    assert scene.messages(0) == [WriteOut()]


def test_a_worker_that_moves_on_is_not_asked():
    scene = Scene(workers=2).open()
    _, behind = stuck(scene)

    for job in behind:
        scene.wait(15)
        scene.begin(0, job)

    assert scene.messages(0) == []
