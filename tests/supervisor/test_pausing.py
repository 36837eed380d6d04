"""Pause, resume, and another number of workers, while the pool runs."""

from __future__ import annotations

import pytest

from osqueue.supervisor.effects import Effect, SendReport, WithdrawClaims
from osqueue.worker.messages import End, GiveBack, Progressed
from tests.supervisor.scene import Scene


def pause(scene: Scene, number: int = 1) -> None:
    scene.foreman.pause(number, scene.now)
    scene.settle()


def resume(scene: Scene) -> None:
    scene.foreman.resume()
    scene.settle()


def resize(scene: Scene, workers: int) -> None:
    scene.foreman.resize(workers, scene.now)
    scene.settle()


def kinds(effects: list[Effect], *wanted: type) -> list[type]:
    return [type(effect) for effect in effects if isinstance(effect, wanted)]


def test_a_pause_returns_what_has_not_begun_and_lets_what_runs_finish():
    scene = Scene(workers=1).open()
    scene.know(1)
    ids = scene.grant(4)
    scene.grant(100)  # more than a worker is given at once
    scene.begin(0, ids[0])
    before = len(scene.effects)

    pause(scene)

    sent = scene.has(0)
    assert scene.messages(0) == [GiveBack(1, sent[1:])]
    scene.give_back(0, *sent[1:], number=1)
    scene.answer_all()
    scene.finish(0, ids[0])
    assert scene.verdicts() == {ids[0]: "succeeded", **dict.fromkeys(range(ids[0] + 1, scene.last_id + 1), "returned")}
    assert kinds(scene.effects[before:], WithdrawClaims, SendReport)[0] is WithdrawClaims, "else it comes back at once"


def test_a_pause_is_over_when_every_worker_has_answered():
    scene = Scene(workers=2).open()
    scene.know(1)
    scene.grant(8)
    pause(scene, 7)
    assert scene.dropped() == []

    scene.give_back(0, *scene.has(0), number=7)
    assert scene.dropped() == []
    scene.give_back(1, *scene.has(1), number=7)

    assert scene.dropped() == [[*scene.dropped()[0]]]
    assert scene.verdicts() == dict.fromkeys(range(1, 9), "returned")


def test_a_pause_waits_a_second_at_most_for_a_worker_that_does_not_answer():
    scene = Scene(workers=1).open()
    scene.know(1)
    ids = scene.grant(2)

    pause(scene)
    scene.wait(999)
    assert scene.dropped() == []
    scene.wait(2)
    assert len(scene.dropped()) == 1

    scene.give_back(0, *ids, number=1)
    assert scene.verdicts() == dict.fromkeys(ids, "returned"), "late, and yet it does not run here"


def test_what_a_worker_dies_with_while_it_pauses_is_returned_and_not_cancelled():
    scene = Scene(workers=1).open()
    scene.know(1)
    ids = scene.grant(3)
    scene.begin(0, ids[0])

    pause(scene)
    scene.die(0)

    scene.answer_all()
    assert scene.verdicts() == {ids[0]: "failed", ids[1]: "returned", ids[2]: "returned"}
    assert len(scene.dropped()) == 1
    assert scene.started()[-1] == 0, "its place is taken though it has nothing to do"


def test_what_arrives_in_a_pause_is_returned_and_nothing_is_claimed_until_it_ends():
    scene = Scene(workers=2).open()
    claims = len(scene.claimed())
    pause(scene)

    ids = scene.grant(3)
    scene.wait(5_000)

    assert scene.verdicts() == dict.fromkeys(ids, "returned")
    assert scene.has(0) == scene.has(1) == []
    assert len(scene.claimed()) == claims
    scene.answer_all()
    resume(scene)
    assert scene.claimed()[claims:] == [4], "the whole window: what was asked before was taken back"


def test_nothing_is_claimed_while_a_return_is_on_its_way():
    scene = Scene(workers=1).open()
    claims = len(scene.claimed())
    scene.grant(1)
    pause(scene)
    scene.give_back(0, *scene.has(0), number=1)

    resume(scene)
    assert len(scene.claimed()) == claims
    scene.answer_all()

    assert len(scene.claimed()) == claims + 1


def test_what_comes_back_after_the_pause_has_ended_runs_here():
    scene = Scene(workers=1).open()
    scene.know(1)
    ids = scene.grant(2)
    pause(scene)
    resume(scene)

    scene.give_back(0, *ids, number=1)

    assert scene.has(0) == ids
    assert scene.verdicts() == {}


def test_a_pause_twice_and_a_resume_twice_are_harmless():
    scene = Scene(workers=1).open()
    pause(scene, 1)
    pause(scene, 2)
    resume(scene)
    resume(scene)

    [job_id] = scene.grant(1)

    assert len(scene.dropped()) == 2
    assert scene.has(0) == [job_id]


def test_a_paused_pool_stops_as_any_other():
    scene = Scene(workers=1).open()
    [job_id] = scene.grant(1)
    scene.begin(0, job_id)
    pause(scene)

    scene.foreman.stop(5, scene.now)
    scene.settle()
    scene.finish(0, job_id)
    scene.answer_all()
    scene.die(0, 0)

    assert scene.stopped()


# ------------------------------------------------------------------------------------------------------------- resizing


def test_a_larger_pool_starts_what_it_lacks_at_once_and_claims_more():
    scene = Scene(workers=2).open()
    claimed = sum(scene.claimed())

    resize(scene, 5)

    assert scene.started() == [0, 1, 2, 3, 4]
    assert sum(scene.claimed()) - claimed == 6
    for slot in (2, 3, 4):
        scene.up(slot)
    assert scene.foreman.workers() == 5


