"""Requests to take back jobs that have not begun, to cancel or to return them: who was asked, who has answered.

A worker whose handler holds the interpreter's lock cannot answer; after a second its jobs count as begun, which they
may well be. What it gives back later simply runs elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from osqueue.supervisor.effects import Dropped

_PATIENCE_NS = 1_000_000_000

TakenBack = Literal["cancelled", "returned"]


class _Drop:
    def __init__(self, dropped: list[int], asked: Mapping[int, list[int]], until_ns: int, verdict: TakenBack) -> None:
        self.verdict: TakenBack = verdict
        self.dropped = dropped
        self.asked = {slot: frozenset(ids) for slot, ids in asked.items()}
        self.until_ns = until_ns


class Drops:
    """The requests that are open, by number."""

    def __init__(self) -> None:
        self._open: dict[int, _Drop] = {}

    def begin(
        self, number: int, verdict: TakenBack, dropped: list[int], asked: Mapping[int, list[int]], now_ns: int
    ) -> list[Dropped]:
        """These were taken at once, these were asked of the slots' workers."""
        self._open[number] = _Drop(dropped, asked, now_ns + _PATIENCE_NS, verdict)
        return self._close_if_complete(number)

    def verdict(self, number: int) -> TakenBack | None:
        """What becomes of the jobs that answer this request; None if it is not waited for any more."""
        drop = self._open.get(number)
        return None if drop is None else drop.verdict

    def cancels(self, slot: int, job_id: int) -> bool:
        """Whether this job was asked of this slot's worker, to be cancelled."""
        return any(drop.verdict == "cancelled" and job_id in drop.asked.get(slot, ()) for drop in self._open.values())

    def answered(self, number: int, slot: int, ids: list[int]) -> list[Dropped]:
        """The slot's worker gave these back."""
        drop = self._open[number]
        drop.asked.pop(slot, None)
        drop.dropped += ids
        return self._close_if_complete(number)

    def ended(self, slot: int, ids: list[int]) -> list[Dropped]:
        """The slot's worker died; these had not begun."""
        answers = []
        for number, drop in list(self._open.items()):
            asked = drop.asked.pop(slot, frozenset())
            drop.dropped += [job_id for job_id in ids if job_id in asked]
            answers += self._close_if_complete(number)
        return answers

    def expired(self, now_ns: int) -> list[Dropped]:
        """Give up on workers that have not answered in time."""
        late = [number for number, drop in self._open.items() if drop.until_ns <= now_ns]
        return [Dropped(number, self._open.pop(number).dropped) for number in late]

    def due_ns(self) -> int | None:
        """When `expired` will have something."""
        return min((drop.until_ns for drop in self._open.values()), default=None)

    def _close_if_complete(self, number: int) -> list[Dropped]:
        if self._open[number].asked:
            return []
        return [Dropped(number, self._open.pop(number).dropped)]
