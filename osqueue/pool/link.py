"""A supervisor's connection to its broker: what it asks becomes messages, what the broker says becomes its events.

Everything here runs in the loop's thread.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Protocol

from osqueue import clock
from osqueue.client.calls import OnResponse
from osqueue.client.connection import Connection
from osqueue.client.runs import from_runs
from osqueue.core.messages import (
    AnswerBody,
    Granted,
    Handout,
    JobError,
    Outcome,
    Progress,
    Refused,
    Report,
    Reported,
    Verdict,
)
from osqueue.errors import OsqueueError

_log = logging.getLogger("osqueue")


class Claimant(Protocol):
    """What a link needs of its supervisor, which documents it."""

    def granted(self, jobs: list[Handout]) -> None: ...

    def cancelled(self, ids: list[int]) -> None: ...

    def lost(self, ids: list[int]) -> None: ...

    def held(self) -> list[tuple[int, int]]: ...

    def reconnected(self) -> None: ...


class SupervisorLink:
    """See the module: a `Link` to its supervisor, a `Keeper` to its session. `attach` comes before anything else.

    Args:
        tasks: what the supervisor has handlers for.
        worker: the name under which it claims.
    """

    def __init__(self, tasks: list[str], worker: str) -> None:
        self._tasks = tasks
        self._worker = worker
        self._lease = 0
        self._connection: Connection | None = None
        self._supervisor: Claimant | None = None

    def attach(self, connection: Connection, supervisor: Claimant) -> None:
        """Tell it who talks to whom."""
        self._connection = connection
        self._supervisor = supervisor

    # --------------------------------------------------------------------------------------------- for the supervisor

    def claim(self, jobs: int) -> None:
        """Ask for so many jobs more."""
        self._to_broker().claim_standing(self._tasks, jobs, self._worker)

    def withdraw(self) -> None:
        """Ask for nothing, not even for what was asked for."""
        self._to_broker().claim_standing([], 0, self._worker)

    @property
    def bounded(self) -> bool:
        """Whether the queue is to know soon which jobs have begun."""
        return bool(self._to_broker().session.bounded)

    def report(self, outcomes: list[Outcome], on_answer: Callable[[list[int]], None]) -> None:
        """Report outcomes; ``on_answer`` gets the ids that were lost, once the rest is durable."""

        def answered(body: AnswerBody | OsqueueError) -> None:
            if isinstance(body, Reported):
                on_answer([*from_runs(body.lost)])
            elif isinstance(body, Refused):
                _log.error("broker refused a report code=%s message=%s", body.code, body.message)
                self._report_otherwise(outcomes, body, on_answer)
            else:
                # The broker is gone for good: nothing is accepted, and whoever opens the queue next has these jobs.
                on_answer([])

        self._to_broker().submit(Report(self._lease, outcomes), answered, expires=False)

    def _report_otherwise(self, outcomes: list[Outcome], why: Refused, on_answer: Callable[[list[int]], None]) -> None:
        """A report was refused, and the lease still has its jobs: each is told alone, and what is wrong has failed."""
        if len(outcomes) > 1:
            lost: list[int] = []
            waiting = len(outcomes)

            def answered(ids: list[int]) -> None:
                nonlocal waiting
                waiting -= 1
                lost.extend(ids)
                if waiting == 0:
                    on_answer(lost)

            for outcome in outcomes:
                self.report([outcome], answered)
            return
        [outcome] = outcomes
        if outcome.verdict == "returned":
            on_answer([outcome.id])
            return
        error = JobError(
            why.code.title().replace("_", ""), f"its outcome was refused: {why.message}", attempt=outcome.attempt
        )
        verdict: Verdict = "failed" if outcome.verdict == "succeeded" else "returned"
        self.report([Outcome(outcome.id, outcome.attempt, verdict, error=error)], on_answer)

    def heartbeat(self, running: list[int], progress: list[Progress]) -> None:
        """Say which jobs have begun, and how far some of them are."""
        self.beat(running, progress, lambda _: None)

    def beat(self, running: list[int], progress: list[Progress], on_response: OnResponse) -> bool:
        """As `heartbeat`, and be told when it has arrived; False if there is no lease to say it of."""
        if self._lease == 0:
            return False
        self._to_broker().heartbeat(self._lease, running, on_response, progress=progress)
        return True

    def now_ms(self) -> int:
        """The broker's time."""
        known = self._to_broker().session.now_ms(clock.boot_ms())
        return clock.wall_ms() if known is None else known

    # ------------------------------------------------------------------------------------------------ for the session

    def held(self) -> list[tuple[int, int]]:
        """See `Keeper`."""
        return self._to_supervisor().held()

    def welcomed(self, lease: int) -> None:
        """See `Keeper`."""
        self._lease = lease or self._lease
        self._to_supervisor().reconnected()

    def granted(self, message: Granted) -> None:
        """See `Keeper`."""
        self._lease = message.lease or self._lease
        self._to_supervisor().granted(message.jobs)

    def cancelled(self, ids: list[int]) -> None:
        """See `Keeper`."""
        self._to_supervisor().cancelled(ids)

    def lost(self, ids: list[int]) -> None:
        """See `Keeper`."""
        self._to_supervisor().lost(ids)

    def _to_broker(self) -> Connection:
        assert self._connection is not None, "attached before it is used"
        return self._connection

    def _to_supervisor(self) -> Claimant:
        assert self._supervisor is not None, "attached before it is used"
        return self._supervisor
