"""Numbered operations: applied once, however often they are said; `sessions` has the table of what follows."""

from __future__ import annotations

from osqueue.core.claims import LOST
from osqueue.core.locator import Place
from osqueue.core.messages import Answer, AnswerBody, Numbered, Push, Pushed, SayAgain, refused_as_corrupt
from osqueue.core.operations import Operations
from osqueue.core.sessions import Session
from osqueue.core.state import QueueState
from osqueue.core.watching import Watching
from osqueue.errors import Corrupt


class BusyError(Exception):
    """No room for one more answer of a session, whatever idle ones were forgotten: offer the operation again later."""


class NumberedOperations:
    """Applies them in the order of their numbers. Not thread-safe; owned by the machine."""

    def __init__(self, state: QueueState, operations: Operations, watching: Watching) -> None:
        self._state = state
        self._operations = operations
        self._watching = watching

    def apply(self, session_id: str, birth: int, message: Numbered, now_ms: int) -> list[int]:
        """Apply an operation, or say its answer again.

        Returns:
            Of a watched push that is said again, the ids that only the archive may know; usually none.

        Raises:
            NeedsObjectsError: segments must be in memory first.
            BusyError: the sessions' part of the root is full.
        """
        sessions = self._state.sessions
        if sessions.is_lost(session_id, birth):
            self._answer(session_id, message.number, LOST)
            return []
        session = sessions.get(session_id)
        if session is not None:
            session.acknowledge(message.acked)
        last = session.last if session is not None else 0
        if message.number > last + 1:
            self._state.outbox.append((session_id, SayAgain(last + 1)))
        elif session is not None and message.number <= last:
            return self._say_again(session, message)
        else:
            self._apply_next(session or sessions.new(session_id, birth), message, now_ms)
        return []

    def _say_again(self, session: Session, message: Numbered) -> list[int]:
        kept = session.answer(message.number)
        if kept is None:
            return []
        watched: dict[int, Place | None] = {}
        if isinstance(message.operation, Push) and message.operation.watch and isinstance(kept, Pushed):
            # The watch went with the connection, and the client could not name ids in its hello that it never heard.
            watched = self._watching.look_at(kept.ids)
        self._answer(session.id, message.number, kept)
        return self._watching.begin(session.id, watched)

    def _apply_next(self, session: Session, message: Numbered, now_ms: int) -> None:
        if not self._state.sessions.make_room(session, self._state.has_lease):
            raise BusyError
        # Known from here on, even if the operation has to wait: making room may have raised ``forgotten`` to its birth.
        self._state.sessions.add(session)
        body = self._operate(session, message, now_ms)
        session.remember(message.number, body, self._state.frame.version + 1)
        self._state.changed = True
        self._answer(session.id, message.number, body)

    def _operate(self, session: Session, message: Numbered, now_ms: int) -> AnswerBody:
        try:
            return self._operations.apply(session.id, message.operation, now_ms)
        except Corrupt as error:
            return refused_as_corrupt(error)

    def _answer(self, session_id: str, number: int, body: AnswerBody) -> None:
        self._state.outbox.append((session_id, Answer(number, body)))
