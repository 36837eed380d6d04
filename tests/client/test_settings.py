"""Wrong settings are refused by name; nothing else is needed to find the mistake."""

from __future__ import annotations

import math

import pytest

from osqueue.core.settings import QueueSettings
from osqueue.settings import exception_classes, pool_settings, push_options, queue_settings

POOL = {"workers": 1, "timeout": None, "grace": 1}


def test_defaults_are_the_queues_own():
    assert queue_settings() == QueueSettings()


@pytest.mark.parametrize("name", ["lease", "retry_backoff", "retry_backoff_max"])
@pytest.mark.parametrize("value", [-1, math.nan, math.inf, 1e30])
def test_durations_are_finite_and_not_negative(name, value):
    with pytest.raises(ValueError, match=name):
        queue_settings(**{name: value})


@pytest.mark.parametrize("name", ["lease", "retry_backoff", "retry_backoff_max"])
@pytest.mark.parametrize("value", ["1", None, True])
def test_durations_are_numbers(name, value):
    with pytest.raises(TypeError, match=name):
        queue_settings(**{name: value})


@pytest.mark.parametrize(("name", "value"), [("max_attempts", 0), ("max_payload", 0), ("max_payload", 2**40)])
def test_counts_are_within_bounds(name, value):
    with pytest.raises(ValueError, match=name):
        queue_settings(**{name: value})


@pytest.mark.parametrize("name", ["max_attempts", "max_payload"])
def test_counts_are_whole(name):
    with pytest.raises(TypeError, match=name):
        queue_settings(**{name: 1.5})


def test_jitter_is_a_bool():
    with pytest.raises(TypeError, match="retry_jitter"):
        queue_settings(retry_jitter=1)


def test_the_longest_back_off_is_not_below_the_first():
    with pytest.raises(ValueError, match="retry_backoff_max"):
        queue_settings(retry_backoff=10, retry_backoff_max=5)


@pytest.mark.parametrize(
    ("name", "value"), [("workers", 0), ("workers", -1), ("timeout", 0), ("timeout", -5), ("grace", -1)]
)
def test_a_pool_needs_workers_and_sane_durations(name, value):
    with pytest.raises(ValueError, match=name):
        pool_settings(**{**POOL, name: value})


@pytest.mark.parametrize("name", ["max_tasks_per_child", "max_memory_per_child"])
@pytest.mark.parametrize(("value", "error"), [(0, ValueError), (-1, ValueError), (1.0, TypeError), (True, TypeError)])
def test_limits_of_a_worker_are_whole_numbers_from_1(name, value, error):
    with pytest.raises(error, match=name):
        pool_settings(**POOL, **{name: value})


def test_limits_of_a_worker_are_taken_as_they_are():
    settings = pool_settings(**POOL, max_tasks_per_child=1, max_memory_per_child=2**40, soft_timeout=0.5)

    assert (settings.max_tasks_per_child, settings.max_memory_per_child_bytes) == (1, 2**40)
    assert settings.soft_timeout_s == 0.5


@pytest.mark.parametrize(
    ("value", "error"), [(0, ValueError), (-1, ValueError), ("1", TypeError), (True, TypeError), (math.inf, ValueError)]
)
def test_a_soft_timeout_is_a_duration(value, error):
    with pytest.raises(error, match="soft_timeout"):
        pool_settings(**POOL, soft_timeout=value)


@pytest.mark.parametrize("soft_timeout", [5, 5.0, 6])
def test_a_soft_timeout_is_below_the_hard_one(soft_timeout):
    with pytest.raises(ValueError, match=f"soft_timeout must be below timeout.* soft_timeout={soft_timeout} timeout=5"):
        pool_settings(workers=1, grace=1, timeout=5, soft_timeout=soft_timeout)


def test_without_a_number_there_is_a_worker_for_each_cpu():
    assert pool_settings(workers=None, timeout=None, grace=0).workers >= 1


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"task": 5}, TypeError),
        ({"task": "x" * 65}, ValueError),
        ({"task": "\ud800"}, ValueError),
        ({"priority": -1001}, ValueError),
        ({"priority": 1.0}, TypeError),
        ({"delay": "soon"}, TypeError),
        ({"timeout": -1}, ValueError),
        ({"max_attempts": True}, TypeError),
    ],
)
def test_push_options_name_what_is_wrong(options, error):
    with pytest.raises(error, match=next(iter(options))):
        push_options(**options)


def test_exception_classes_are_one_or_several():
    assert exception_classes("retry_on", ValueError) == (ValueError,)
    assert exception_classes("retry_on", [ValueError, OSError]) == (ValueError, OSError)
    with pytest.raises(TypeError, match="retry_on"):
        exception_classes("retry_on", (ValueError, "OSError"))
    with pytest.raises(TypeError, match="no_retry_on"):
        exception_classes("no_retry_on", 5)


def test_a_text_that_is_much_too_long_is_not_said_whole():
    with pytest.raises(ValueError, match=r"key is text of 1 to 256 bytes key='kkk.*'… bytes=100000") as caught:
        push_options(key="k" * 100_000)

    assert len(str(caught.value)) < 200
