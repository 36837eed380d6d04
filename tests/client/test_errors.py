"""The tree of errors, as callers catch them, and their way into other processes."""

from __future__ import annotations

import concurrent.futures
import pickle

import pytest

import osqueue
from osqueue import errors

TREE = {
    errors.OsqueueError: Exception,
    errors.Rejected: errors.OsqueueError,
    errors.LeaseLost: errors.Rejected,
    errors.JobNotFound: errors.Rejected,
    errors.UnknownTask: errors.Rejected,
    errors.QueueFull: errors.Rejected,
    errors.PayloadTooLarge: errors.Rejected,
    errors.InvalidPayload: errors.Rejected,
    errors.AccessDenied: errors.Rejected,
    errors.Unavailable: errors.OsqueueError,
    errors.SessionLost: errors.Unavailable,
    errors.Fenced: errors.OsqueueError,
    errors.QueueLocked: errors.OsqueueError,
    errors.Corrupt: errors.OsqueueError,
    errors.JobFailed: errors.OsqueueError,
    errors.WorkerCrashed: errors.JobFailed,
    errors.JobTimeout: errors.JobFailed,
    errors.JobCancelled: errors.JobFailed,
    errors.PoolBroken: errors.OsqueueError,
    errors.Retry: errors.OsqueueError,
    errors.Discard: errors.OsqueueError,
    errors.SoftTimeout: errors.OsqueueError,
    osqueue.StorageLost: errors.Unavailable,
}
ALSO = {
    errors.JobTimeout: TimeoutError,
    errors.JobCancelled: concurrent.futures.CancelledError,
    errors.PoolBroken: concurrent.futures.BrokenExecutor,
}
ATTRIBUTES = {
    errors.Rejected: {"pushed": 7},
    errors.QueueLocked: {"pid": 7, "host": "here"},
    errors.Corrupt: {"key": "segments/1"},
    errors.JobFailed: {"job_id": 7, "error_type": "ValueError", "traceback": "Traceback", "attempts": 2},
    errors.Retry: {"delay": 5},
    osqueue.StorageLost: {"key": "queue.json", "errno": 28},
}


def public_errors() -> set[type]:
    found = (getattr(osqueue, name) for name in osqueue.__all__)
    return {one for one in found if isinstance(one, type) and issubclass(one, Exception)}


def test_every_public_error_is_in_the_tree() -> None:
    assert public_errors() == set(TREE)


@pytest.mark.parametrize("kind", TREE)
def test_each_is_caught_as_what_it_is_documented_to_be(kind: type[Exception]) -> None:
    assert TREE[kind] in kind.__bases__
    assert issubclass(kind, ALSO.get(kind, Exception))


@pytest.mark.parametrize("kind", TREE)
def test_each_pickles_with_its_message_and_attributes(kind: type[Exception]) -> None:
    error = kind("why")
    given = {
        name: value for base, pairs in ATTRIBUTES.items() if issubclass(kind, base) for name, value in pairs.items()
    }
    for name, value in given.items():
        setattr(error, name, value)

    again = pickle.loads(pickle.dumps(error))

    assert (type(again), again.args) == (kind, ("why",))
    assert {name: getattr(again, name) for name in given} == given


def test_a_failure_shows_the_remote_traceback_below_its_message() -> None:
    error = errors.JobFailed("ValueError: no 5")
    error.traceback = "Traceback (most recent call last): …\n"

    assert str(error) == "ValueError: no 5\n\nremote traceback:\nTraceback (most recent call last): …"
