"""The only reader of time.

``CLOCK_BOOTTIME`` goes on while a machine sleeps and never steps; the wall clock is read once, when a broker takes
a queue over, and from then on its time is that reading plus the boot clock's progress.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime

_BOOT_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def boot_ms() -> int:
    """Milliseconds of the boot clock: the same in every process of this host, never set back."""
    return time.clock_gettime_ns(_BOOT_CLOCK) // 1_000_000


def boot_ns() -> int:
    """Nanoseconds of the boot clock."""
    return time.clock_gettime_ns(_BOOT_CLOCK)


def wall_ms() -> int:
    """Milliseconds since 1970 by the wall clock, which may step; for a broker's takeover and for names only."""
    return time.time_ns() // 1_000_000


class QueueClock:
    """A broker's time: the wall clock at takeover plus the boot clock since, never before ``not_before_ms``.

    Safe to read from any thread.
    """

    def __init__(self, *, not_before_ms: int = 0) -> None:
        self._offset_ms = max(wall_ms(), not_before_ms) - boot_ms()

    def now_ms(self) -> int:
        """Milliseconds since 1970."""
        return self._offset_ms + boot_ms()


def from_iso(text: str) -> int:
    """Milliseconds since 1970 of an ISO 8601 UTC time.

    Raises:
        ValueError: the text is no such time.
    """
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return round(moment.timestamp() * 1000)
