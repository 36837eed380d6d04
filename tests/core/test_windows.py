"""Windows of due time: which jobs stand together, and when they are looked at again."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from osqueue.core.deferred import Deferred
from osqueue.core.windows import LEAD_MS, LEVELS, Window, group_of, opens_ms, window_of

MINUTE_MS = 60_000
DAY_MS = 24 * 60 * MINUTE_MS
NOW_MS = 8**5 * MINUTE_MS * 50 - LEAD_MS
"""A moment at which slots of all levels begin."""

times = st.integers(0, 8**6 * MINUTE_MS)


@pytest.mark.parametrize(
    ("delay_ms", "level"),
    [
        (0, 0),
        (MINUTE_MS, 0),
        (7 * MINUTE_MS, 0),
        (8 * MINUTE_MS, 1),
        (60 * MINUTE_MS, 1),
        (64 * MINUTE_MS, 2),
        (511 * MINUTE_MS, 2),
        (512 * MINUTE_MS, 3),
        (2 * DAY_MS, 3),
        (3 * DAY_MS, 4),
        (22 * DAY_MS, 4),
        (23 * DAY_MS, 5),
        (36_500 * DAY_MS, 5),
    ],
)
def test_the_farther_away_a_job_is_due_the_wider_its_window(delay_ms: int, level: int) -> None:
    assert window_of(NOW_MS + LEAD_MS + delay_ms, NOW_MS).level == level


def test_what_was_due_long_ago_belongs_to_the_minute_that_is_open() -> None:
    assert window_of(0, NOW_MS) == window_of(NOW_MS, NOW_MS) == Window(0, (NOW_MS + LEAD_MS) // MINUTE_MS)


@given(due_ms=times, now_ms=times)
def test_a_window_opens_before_its_first_job_is_due_and_not_at_once(due_ms: int, now_ms: int) -> None:
    level = window_of(due_ms, now_ms).level

    assert opens_ms(level, due_ms) <= due_ms - LEAD_MS
    assert level == 0 or opens_ms(level, due_ms) > now_ms


@given(due_ms=times, now_ms=times)
def test_when_a_window_opens_its_job_goes_to_a_finer_one_until_it_is_due(due_ms: int, now_ms: int) -> None:
    levels = []
    while (level := window_of(due_ms, now_ms).level) > 0:
        levels.append(level)
        now_ms = opens_ms(level, due_ms)
        assert now_ms < due_ms

    assert levels == sorted(set(levels), reverse=True)
    assert len(levels) <= LEVELS


@given(due_ms=times, other_ms=times, now_ms=times)
def test_jobs_of_one_window_are_of_one_group_and_open_together(due_ms: int, other_ms: int, now_ms: int) -> None:
    window, other = window_of(due_ms, now_ms), window_of(other_ms, now_ms)
    if window != other or window.level == LEVELS:
        return

    assert group_of(window.level, due_ms, now_ms) == group_of(other.level, other_ms, now_ms)
    assert window.level == 0 or opens_ms(window.level, due_ms) == opens_ms(window.level, other_ms)


def test_minutes_that_have_opened_are_one_group() -> None:
    earlier = group_of(0, NOW_MS - DAY_MS, NOW_MS)

    assert earlier == group_of(0, NOW_MS, NOW_MS) != group_of(0, NOW_MS + 2 * MINUTE_MS, NOW_MS)


def test_alarms_of_jobs_that_have_spilled_are_forgotten_though_an_earlier_one_lives() -> None:
    deferred = Deferred()
    deferred.add([1], 1000)
    for first in range(2, 50_000, 100):
        ids = range(first, first + 100)
        deferred.add(ids, 7_000_000)
        for job_id in ids:
            deferred.forget(job_id)

    deferred.add([60_000], 9_000_000)

    assert len(deferred._alarms) < 1000
    assert [*deferred.wake_inline(1000)] == [1]
    assert deferred.next_ms() == 9_000_000
