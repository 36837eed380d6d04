"""Sessions: what makes an operation that is said again harmless.

    unknown, born after ``forgotten``   a new session, if the number is 1
    unknown, born before                SessionLost: it may have been applied, and nobody can tell
    number <= last, answer kept         the same answer again
    number <= last, answer acked        dropped: the client has it
    number == last + 1                  applied
    number > last + 1                   a gap: say it again from last + 1

Rules:
* A refusal is an answer: it uses its number and is remembered.
* Sessions do not expire by time. When there is no room, one without a lease goes, and ``forgotten`` rises to its birth:
  the longest idle one with nothing unanswered or, if there is none, the longest idle one that is not connected. A
  client that was killed never acknowledges its last answers; without the second rule some 190 of them would be the end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import msgspec
from msgspec import Raw

from osqueue.core.messages import AnswerBody
from osqueue.core.model import SessionLine

MAX_SESSIONS = 256
MAX_UNANSWERED = 64
MAX_BYTES = 16 * 1024
MAX_SESSION_BYTES = 4 * 1024
_LINE_BYTES = 52
_ANSWER_BYTES = 256
_ANSWER = msgspec.json.Decoder(AnswerBody)


class Session:
    """One client's operations: the last number applied, and answers that it may not have."""

    def __init__(self, line: SessionLine) -> None:
        self.id = line.id
        self.birth = line.birth
        self.last = line.last
        self.used = line.used
        self.answers = {self.last - len(line.answers) + 1 + at: raw for at, raw in enumerate(line.answers)}

    def answer(self, number: int) -> AnswerBody | None:
        """The answer kept for a number."""
        raw = self.answers.get(number)
        return None if raw is None else _ANSWER.decode(raw)

    def remember(self, number: int, body: AnswerBody, version: int) -> None:
        self.last = number
        self.used = version
        self.answers[number] = Raw(msgspec.json.encode(body))

    def acknowledge(self, acked: int) -> None:
        """The client has its answers up to ``acked``."""
        for number in [number for number in self.answers if number <= acked]:
            del self.answers[number]

    def line(self) -> SessionLine:
        return SessionLine(self.id, self.birth, self.last, self.used, list(self.answers.values()))

    def size(self) -> int:
        return _LINE_BYTES + sum(len(bytes(raw)) + 1 for raw in self.answers.values())


class Sessions:
    """All sessions. Not thread-safe; owned by the machine."""

    def __init__(self, lines: Iterable[SessionLine], forgotten: int) -> None:
        self._sessions = {line.id: Session(line) for line in lines}
        self.forgotten = forgotten
        self._connected: set[str] = set()
        self.changed = False
        """Whether sessions have come or gone since the last commit."""

    def get(self, session_id: str) -> Session | None:
        return self._sessions.get(session_id)

    def is_lost(self, session_id: str, birth: int) -> bool:
        """Whether a session was forgotten, so that nobody can tell what it did."""
        return session_id not in self._sessions and birth <= self.forgotten

    def new(self, session_id: str, birth: int) -> Session:
        """A session that is not known yet; `add` it once `make_room` has found room for it."""
        return Session(SessionLine(session_id, birth))

    def add(self, session: Session) -> None:
        """Know a session, perhaps a new one."""
        self._sessions[session.id] = session

    def make_room(self, session: Session, has_lease: Callable[[str], bool]) -> bool:
        """Whether the root has room for one more answer of a session, perhaps after forgetting idle ones.

        One that has acknowledged everything has it longer: a client that does not read its answers stops only itself.
        """
        if len(session.answers) >= MAX_UNANSWERED or session.size() > MAX_SESSION_BYTES:
            return False
        while session.id not in self._sessions and len(self._sessions) >= MAX_SESSIONS:
            if not self._forget_one(has_lease, but=session):
                return False
        while (size := sum(other.size() for other in self._sessions.values())) > MAX_BYTES - _ANSWER_BYTES:
            if not self._forget_one(has_lease, but=session):
                return not session.answers and size <= 2 * MAX_BYTES
        return True

    def _forget_one(self, has_lease: Callable[[str], bool], but: Session) -> bool:
        others = [x for x in self._sessions.values() if x is not but and not has_lease(x.id)]
        may_go = [x for x in others if not x.answers] or [x for x in others if x.id not in self._connected]
        if not may_go:
            return False
        self.changed = True
        oldest = min(may_go, key=lambda session: (session.used, session.birth))
        del self._sessions[oldest.id]
        self.forgotten = max(self.forgotten, oldest.birth)
        return True

    def connected(self, session_id: str) -> None:
        """A connection serves the session now."""
        self._connected.add(session_id)

    def disconnected(self, session_id: str) -> None:
        """No connection serves the session any more."""
        self._connected.discard(session_id)

    def close(self, session_id: str) -> None:
        """The client has said goodbye."""
        self._sessions.pop(session_id, None)

    def encoded(self) -> bytes:
        return msgspec.json.encode([session.line() for session in self._sessions.values()])
