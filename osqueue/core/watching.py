"""How a session begins to wait for jobs: some have ended already, and of some only the archive may know."""

from __future__ import annotations

from collections.abc import Iterable

from osqueue.core.locator import Place
from osqueue.core.messages import Finished, IdRun
from osqueue.core.state import QueueState
from osqueue.core.watchers import without_payload


class Watching:
    """Looks at jobs first, and tells afterwards. Not thread-safe; owned by the machine."""

    def __init__(self, state: QueueState) -> None:
        self._state = state

    def look_at(self, watched: Iterable[IdRun]) -> dict[int, Place | None]:
        """Where the jobs are that have not ended; None for the others.

        Raises:
            NeedsObjectsError: segments must be in memory first.
        """
        state = self._state
        ids = [job_id for first, last in watched for job_id in range(first, last + 1)]
        unfinished = [job_id for job_id in ids if state.finished.get(job_id) is None]
        places = dict(zip(unfinished, state.locate(unfinished), strict=True))
        return {
            job_id: place if (place := places.get(job_id)) is not None and state.state_of(place) is not None else None
            for job_id in ids
        }

    def begin(self, session: str, watched: dict[int, Place | None]) -> list[int]:
        """Tell a session how these jobs end, or have ended; returns the ids that only the archive may know."""
        state = self._state
        elsewhere = []
        for job_id, place in watched.items():
            if (record := state.finished.get(job_id)) is not None:
                state.outbox.append((session, Finished([without_payload(record)])))
            elif place is None:
                elsewhere.append(job_id)
            else:
                state.watchers.watch([job_id], session)
                if state.backlog.is_dead(place):
                    state.watchers.ended(place.job, "dead", place.job.attempts)
        return elsewhere
