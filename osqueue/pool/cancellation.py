"""The end of jobs before their start, for whoever holds their futures.

    unsent ─▶ withdrawn        waiting in the queue ─▶ cancelled there        handed out ─▶ dropped, unless it has begun

Everything here runs in the loop's thread.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from osqueue.client.connection import Connection
from osqueue.client.runs import from_runs
from osqueue.core.messages import MAX_IDS, AnswerBody, Cancel, Changed
from osqueue.errors import OsqueueError
from osqueue.pool.future import JobFuture
from osqueue.pool.submitter import Submitter

Drop = Callable[[list[int]], Awaitable[Iterable[int]]]


class Cancellation:
    """Cancels jobs that have not begun.

    Args:
        connection: where waiting jobs are cancelled.
        submitter: what knows the futures.
        drop: asks the supervisor to let go of jobs that it was handed; which of them it had not begun.
    """

    def __init__(self, connection: Connection, submitter: Submitter, drop: Drop) -> None:
        self._connection = connection
        self._submitter = submitter
        self._drop = drop

    async def unstarted(self, futures: list[JobFuture[Any]]) -> list[JobFuture[Any]]:
        """Cancel those jobs that have not begun; which they were."""
        withdrawn = self._submitter.withdraw(futures)
        by_id = await self._submitter.ids(set(futures) - set(withdrawn))
        withdrawn += self._submitter.withdraw(futures)  # what did not fit has come back meanwhile
        if not by_id:
            return withdrawn
        ended = set(await self._waiting(list(by_id)))
        handed_out = [job_id for job_id in by_id if job_id not in ended]
        if handed_out:
            # Only the supervisor knows which of these have begun.
            ended |= set(await self._drop(handed_out))
        return withdrawn + [future for job_id, alike in by_id.items() if job_id in ended for future in alike]

    async def every_unstarted(self) -> list[JobFuture[Any]]:
        """Cancel every job of a future that has not begun; which they were."""
        futures = self._submitter.open_futures()
        for future in futures:
            future.cancel_asked = True
        return await self.unstarted(futures)

    # ---------------------------------------------------------------------------------------------------------- private

    async def _waiting(self, ids: list[int]) -> list[int]:
        parts = [self._part(ids[at : at + MAX_IDS]) for at in range(0, len(ids), MAX_IDS)]
        return [job_id for part in await asyncio.gather(*parts) for job_id in part]

    async def _part(self, ids: list[int]) -> list[int]:
        ended: list[int] = []
        while ids and (changed := await self._changed(ids)) is not None:
            ended += from_runs(changed.ids)
            ids = ids[len(ids) - changed.left :]
        return ended

    async def _changed(self, ids: list[int]) -> Changed | None:
        """The answer of one operation; None if it was not done."""
        answer: asyncio.Future[AnswerBody | OsqueueError] = asyncio.get_running_loop().create_future()

        def answered(body: AnswerBody | OsqueueError) -> None:
            if not answer.done():
                answer.set_result(body)

        self._connection.submit(Cancel(ids, running=False), answered, expires=False)
        body = await answer
        return body if isinstance(body, Changed) else None
