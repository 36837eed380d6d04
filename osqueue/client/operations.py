"""A session's numbered operations: said in order, said again until answered, each answered once.

    submit ─▶ waiting ──numbered, sent──▶ unanswered ──Answer──▶ on_answer
                         ▲                    │
                         └──new connection────┘  said again, under the same number

Rules:
* Numbers grow by one from 1 and never go back; at most `WINDOW` are unanswered, others wait their turn.
* ``acked`` is the last number below which everything is answered here: the broker may forget those answers.
* A session that has nothing more to say acknowledges its last answer a moment later (`Operations.thanks`).
* What has waited `PATIENCE_MS` without any answer coming in is told to be `Unavailable`, and stays in the session.
* Sans-I/O: called from one thread, time comes in as ``now_ms`` of the boot clock.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable

from osqueue.core.messages import Answer, AnswerBody, Cancel, Numbered, Operation
from osqueue.errors import OsqueueError, SessionLost, Unavailable

WINDOW = 64
PATIENCE_MS = 60_000

OnAnswer = Callable[[AnswerBody | OsqueueError], None]


class Pending:
    """One operation on its way to its answer."""

    __slots__ = ("body", "expires", "number", "on_answer", "operation", "sent", "since_ms")

    def __init__(self, operation: Operation, on_answer: OnAnswer, since_ms: int, *, expires: bool) -> None:
        self.operation = operation
        self.on_answer: OnAnswer | None = on_answer
        self.since_ms = since_ms
        self.expires = expires
        self.number = 0
        self.sent = 0
        """How often it was sent."""
        self.body: AnswerBody | OsqueueError | None = None

    def answer(self, body: AnswerBody | OsqueueError) -> None:
        """Tell whoever waits; the answer stays for `Operations.again`."""
        self.body = body
        self.tell(body)

    def tell(self, body: AnswerBody | OsqueueError) -> None:
        """Tell whoever waits now, once."""
        on_answer, self.on_answer = self.on_answer, None
        if on_answer is not None:
            on_answer(body)


class Operations:
    """See the module. Not thread-safe."""

    def __init__(self) -> None:
        self._waiting: deque[Pending] = deque()
        self._unanswered: dict[int, Pending] = {}
        self._next = 1
        self._progress_ms = 0
        self._acked = 0
        """What the broker has been told that we have."""

    def __len__(self) -> int:
        """How many are not answered, those that wait their turn included."""
        return len(self._waiting) + len(self._unanswered)

    def submit(self, operation: Operation, on_answer: OnAnswer, now_ms: int, *, expires: bool = True) -> Pending:
        """Take an operation in; `to_send` gives it out.

        Args:
            operation: what to do.
            on_answer: called once with the answer's body or with the error.
            now_ms: the boot clock.
            expires: False for what waits for its answer as long as it takes.
        """
        pending = Pending(operation, on_answer, now_ms, expires=expires)
        self._waiting.append(pending)
        return pending

    def again(self, pending: Pending, on_answer: OnAnswer, now_ms: int) -> None:
        """Wait anew for an operation that was told to be unavailable."""
        if pending.body is not None:
            on_answer(pending.body)
            return
        pending.on_answer = on_answer
        pending.since_ms = now_ms

    def to_send(self) -> list[Numbered]:
        """Number those whose turn has come."""
        turn: list[Pending] = []
        while self._waiting and len(self._unanswered) < WINDOW:
            pending = self._waiting.popleft()
            pending.number = self._next
            self._next += 1
            self._unanswered[pending.number] = pending
            turn.append(pending)
        return self._say(turn)

    def repeat(self, first: int = 1) -> list[Numbered]:
        """Say every unanswered operation again, from a number on."""
        return self._say(pending for number, pending in self._unanswered.items() if number >= first)

    @property
    def owes_thanks(self) -> bool:
        """Whether there are answers here that the broker keeps, since it does not know that we have them."""
        return self._acked < self._answered()

    def thanks(self) -> list[Numbered]:
        """An acknowledgement on its own: an operation that is answered, said again by name only.

        The broker keeps answers until then, and a session with none of them may make room for others.
        """
        if not self.owes_thanks:
            return []
        self._acked = self._answered()
        return [Numbered(self._acked, self._acked, Cancel([]))]

    def answered(self, answer: Answer, now_ms: int) -> Pending | None:
        """Take an answer in; None when it was there before."""
        pending = self._unanswered.pop(answer.number, None)
        if pending is None:
            return None
        self._progress_ms = now_ms
        pending.answer(answer.body)
        return pending

    def unsayable(self, number: int, error: OsqueueError) -> list[Numbered]:
        """An operation cannot be put into bytes: its caller is told, and nothing is done under its number."""
        pending = self._unanswered[number]
        pending.operation = Cancel([])
        pending.answer(error)
        return self._say([pending])

    def expire(self, now_ms: int) -> None:
        """Tell those that have waited too long."""
        if now_ms - self._progress_ms < PATIENCE_MS:
            return
        for pending in [*self._unanswered.values(), *self._waiting]:
            if pending.expires and pending.on_answer is not None and now_ms - pending.since_ms >= PATIENCE_MS:
                pending.tell(Unavailable("no answer from the broker"))

    def fail(self, error: OsqueueError) -> None:
        """There will be no answers any more."""
        gone = [*self._unanswered.values(), *self._waiting]
        self._unanswered.clear()
        self._waiting.clear()
        for pending in gone:
            pending.answer(error)

    def renew(self) -> None:
        """The broker has forgotten the session: begin another.

        What was sent once was refused as the first of an unknown session, so it is sent anew, unseen by the user;
        what was sent before that may have been done, and can no longer be found out.
        """
        gone = list(self._unanswered.values())
        self._unanswered.clear()
        self._next = 1
        self._acked = 0
        self._waiting.extendleft(reversed([pending for pending in gone if pending.sent == 1]))
        for pending in gone:
            if pending.sent == 1:
                pending.sent = 0
                continue
            pending.answer(SessionLost("the broker has forgotten this session; the outcome can no longer be found out"))

    def _answered(self) -> int:
        """The number up to which everything is answered."""
        return next(iter(self._unanswered), self._next) - 1

    def _say(self, pendings: Iterable[Pending]) -> list[Numbered]:
        acked = self._answered()
        numbered = []
        for pending in pendings:
            self._acked = acked
            pending.sent += 1
            numbered.append(Numbered(pending.number, acked, pending.operation))
        return numbered
