"""Arguments of the public calls as frozen structs: defaults, units, checks. Every message names the argument.

Rules:
* Checked once, at the edge: what has passed here is not looked at again.
* A value of the wrong kind is a ``TypeError``, one out of bounds a ``ValueError``.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from typing import TypeVar

from msgspec import Struct

from osqueue.core.settings import KIB, MIB, QueueSettings

V = TypeVar("V")

TASK_BYTES = 64
KEY_BYTES = 256
IDENTITY_BYTES = 64
PRIORITIES = range(-1000, 1001)
MAX_WORKERS = 4096
MAX_PAYLOAD_BYTES = 32 * MIB
_MAX_DURATION_S = 100 * 366 * 86400.0
_MAX_COUNT = 2**62
_MAX_ID = 2**63 - 1


class PushOptions(Struct, frozen=True, kw_only=True):
    """What jobs that are pushed together share."""

    task: str = "default"
    delay_s: float = 0.0
    priority: int = 0
    key: str = ""
    timeout_s: float | None = None
    max_attempts: int | None = None


class PoolSettings(Struct, frozen=True, kw_only=True):
    """What is a pool's own; the queue's part is `QueueSettings`."""

    workers: int
    timeout_s: float | None
    grace_s: float
    soft_timeout_s: float | None = None
    max_tasks_per_child: int | None = None
    max_memory_per_child_bytes: int | None = None


def push_options(
    *,
    task: str = "default",
    delay: float = 0,
    priority: int = 0,
    key: str | None = None,
    timeout: float | None = None,
    max_attempts: int | None = None,
) -> PushOptions:
    """The checked options of a push.

    Raises:
        TypeError, ValueError: an option is of the wrong kind, or out of bounds.
    """
    return PushOptions(
        task=task_name(task),
        delay_s=duration("delay", delay, least=0),
        priority=whole("priority", priority, least=PRIORITIES[0], most=PRIORITIES[-1]),
        key="" if key is None else short_text("key", key, KEY_BYTES),
        timeout_s=None if timeout is None else duration("timeout", timeout),
        max_attempts=None if max_attempts is None else whole("max_attempts", max_attempts, least=1),
    )


def queue_settings(
    *,
    max_attempts: int = 4,
    retry_backoff: float = 1.0,
    retry_backoff_max: float = 600.0,
    retry_jitter: bool = True,
    lease: float = 30.0,
    max_queued: int | None = None,
    max_payload: int = 4 * MIB - 64 * KIB,
) -> QueueSettings:
    """The checked settings of a queue, from the arguments of whoever opens it.

    Raises:
        TypeError, ValueError: an argument is of the wrong kind, or out of bounds.
    """
    settings = QueueSettings(
        max_attempts=whole("max_attempts", max_attempts, least=1),
        retry_backoff_s=duration("retry_backoff", retry_backoff, least=0),
        retry_backoff_max_s=duration("retry_backoff_max", retry_backoff_max, least=0),
        retry_jitter=flag("retry_jitter", retry_jitter),
        lease_s=duration("lease", lease, least=0.1),
        max_queued=None if max_queued is None else whole("max_queued", max_queued, least=1),
        max_payload_bytes=whole("max_payload", max_payload, least=1, most=MAX_PAYLOAD_BYTES),
    )
    if settings.retry_backoff_max_s < settings.retry_backoff_s:
        raise ValueError(
            "retry_backoff_max is below retry_backoff "
            f"retry_backoff_max={retry_backoff_max} retry_backoff={retry_backoff}"
        )
    return settings


def pool_settings(
    *,
    workers: int | None,
    timeout: float | None,
    grace: float,
    soft_timeout: float | None = None,
    max_tasks_per_child: int | None = None,
    max_memory_per_child: int | None = None,
) -> PoolSettings:
    """The checked settings of a pool; ``workers=None`` is one for each CPU that this process may use.

    Raises:
        TypeError, ValueError: an argument is of the wrong kind, or out of bounds.
    """
    settings = PoolSettings(
        workers=cpu_count() if workers is None else whole("workers", workers, least=1, most=MAX_WORKERS),
        timeout_s=None if timeout is None else duration("timeout", timeout),
        grace_s=duration("grace", grace, least=0),
        soft_timeout_s=None if soft_timeout is None else duration("soft_timeout", soft_timeout),
        max_tasks_per_child=_count_or_none("max_tasks_per_child", max_tasks_per_child),
        max_memory_per_child_bytes=_count_or_none("max_memory_per_child", max_memory_per_child),
    )
    if timeout is not None and soft_timeout is not None and soft_timeout >= timeout:
        raise ValueError(
            "soft_timeout must be below timeout, which ends the attempt by killing its worker "
            f"soft_timeout={soft_timeout} timeout={timeout}"
        )
    return settings


def cpu_count() -> int:
    """How many CPUs this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def exception_classes(name: str, value: object) -> tuple[type[BaseException], ...]:
    """One exception class or a tuple of them, as a tuple.

    Raises:
        TypeError: something else.
    """
    classes = value if isinstance(value, tuple | list) else (value,)
    for one in classes:
        if not (isinstance(one, type) and issubclass(one, BaseException)):
            raise TypeError(f"{name} takes exception classes, not {one!r}")
    return tuple(classes)


