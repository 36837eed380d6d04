"""Outcomes on their way to the broker: collected, sent in batches, remembered until they are durable."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from osqueue.core.messages import MAX_OUTCOMES, Outcome

MAX_BYTES = 1 << 20
_FULL_ENOUGH_BYTES = MAX_BYTES // 2
_HOLD_NS = 3_000_000
_OVERHEAD_BYTES = 100

_Held = list[tuple[int, int]]


class Reports:
    """With none under way, an outcome leaves at once; else it waits some milliseconds for company."""

    def __init__(self) -> None:
        self._waiting: list[Outcome] = []
        self._waiting_bytes = 0
        self._since_ns = 0
        self._under_way: dict[int, _Held] = {}
        self._last_number = 0
        self._returns = False
        """Whether some that wait give jobs back."""
        self._returning: set[int] = set()
        """Reports under way that give jobs back."""

    def add(self, outcomes: Iterable[Outcome], now_ns: int) -> None:
        """Keep outcomes for the next report."""
        if not self._waiting:
            self._since_ns = now_ns
        before = len(self._waiting)
        self._waiting.extend(outcomes)
        for outcome in self._waiting[before:]:
            self._waiting_bytes += outcome.size() + _OVERHEAD_BYTES
            self._returns = self._returns or outcome.verdict == "returned"

    def take(self, now_ns: int, *, at_once: bool = False) -> Iterator[tuple[int, list[Outcome]]]:
        """The reports to send now, with their numbers; ``at_once``: all that there is."""
        if not at_once and not self._is_due(now_ns):
            return
        batch: list[Outcome] = []
        size = 0
        for outcome in self._waiting:
            outcome_bytes = outcome.size() + _OVERHEAD_BYTES
            if batch and (size + outcome_bytes > MAX_BYTES or len(batch) >= MAX_OUTCOMES):
                yield self._send(batch), batch
                batch, size = [], 0
            batch.append(outcome)
            size += outcome_bytes
        if batch:
            yield self._send(batch), batch
        self._waiting, self._waiting_bytes = [], 0
        self._returns = False

    def answered(self, number: int) -> None:
        """This report is durable."""
        self._under_way.pop(number, None)
        self._returning.discard(number)

    @property
    def returning(self) -> bool:
        """Whether jobs are on their way back to the broker."""
        return self._returns or bool(self._returning)

    def due_ns(self) -> int | None:
        """When `take` will have something; None if nothing waits."""
        return self._since_ns + _HOLD_NS if self._waiting else None

    def held(self) -> _Held:
        """Id and attempt of every job whose outcome is not known to be durable."""
        held = [(outcome.id, outcome.attempt) for outcome in self._waiting]
        for batch in self._under_way.values():
            held.extend(batch)
        return held

    def __bool__(self) -> bool:
        return bool(self._waiting or self._under_way)

    def _is_due(self, now_ns: int) -> bool:
        if not self._waiting:
            return False
        full = len(self._waiting) >= MAX_OUTCOMES or self._waiting_bytes >= _FULL_ENOUGH_BYTES
        return full or not self._under_way or now_ns - self._since_ns >= _HOLD_NS

    def _send(self, batch: list[Outcome]) -> int:
        self._last_number += 1
        if self._returns and any(outcome.verdict == "returned" for outcome in batch):
            self._returning.add(self._last_number)
        self._under_way[self._last_number] = [(outcome.id, outcome.attempt) for outcome in batch]
        return self._last_number
