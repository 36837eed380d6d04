"""A model of the broker's side of a session: just enough to tell whether a client keeps its own side.

Its state outlives connections. An operation is applied once per number; its answer is remembered until it is acked.
"""

from __future__ import annotations

from osqueue.core.messages import (
    MAX_IDS,
    Answer,
    Ask,
    Beaten,
    Changed,
    Claim,
    Finished,
    FromBroker,
    Goodbye,
    Granted,
    Handout,
    Heartbeat,
    Hello,
    JobRecord,
    Numbered,
    Push,
    Pushed,
    Refused,
    Reply,
    Requeue,
    SayAgain,
    Stats,
    ToBroker,
    Welcome,
)


class ModelSession:
    def __init__(self, birth: int) -> None:
        self.birth = birth
        self.last = 0
        self.answers: dict[int, Pushed | Changed] = {}


class ModelBroker:
    def __init__(self) -> None:
        self.version = 10
        self.sessions: dict[str, ModelSession] = {}
        self.forgotten = 0
        self.applied: list[bytes] = []
        self.requeued: list[int] = []
        self.requeued_at_once = MAX_IDS
        self.finished: set[int] = set()
        self.watched: set[int] = set()
        self.said_goodbye = False
        self._current: str | None = None
        self._birth_said = 0

    def disconnected(self) -> None:
        self._current = None
        self.watched = set()

    def forget(self) -> None:
        """Other sessions took the place of all that are here."""
        self.version += 1
        self.forgotten = self.version
        self.sessions.clear()

    def received(self, message: ToBroker) -> list[FromBroker]:
        match message:
            case Hello():
                return self._hello(message)
            case Numbered():
                return self._numbered(message)
            case Ask():
                return [Reply(message.ticket, Stats(pushed=len(self.applied)))]
            case Claim():
                return [Granted(message.ticket, 7, [Handout(1, 1, "default", b"1", 0)])]
            case Heartbeat():
                return [Beaten(message.ticket, held=True)]
            case Goodbye():
                self.said_goodbye = True
                return []

    def finish(self, job_id: int) -> list[FromBroker]:
        self.finished.add(job_id)
        return [_ended(job_id)] if job_id in self.watched else []

    def _hello(self, hello: Hello) -> list[FromBroker]:
        assert self._current is None, "a connection says hello once"
        self._current = hello.session
        self._birth_said = hello.birth
        self.version += 1
        if hello.birth == 0:
            self._birth_said = self.version
        out: list[FromBroker] = [Welcome(self._birth_said, 1, now_ms=5_000_000, max_payload=1000)]
        for first, last in hello.watched:
            self.watched |= set(range(first, last + 1))
        return out + [_ended(job_id) for job_id in sorted(self.watched & self.finished)]

    def _numbered(self, message: Numbered) -> list[FromBroker]:
        assert self._current is not None, "an operation before its hello"
        session = self.sessions.get(self._current)
        if session is None:
            if self._birth_said <= self.forgotten:
                return [Answer(message.number, Refused("session_lost", "forgotten"))]
            session = self.sessions[self._current] = ModelSession(self._birth_said)
        assert message.acked <= session.last
        for number in [number for number in session.answers if number <= message.acked]:
            del session.answers[number]
        if message.number > session.last + 1:
            return [SayAgain(session.last + 1)]
        if message.number == session.last + 1:
            self._apply(session, message)
        assert len(session.answers) <= 64
        if message.number not in session.answers:
            return []
        return [Answer(message.number, session.answers[message.number]), *self._watch(session, message)]

    def _apply(self, session: ModelSession, message: Numbered) -> None:
        session.last = message.number
        match message.operation:
            case Push(payloads):
                first = len(self.applied) + 1
                self.applied += payloads
                session.answers[message.number] = Pushed([(first, len(self.applied))])
            case Requeue(ids):
                assert len(ids) <= MAX_IDS
                done = ids[: self.requeued_at_once]
                self.requeued += done
                changed = Changed([(one, one) for one in done], left=len(ids) - len(done))
                session.answers[message.number] = changed
            case other:
                raise AssertionError(f"the model does not know {other}")

    def _watch(self, session: ModelSession, message: Numbered) -> list[FromBroker]:
        push = message.operation
        if not isinstance(push, Push) or not push.watch:
            return []
        ids = {one for first, last in session.answers[message.number].ids for one in range(first, last + 1)}
        self.watched |= ids
        return [_ended(job_id) for job_id in sorted(ids & self.finished)]


def _ended(job_id: int) -> Finished:
    return Finished([JobRecord(id=job_id, state="succeeded", result=b"1")])