def test_a_pool_that_has_not_one_worker_yet_grows_once_the_first_stands():
    scene = Scene(workers=1)
    scene.foreman.start(scene.now)
    scene.settle()

    resize(scene, 3)
    assert scene.started() == [0]
    scene.up(0)

    assert scene.started() == [0, 1, 2]


def test_a_smaller_pool_ends_the_idle_at_once_and_replaces_none():
    scene = Scene(workers=3).open()

    resize(scene, 1)

    assert scene.messages(0) == []
    assert scene.messages(1) == scene.messages(2) == [End()]
    scene.die(1, 0)
    scene.wait(60_000)
    scene.die(2, 0)
    scene.wait(60_000)
    assert scene.started() == [0, 1, 2]
    assert scene.foreman.workers() == 1
    assert len(scene.foreman._crew.members) == 1, "a slot that nobody has costs nothing"


def test_a_surplus_worker_finishes_its_job_and_what_it_has_not_begun_goes_to_others():
    scene = Scene(workers=2).open()
    scene.know(1)
    scene.grant(8)
    first, *rest = scene.has(1)
    scene.begin(1, first)

    resize(scene, 1)
    assert scene.messages(1) == [GiveBack(0)]
    scene.give_back(1, *rest)
    assert scene.messages(1) == [GiveBack(0)], "it works on"
    assert set(rest) <= {*scene.has(0), *(job.id for job in scene.foreman._feeding.jobs)}
    scene.finish(1, first)

    assert scene.messages(1) == [GiveBack(0), End()]
    assert scene.verdicts() == {first: "succeeded"}


def test_a_surplus_worker_is_given_nothing_more():
    scene = Scene(workers=2).open()
    scene.grant(2)
    [job_id] = scene.has(1)
    scene.begin(1, job_id)
    resize(scene, 1)
    scene.know(1)

    scene.grant(20)

    assert scene.has(1) == [job_id]


def test_timeouts_hold_for_a_surplus_worker_too():
    scene = Scene(workers=2, timeout_s=1).open()
    scene.grant(2)
    [job_id] = scene.has(1)
    scene.begin(1, job_id)
    resize(scene, 1)

    scene.wait(1_100)

    assert scene.killed() == [1]


def test_a_surplus_worker_that_does_not_end_is_killed_after_grace():
    scene = Scene(workers=2, grace_s=3).open()
    resize(scene, 1)

    scene.wait(2_900)
    assert scene.killed() == []
    scene.wait(200)

    assert scene.killed() == [1]


def test_a_surplus_worker_that_dies_is_charged_as_any_other_and_not_replaced():
    scene = Scene(workers=2).open()
    scene.grant(2)
    [job_id] = scene.has(1)
    scene.begin(1, job_id)
    resize(scene, 1)

    scene.die(1)

    assert scene.verdicts() == {job_id: "failed"}
    assert scene.started() == [0, 1]


def test_a_worker_that_stands_when_it_is_no_longer_wanted_ends_and_one_that_is_wanted_again_is_started_again():
    scene = Scene(workers=2)
    scene.foreman.start(scene.now)
    scene.settle()
    scene.up(0)
    resize(scene, 1)

    scene.up(1)
    assert scene.messages(1) == [End()]
    resize(scene, 2)
    assert scene.started() == [0, 1], "it is still there"
    scene.die(1, 0)

    assert scene.started() == [0, 1, 1]


def test_young_workers_that_are_ended_are_no_failed_starts():
    scene = Scene(workers=1).open()

    for _ in range(20):
        resize(scene, 2)
        scene.up(1)
        resize(scene, 1)
        scene.die(1, 0)

    assert scene.broken() is None
    assert scene.foreman._crew.failed_in_a_row == 0


def test_a_start_that_waits_for_its_time_is_given_up():
    scene = Scene(workers=3).open()
    scene.grant(3)
    scene.begin(2, scene.has(2)[0])
    scene.die(1, 1)
    scene.die(1, 1)
    started = len(scene.started())

    resize(scene, 1)
    scene.wait(60_000)

    assert len(scene.started()) == started


def test_a_stop_ends_surplus_workers_with_the_others():
    scene = Scene(workers=3).open()
    scene.grant(3)
    for slot in range(3):
        scene.begin(slot, scene.has(slot)[0])
    resize(scene, 1)

    scene.foreman.stop(1, scene.now)
    scene.wait(1_100)
    assert sorted(scene.killed()) == [0, 1, 2]
    for slot in range(3):
        scene.die(slot)
    scene.wait(10)
    scene.answer_all()

    assert scene.stopped()


# ------------------------------------------------------------------------------------------------------------- progress


def test_progress_is_of_the_attempt_that_runs():
    scene = Scene(workers=1).open()
    [job_id] = scene.grant(1)
    scene.begin(0, job_id)

    assert scene.foreman.progress() == []
    scene.foreman.progressed(0, Progressed(job_id, 1, 0.5, "half"))
    scene.foreman.progressed(0, Progressed(job_id, 2, 0.9, "another attempt"))
    scene.foreman.progressed(0, Progressed(99, 1, 0.9, "another job"))
    assert [(one.id, one.fraction, one.message) for one in scene.foreman.progress()] == [(job_id, 0.5, "half")]
    scene.finish(0, job_id)

    assert scene.foreman.progress() == []


@pytest.mark.parametrize("what", ["pause", "resize"])
def test_a_broken_pool_takes_no_order_amiss(what):
    scene = Scene(workers=1)
    scene.foreman.start(scene.now)
    scene.settle()
    for _ in range(5):
        scene.die(0, 1)
        scene.wait(5_000)
    assert scene.broken() is not None
    started = len(scene.started())

    if what == "pause":
        pause(scene)
        resume(scene)
    else:
        resize(scene, 4)
        scene.wait(60_000)

    assert len(scene.started()) == started
