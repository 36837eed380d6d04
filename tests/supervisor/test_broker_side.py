"""Claims, reports, drops, stops."""

from __future__ import annotations

from osqueue.core.messages import Handout, Outcome
from osqueue.worker.messages import End, GiveBack
from tests.supervisor.scene import MS, Scene


def test_at_first_two_jobs_a_worker_are_claimed():
    scene = Scene(workers=4)

    scene.foreman.start(scene.now)
    scene.settle()

    assert scene.claimed() == [8]


def test_the_window_grows_with_the_observed_rate_and_is_bounded():
    scene = Scene(workers=4).open()

    scene.know(1)
    assert sum(scene.claimed()) == 600  # 150 ms of 4 workers' work
    scene.know(0.001, count=100_000)
    assert sum(scene.claimed()) == 16_384


def test_claims_come_in_large_steps_and_never_exceed_the_window():
    scene = Scene(workers=2).open()
    scene.know(1)
    window = sum(scene.claimed())
    claims = len(scene.claimed())

    scene.grant(window)
    for _ in range(window // 4 - 1):
        slot = 0 if scene.has(0) else 1
        scene.finish(slot, scene.has(slot)[0])
    assert len(scene.claimed()) == claims
    scene.finish(0, scene.has(0)[0])
    assert scene.claimed()[claims:] == [window // 4]


def test_large_payloads_make_the_window_small():
    scene = Scene(workers=2).open()
    scene.know(1)
    scene.grant(100, size=4 << 20)
    before = sum(scene.claimed())

    for _ in range(100):
        slot = 0 if scene.has(0) else 1
        scene.finish(slot, scene.has(slot)[0])

    assert sum(scene.claimed()) - before <= 100


def test_a_new_broker_is_asked_again_for_the_whole_window():
    scene = Scene(workers=4).open()
    scene.grant(3)

    scene.foreman.reconnected()
    scene.settle()

    assert scene.claimed() == [8, 5]


def test_the_first_outcome_is_reported_at_once_and_the_next_ones_together():
    scene = Scene(workers=1).open()
    scene.know(0.1)
    ids = scene.grant(10)

    scene.finish(0, ids[0])
    assert [len(report.outcomes) for report in scene.reports()] == [1]
    scene.finish(0, ids[1])
    scene.finish(0, ids[2])
    assert len(scene.reports()) == 1
    scene.wait(4)
    assert [len(report.outcomes) for report in scene.reports()] == [1, 2]


def test_a_report_is_at_most_a_mebibyte():
    scene = Scene(workers=1).open()
    scene.know(0.01)
    ids = scene.grant(20)
    scene.foreman.wrote(0, [Outcome(n, 1, "succeeded", result=b"x" * 300_000) for n in ids], [], scene.now)
    scene.settle()

    assert [len(report.outcomes) for report in scene.reports()] == [3] * 6 + [2]


def test_an_attempt_that_is_granted_anew_while_it_is_here_runs_once():
    scene = Scene(workers=2).open()
    first, second = scene.grant(2)
    scene.begin(0, first)
    again = [Handout(job_id, 1, "default", b"x", 0) for job_id in (first, second)]

    scene.foreman.granted(again, scene.now)
    scene.settle()
    assert sorted(scene.has(0) + scene.has(1)) == [first, second]
    scene.finish(0, first)
    scene.foreman.granted([*again, Handout(second, 2, "default", b"x", 0)], scene.now)  # its report is unanswered
    scene.settle()

    assert first not in scene.has(0) + scene.has(1)
    assert (second, 2) in scene.foreman.held()


def test_a_job_is_held_until_its_report_is_answered():
    scene = Scene(workers=1).open()
    [job] = scene.grant(1)
    scene.finish(0, job)
    assert scene.foreman.held() == [(job, 1)]

    scene.answer_all()

    assert scene.foreman.held() == []


def test_dropping_takes_what_no_worker_has_at_once():
    scene = Scene(workers=1).open()
    first, second, third = scene.grant(3)
    scene.begin(0, first)

    scene.foreman.drop(1, [second, third, 999], scene.now)
    scene.settle()

    assert scene.dropped() == [[second, third]]
    scene.wait(10)
    assert scene.verdicts() == {second: "cancelled", third: "cancelled"}


def test_dropping_asks_the_workers_for_what_they_have():
    scene = Scene(workers=1).open()
    scene.know(50)
    running, waiting = scene.grant(2)
    scene.begin(0, running)

    scene.foreman.drop(7, [running, waiting], scene.now)
    scene.settle()
    assert scene.messages(0) == [GiveBack(7, [waiting])]
    assert scene.dropped() == []
    scene.give_back(0, waiting, number=7)

    assert scene.dropped() == [[waiting]]
    assert scene.verdicts() == {waiting: "cancelled"}


def test_a_drop_is_answered_only_with_its_report_on_the_way():
    scene = Scene(workers=1).open()
    scene.know(50)
    [done] = scene.grant(1)
    scene.finish(0, done)
    running, *waiting = scene.grant(5)
    scene.begin(0, running)
    dropped = next(one for one in waiting if one not in scene.has(0))
    assert scene.verdicts() == {done: "succeeded"}, "a report is under way, and the next one would be held back"

    scene.foreman.drop(1, [dropped], scene.now)
    scene.settle()

    assert scene.dropped() == [[dropped]]
    assert scene.verdicts() == {done: "succeeded", dropped: "cancelled"}


def test_a_drop_is_answered_after_a_second_by_a_worker_that_cannot_and_late_jobs_run_after_all():
    scene = Scene(workers=1).open()
    scene.know(50)
    running, waiting = scene.grant(2)
    scene.begin(0, running)
    scene.foreman.drop(7, [waiting], scene.now)

    scene.wait(1_000)
    assert scene.dropped() == [[]]
    scene.give_back(0, waiting, number=7)

    assert scene.verdicts() == {}
    assert waiting in [*scene.has(0), *(job.id for job in scene.foreman._feeding.jobs)]


def test_a_drop_is_answered_by_the_workers_death():
    scene = Scene(workers=1).open()
    scene.know(50)
    running, waiting = scene.grant(2)
    scene.begin(0, running)
    scene.foreman.drop(7, [running, waiting], scene.now)

    scene.die(0, -9)
    scene.wait(10)

    assert scene.dropped() == [[waiting]]
    assert scene.verdicts() == {running: "failed", waiting: "cancelled"}


def test_stop_returns_what_has_not_begun_and_waits_for_the_rest():
    scene = Scene(workers=1).open()
    scene.know(50)
    running, behind, queued = scene.grant(3)
    scene.begin(0, running)

    scene.foreman.stop(30, scene.now)
    scene.settle()
    assert scene.messages(0) == [GiveBack(0)]
    scene.give_back(0, behind)
    late = scene.grant(1)
    scene.finish(0, running, run_ms=50)
    assert scene.messages(0)[-1] == End()
    scene.wait(10)
    scene.die(0, 0)
    assert not scene.stopped()
    scene.answer_all()

    assert scene.stopped()
    assert scene.verdicts() == {running: "succeeded", behind: "returned", queued: "returned", late[0]: "returned"}
    assert scene.killed() == []
    assert scene.started() == [0]


def test_stop_kills_what_outlasts_grace_and_returns_it_uncharged():
    scene = Scene(workers=1).open()
    [running] = scene.grant(1)
    scene.begin(0, running)
    scene.foreman.stop(2, scene.now)
    scene.settle()

    scene.wait(1_990)
    assert scene.killed() == []
    scene.wait(20)
    assert scene.killed() == [0]
    scene.die(0, -9)
    scene.wait(10)
    scene.answer_all()

    assert scene.verdicts() == {running: "returned"}
    assert scene.stopped()


def test_a_worker_that_does_not_end_is_killed():
    scene = Scene(workers=1).open()

    scene.foreman.stop(0, scene.now)
    scene.settle()
    assert scene.messages(0) == [End()]
    scene.wait(990)
    assert scene.killed() == []
    scene.wait(20)
    assert scene.killed() == [0]
    scene.die(0, -9)

    assert scene.stopped()


def test_a_broker_that_never_answers_does_not_hold_a_stop_up_for_ever():
    scene = Scene(workers=1).open()
    [job] = scene.grant(1)
    scene.finish(0, job)
    scene.foreman.stop(0, scene.now)
    scene.settle()
    scene.die(0, 0)

    scene.wait(9_990)
    assert not scene.stopped()
    scene.wait(20)

    assert scene.stopped()


def test_an_idle_foreman_sets_no_alarm():
    scene = Scene(workers=3, timeout_s=5).open()
    [job] = scene.grant(1)
    scene.finish(0, job)
    scene.answer_all()

    assert scene.foreman.alarm_ns() is None


def test_alarms_lie_ahead_so_that_the_loop_never_spins():
    scene = Scene(workers=2, timeout_s=100).open()
    scene.know(0.1)
    scene.grant(12)
    scene.begin(0, scene.has(0)[0])

    rung = 0
    end = scene.now + 1_000 * MS
    while (alarm := scene.foreman.alarm_ns()) is not None and alarm < end:
        scene.now = max(alarm, scene.now)
        scene.settle()
        rung += 1

    assert rung <= 60


def test_dropping_what_has_begun_is_answered_at_once():
    scene = Scene(workers=1).open()
    scene.know(50)
    running, _ = scene.grant(2)
    scene.begin(0, running)

    scene.foreman.drop(7, [running], scene.now)
    scene.settle()

    assert scene.dropped() == [[]]
