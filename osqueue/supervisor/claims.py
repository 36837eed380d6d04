"""How many jobs to claim: enough that no worker waits for a commit, in few and large steps."""

from __future__ import annotations

from osqueue.supervisor.pace import Pace

_WINDOW_NS = 150_000_000
_JOBS_PER_WORKER = 2
_MAX_JOBS = 16_384
_MAX_BYTES = 64 * 1024 * 1024
_NEWEST_SHARE = 0.05


class Claims:
    """Counts what has been asked for and not granted yet (credits), and says when to ask for more."""

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._credits = 0
        self._usual_bytes = 0.0

    def granted(self, sizes: list[int]) -> None:
        """Jobs with payloads of these sizes have arrived."""
        self._credits = max(0, self._credits - len(sizes))
        if sizes:
            mean = sum(sizes) / len(sizes)
            share = 1 - (1 - _NEWEST_SHARE) ** len(sizes)
            self._usual_bytes += share * (mean - self._usual_bytes)

    def resize(self, workers: int) -> None:
        """So many workers from now on."""
        self._workers = workers

    def forgotten(self) -> None:
        """The broker no longer knows what was asked for."""
        self._credits = 0

    def more(self, in_hand: int, pace: Pace) -> int:
        """How many jobs to claim now, with so many in hand that have not ended; they count as asked for."""
        window = self.window(pace)
        missing = window - in_hand - self._credits
        if missing < max(1, window // 4):
            return 0
        self._credits += missing
        return missing

    def window(self, pace: Pace) -> int:
        """How many jobs to have here, or on their way."""
        least = _JOBS_PER_WORKER * self._workers
        usual_ns = pace.overall_ns()
        if usual_ns is None:
            return least
        wanted = min(_MAX_JOBS, int(self._workers * _WINDOW_NS / usual_ns))
        if self._usual_bytes:
            wanted = min(wanted, int(_MAX_BYTES / self._usual_bytes))
        return max(least, wanted)
