"""Questions that are parked until they can be answered: until a queue is idle, until there is room for a push."""

from __future__ import annotations

from typing import NamedTuple

from osqueue.core.messages import Refused, Reply, WaitIdle, WaitRoom
from osqueue.core.queries import Queries
from osqueue.core.state import QueueState

_NAMED_KEYS = 8

Waiting = WaitIdle | WaitRoom


class _Question(NamedTuple):
    session: str
    ticket: int
    query: Waiting


class ParkedQuestions:
    """Who waits for what. Memory only: a question is asked again on a new connection.

    Whoever waits for room is told that there is some, all of them at once, and whoever pushes first has it: nothing is
    kept for one that has given up meanwhile.
    """

    def __init__(self, state: QueueState, queries: Queries) -> None:
        self._state = state
        self._queries = queries
        self._questions: list[_Question] = []

    def park(self, session: str, ticket: int, query: Waiting) -> None:
        """Answer this one when its time has come."""
        self._questions.append(_Question(session, ticket, query))

    def disconnected(self, session: str) -> None:
        """The session's questions went with its connection."""
        self._questions = [question for question in self._questions if question.session != session]

    def settle(self, now_ms: int) -> None:
        """Answer those whose time has come, and those for which it never will."""
        still_waiting = []
        for question in self._questions:
            if self._is_due(question.query):
                self._reply(question, Reply(question.ticket, self._queries.stats(now_ms)))
            elif (refusal := self._refusal(question.query)) is not None:
                self._reply(question, Reply(question.ticket, refusal))
            else:
                still_waiting.append(question)
        self._questions = still_waiting

    def _is_due(self, query: Waiting) -> bool:
        if isinstance(query, WaitRoom):
            return self._state.room(1) > 0
        return self._state.counts.unfinished(query.tasks) == 0

    def _reply(self, question: _Question, reply: Reply) -> None:
        self._state.outbox.append((question.session, reply))

    def _refusal(self, query: Waiting) -> Refused | None:
        """Why it would be waited for in vain: nobody can run what is left."""
        state = self._state
        if not state.backlog.harmed:
            return None
        tasks = [task for task, _ in state.counts.items()] if isinstance(query, WaitRoom) else set(query.tasks)
        blocked, keys = state.blocked(tasks)
        if blocked < state.counts.unfinished(tasks):
            return None
        why = "only jobs of damaged or missing segments are left; see `osqueue verify`"
        return Refused("corrupt", f"{why} jobs={blocked} keys={','.join(keys[:_NAMED_KEYS])}")
