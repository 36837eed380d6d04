"""How much memory each worker was last seen with; for the record of the job that it dies under."""

from __future__ import annotations

from collections.abc import Iterable

from osqueue import host


class Memory:
    """Looks into ``/proc`` now and then; where there is none, nothing is known."""

    def __init__(self) -> None:
        self._rss_bytes: dict[int, int] = {}

    def look(self, workers: Iterable[tuple[int, int]]) -> None:
        """Note the resident size of these slots' processes, given as slot and pid."""
        for slot, pid in workers:
            if (rss_bytes := host.resident_bytes(pid)) is not None:
                self._rss_bytes[slot] = rss_bytes  # else it has just died, or there is no /proc: the last figure stands

    def forget(self, slot: int) -> int | None:
        """The slot's worker is dead: its last figure."""
        return self._rss_bytes.pop(slot, None)