def task_name(task: object) -> str:
    """A task's name.

    Raises:
        TypeError, ValueError: it is no text of 1 to 64 bytes.
    """
    return short_text("task", task, TASK_BYTES)


def short_text(name: str, value: object, most_bytes: int) -> str:
    """Some text of at least one byte.

    Raises:
        TypeError, ValueError: no text, none at all, too much, or not Unicode.
    """
    if not isinstance(value, str):
        raise TypeError(f"{name} is text, not {_kind(value)}")
    try:
        size = len(value.encode())
    except UnicodeEncodeError:
        raise ValueError(f"{name} holds a lone surrogate {name}={value!r}") from None
    if not 1 <= size <= most_bytes:
        shown = repr(value) if size <= 2 * most_bytes else f"{value[:40]!r}…"
        raise ValueError(f"{name} is text of 1 to {most_bytes} bytes {name}={shown} bytes={size}")
    return value


def broker_identity(identity: object) -> str | None:
    """The name under which a broker stands in the root's log of takeovers; None for a random one.

    Raises:
        TypeError, ValueError: it is no printable text of 1 to 64 bytes.
    """
    if identity is None:
        return None
    if not isinstance(identity, str):
        raise TypeError(f"identity is a name, not {_kind(identity)}")
    # Printable: a control character would take six bytes of the root, a lone surrogate none that can be written.
    if not identity.isprintable() or not 1 <= len(identity.encode()) <= IDENTITY_BYTES:
        raise ValueError(f"identity is a printable name of 1 to {IDENTITY_BYTES} bytes identity={identity!r}")
    return identity


def task_names(tasks: object) -> list[str]:
    """Names of tasks, at least one.

    Raises:
        TypeError, ValueError: something else.
    """
    if isinstance(tasks, str | bytes) or not isinstance(tasks, Iterable):
        raise TypeError(f"tasks is a sequence of names, not {_kind(tasks)}")
    names = [task_name(task) for task in tasks]
    if not names:
        raise ValueError("tasks names no task")
    return names


def duration(name: str, value: object, *, least: float | None = None) -> float:
    """Seconds: above zero or, where ``least`` is given, at least so many.

    Raises:
        TypeError, ValueError: no number, not finite, or too small.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name} is a number of seconds, not {_kind(value)}")
    if not math.isfinite(value):
        raise ValueError(f"{name} is a finite number of seconds {name}={value}")
    if value > _MAX_DURATION_S:
        raise ValueError(f"{name} must be at most {_MAX_DURATION_S:,.0f} seconds, 100 years {name}={value}")
    if least is None and value <= 0:
        raise ValueError(f"{name} must be above 0 seconds {name}={value}")
    if least is not None and value < least:
        raise ValueError(f"{name} must be at least {least:g} seconds {name}={value}")
    return float(value)


def whole(name: str, value: object, *, least: int, most: int = 2**31) -> int:
    """A whole number within bounds.

    Raises:
        TypeError, ValueError: no whole number, or out of bounds.
    """
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} is a whole number, not {_kind(value)}")
    if not least <= value <= most:
        raise ValueError(f"{name} must be between {least:,} and {most:,} {name}={value}")
    return value


def flag(name: str, value: object) -> bool:
    """True or False, and nothing that only counts as one of them.

    Raises:
        TypeError: something else.
    """
    if not isinstance(value, bool):
        raise TypeError(f"{name} is True or False, not {_kind(value)}")
    return value


def job_number(name: str, value: object) -> int:
    """What may be the id of a job.

    Raises:
        TypeError, ValueError: no job can have it.
    """
    return whole(name, value, least=0, most=_MAX_ID)


def iterable(name: str, value: Iterable[V]) -> Iterable[V]:
    """What can be iterated over, as it is.

    Raises:
        TypeError: something else.
    """
    if not (hasattr(value, "__iter__") or hasattr(value, "__getitem__")):
        raise TypeError(f"{name} is an iterable, not {_kind(value)}")
    return value


def _count_or_none(name: str, value: object) -> int | None:
    return None if value is None else whole(name, value, least=1, most=_MAX_COUNT)


def _kind(value: object) -> str:
    return f"{type(value).__name__} {value!r}"[:100]
