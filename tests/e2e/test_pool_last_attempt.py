"""A job on its last attempt: once it has ended it never runs again, whatever becomes of its worker."""

from __future__ import annotations

from collections import Counter

from osqueue import LocalPool
from tests.e2e import handlers


def test_no_job_that_may_run_once_runs_twice_though_workers_die_between_them(tmp_path):
    log = tmp_path / "log"
    lines = [{"file": str(log), "text": str(number)} for number in range(400)]
    with LocalPool(handlers.append_or_die, workers=2, max_attempts=1, path=tmp_path / "queue") as pool:
        pool.push_many(lines)
        stats = pool.join(120)

    assert Counter(log.read_text().split()) == {str(number): 1 for number in range(400)}
    assert (stats.succeeded, stats.dead) == (360, 40)


def test_a_job_with_a_limit_of_its_own_does_not_run_twice_either(tmp_path):
    log = tmp_path / "log"
    lines = [{"file": str(log), "text": str(number)} for number in range(100)]
    with LocalPool(handlers.append_or_die, workers=2, path=tmp_path / "queue") as pool:
        pool.push_many(lines, max_attempts=1)
        pool.join(120)

    assert Counter(log.read_text().split()) == {str(number): 1 for number in range(100)}
