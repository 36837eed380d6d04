"""Questions that are parked until a queue is idle."""

from __future__ import annotations

from typing import NamedTuple

from osqueue.core.messages import Ask, Refused, Reply
from osqueue.core.queries import Queries
from osqueue.core.state import QueueState

_NAMED_KEYS = 8


class _Question(NamedTuple):
    session: str
    ticket: int
    tasks: frozenset[str]


class IdleQuestions:
    """Who waits for the last job of which tasks. Memory only: a question is asked again on a new connection."""

    def __init__(self, state: QueueState, queries: Queries) -> None:
        self._state = state
        self._queries = queries
        self._questions: list[_Question] = []

    def park(self, session: str, ask: Ask, tasks: list[str]) -> None:
        """Wait for these tasks."""
        self._questions.append(_Question(session, ask.ticket, frozenset(tasks)))

    def disconnected(self, session: str) -> None:
        """The session's questions went with its connection."""
        self._questions = [wait for wait in self._questions if wait.session != session]

    def settle(self, now_ms: int) -> None:
        """Answer those whose time has come, and those for which it never will."""
        still_waiting = []
        for wait in self._questions:
            unfinished = self._state.counts.unfinished(wait.tasks)
            if unfinished == 0:
                self._reply(wait, Reply(wait.ticket, self._queries.stats(now_ms)))
            elif (refusal := self._refusal(wait, unfinished)) is not None:
                self._reply(wait, Reply(wait.ticket, refusal))
            else:
                still_waiting.append(wait)
        self._questions = still_waiting

    def _reply(self, wait: _Question, reply: Reply) -> None:
        self._state.outbox.append((wait.session, reply))

    def _refusal(self, wait: _Question, unfinished: int) -> Refused | None:
        if not self._state.backlog.harmed:
            return None
        blocked, keys = self._state.blocked(wait.tasks)
        if blocked < unfinished:
            return None
        why = "only jobs of damaged or missing segments are left; see `osqueue verify`"
        return Refused("corrupt", f"{why} jobs={blocked} keys={','.join(keys[:_NAMED_KEYS])}")
