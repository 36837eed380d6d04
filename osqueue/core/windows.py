"""Windows of due time: which spilled deferred jobs stand together, and when they are looked at again.

    now ── 1 min ── 8 min ── 64 min ── 8.5 h ── 2.8 days ── later
    level    0        1         2        3          4          5

A hierarchical timing wheel (G. Varghese and T. Lauck, *Hashed and Hierarchical Timing Wheels*, SOSP 1987) with eight
slots a level: a slot of level ``k`` is ``8**k`` minutes of the clock. Jobs due in another slot of level ``k`` than now,
but in the same one of level ``k + 1``, stand together; as their slot begins they are split among the levels below. So
of each level there are some eight windows, and a job is split from them five times at most, once it is due in the slot
of the last level, of 23 days, that has begun. Until then it may be written again as each such slot begins (see below).

Rules:
* A window opens `LEAD_MS` before its slot begins, so that its jobs are in memory, and split, before the first is due.
* Jobs of level 0 are not split any more: they become ready where they stand.
* Those of the last level have one window. It opens as the slot of its first job begins; jobs in it that are due in a
  later slot are written for the last level once more.
"""

from __future__ import annotations

from typing import NamedTuple

LEVELS = 5
LEAD_MS = 5_000
_MINUTE_MS = 60_000
_BITS = 3
"""Of a level: eight slots."""


class Window(NamedTuple):
    """A level, and a slot of it; the last level has one slot for all times."""

    level: int
    slot: int


def window_of(due_ms: int, now_ms: int) -> Window:
    """The window of a job that is due then; what is due already belongs to the minute that is open."""
    due, now = _minute(max(due_ms, now_ms)), _open_minute(now_ms)
    due = max(due, now)
    level = 0
    while level < LEVELS and due >> _BITS * (level + 1) != now >> _BITS * (level + 1):
        level += 1
    return Window(level, due >> _BITS * level if level < LEVELS else 0)


def group_of(level: int, due_ms: int, now_ms: int) -> Window:
    """The window of an object that was written for ``level``; of level 0, all that have opened are one."""
    if level == LEVELS:
        return Window(level, 0)
    slot = _minute(due_ms) >> _BITS * level
    return Window(level, max(slot, _open_minute(now_ms)) if level == 0 else slot)


def opens_ms(level: int, due_ms: int) -> int:
    """When an object opens whose first job is due at ``due_ms``."""
    return (_minute(due_ms) >> _BITS * level << _BITS * level) * _MINUTE_MS - LEAD_MS


def _minute(at_ms: int) -> int:
    return at_ms // _MINUTE_MS


def _open_minute(now_ms: int) -> int:
    return _minute(now_ms + LEAD_MS)
