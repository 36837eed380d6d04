"""Cancel, requeue or discard of any number of ids: said in parts that the broker accepts, one after the other."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Generic, TypeVar

from msgspec import structs

from osqueue.client.face import Face, itself
from osqueue.client.runs import from_runs
from osqueue.core.messages import MAX_IDS, Cancel, Changed, Discard, Requeue
from osqueue.errors import JobNotFound, OsqueueError, Rejected, Unavailable

R = TypeVar("R")
Change = Cancel | Requeue | Discard


class Changes(Generic[R]):
    """One such operation. For one thread at a time.

    Args:
        face: where it is done.
        operation: what to do, with any number of ids.
        pick: makes the result of the ids that were changed.
    """

    def __init__(self, face: Face, operation: Change, pick: Callable[[list[int]], R]) -> None:
        self._face = face
        self._operation = operation
        self._asked = list(dict.fromkeys(operation.ids))
        self._at: int | None = 0
        """Where the next part begins; None behind the last one."""
        self._pick = pick
        self._changed: dict[int, None] = {}
        self._unknown: dict[int, None] = {}
        self._held: list[tuple[int, int]] = []

    def result(self, begun: Callable[[], Changed] | None = None) -> R:
        """Do it.

        Args:
            begun: waits for the answer of a part that was said before.

        Raises:
            JobNotFound: none of the ids is a job's.
            Rejected: nothing changed, since other jobs have the keys of these.
            QueueFull: no more can be requeued now, since too many lanes have waiting jobs.
            Unavailable: unknown what happened to one part; ``again()`` finds out, and goes on with the rest.
        """
        while self._at is not None:
            part = structs.replace(self._operation, ids=self._asked[self._at : self._at + MAX_IDS])
            say = begun or partial(self._face.operate, part, Changed, itself)
            begun = None
            try:
                answer = say()
            except OsqueueError as error:
                error.changed = [*self._changed]
                if isinstance(error, Unavailable) and error._again is not None:
                    error._again = partial(self.result, error._again)
                raise
            self._note(answer)
            after = self._at + len(part.ids) - answer.left
            self._at = after if after < len(self._asked) else None
        if self._unknown and len(self._unknown) == len(self._asked):
            raise JobNotFound(f"no job has this id id={', '.join(map(str, [*self._unknown][:5]))}")
        if self._held and not self._changed:
            job_id, holder = self._held[0]
            raise Rejected(f"the job's key belongs to another unfinished job by now id={job_id} holder={holder}")
        return self._pick([*self._changed])

    def _note(self, answer: Changed) -> None:
        self._changed.update(dict.fromkeys(from_runs(answer.ids)))
        self._unknown.update(dict.fromkeys(answer.unknown))
        self._held += answer.held
