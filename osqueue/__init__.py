"""osqueue: a durable job queue with a process pool's manners.

    from osqueue import LocalPool

    if __name__ == "__main__":
        with LocalPool(resize, workers=8, path="jobs/") as pool:
            pool.push({"image": "a.png"})

A public name's module is imported when the name is first used, so that a worker does not pay for a broker.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from osqueue.client import Client, Job
    from osqueue.context import CurrentJob, current_job
    from osqueue.core.messages import JobError, JobRecord, Stats, TaskStats
    from osqueue.embedded import Broker
    from osqueue.errors import (
        AccessDenied,
        Corrupt,
        Discard,
        Fenced,
        InvalidPayload,
        JobCancelled,
        JobFailed,
        JobNotFound,
        JobTimeout,
        LeaseLost,
        OsqueueError,
        PayloadTooLarge,
        PoolBroken,
        QueueFull,
        QueueLocked,
        Rejected,
        Retry,
        SessionLost,
        SoftTimeout,
        Unavailable,
        UnknownTask,
        WorkerCrashed,
    )
    from osqueue.pool import LocalPool
    from osqueue.pool.future import JobFuture
    from osqueue.queue import Queue
    from osqueue.storage import StorageLost

__version__ = "0.1.0"

_MODULES = {
    "osqueue.client": ["Client", "Job"],
    "osqueue.context": ["CurrentJob", "current_job"],
    "osqueue.core.messages": ["JobError", "JobRecord", "Stats", "TaskStats"],
    "osqueue.embedded": ["Broker"],
    "osqueue.errors": [
        "AccessDenied",
        "Corrupt",
        "Discard",
        "Fenced",
        "InvalidPayload",
        "JobCancelled",
        "JobFailed",
        "JobNotFound",
        "JobTimeout",
        "LeaseLost",
        "OsqueueError",
        "PayloadTooLarge",
        "PoolBroken",
        "QueueFull",
        "QueueLocked",
        "Rejected",
        "Retry",
        "SessionLost",
        "SoftTimeout",
        "Unavailable",
        "UnknownTask",
        "WorkerCrashed",
    ],
    "osqueue.pool": ["LocalPool"],
    "osqueue.pool.future": ["JobFuture"],
    "osqueue.queue": ["Queue"],
    "osqueue.storage.base": ["StorageLost"],
}
_HOME = {name: module for module, names in _MODULES.items() for name in names}

__all__ = [
    "AccessDenied",
    "Broker",
    "Client",
    "Corrupt",
    "CurrentJob",
    "Discard",
    "Fenced",
    "InvalidPayload",
    "Job",
    "JobCancelled",
    "JobError",
    "JobFailed",
    "JobFuture",
    "JobNotFound",
    "JobRecord",
    "JobTimeout",
    "LeaseLost",
    "LocalPool",
    "OsqueueError",
    "PayloadTooLarge",
    "PoolBroken",
    "Queue",
    "QueueFull",
    "QueueLocked",
    "Rejected",
    "Retry",
    "SessionLost",
    "SoftTimeout",
    "Stats",
    "StorageLost",
    "TaskStats",
    "Unavailable",
    "UnknownTask",
    "WorkerCrashed",
    "__version__",
    "current_job",
]


def __getattr__(name: str) -> object:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module 'osqueue' has no attribute {name!r}")
    value: object = getattr(importlib.import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*__all__]
