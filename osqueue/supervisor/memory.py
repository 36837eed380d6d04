"""How much memory each worker was last seen with; for the record of the job that it dies under."""

from __future__ import annotations

import os
from collections.abc import Iterable

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_RESIDENT = 1


class Memory:
    """Looks into ``/proc`` now and then; where there is none, nothing is known."""

    def __init__(self) -> None:
        self._rss_bytes: dict[int, int] = {}

    def look(self, workers: Iterable[tuple[int, int]]) -> None:
        """Note the resident size of these slots' processes, given as slot and pid."""
        for slot, pid in workers:
            try:
                with open(f"/proc/{pid}/statm", encoding="ascii") as statm:
                    pages = int(statm.read().split()[_RESIDENT])
            except (OSError, IndexError):
                continue  # it has just died, or there is no /proc: the last figure stands
            if pages:
                self._rss_bytes[slot] = pages * _PAGE_BYTES

    def forget(self, slot: int) -> int | None:
        """The slot's worker is dead: its last figure."""
        return self._rss_bytes.pop(slot, None)
