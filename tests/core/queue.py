"""A queue for tests: the machine, one commit at a time, with a store that is a dict and a clock that tests set."""

from __future__ import annotations

import itertools
from typing import Any

from msgspec import UNSET, json, structs

from osqueue.core import codec
from osqueue.core.commit import Commit
from osqueue.core.machine import QueueMachine
from osqueue.core.messages import (
    MAX_OUTCOMES,
    Answer,
    Ask,
    Beaten,
    Cancel,
    Claim,
    Discard,
    Finished,
    GetJob,
    GetStats,
    Granted,
    Handout,
    Heartbeat,
    Hello,
    JobError,
    ListJobs,
    Lost,
    Numbered,
    Operation,
    Outcome,
    Push,
    Reply,
    Report,
    Reported,
    Requeue,
    Stats,
    Welcome,
)
from osqueue.core.model import Root
from osqueue.core.segment import NeedsObjectsError
from osqueue.core.settings import QueueSettings

LEASE_S = 30
START_MS = 1_700_000_000_000


def lost_ids(reported: Any) -> list[int]:
    return [job_id for first, last in reported.lost for job_id in range(first, last + 1)]


def without(root: bytes, *sections: str) -> dict[str, object]:
    """A root's sections as plain values, without some of them and without what differs in every commit."""
    values = structs.asdict(codec.decode_root(root))
    for name in (*sections, "version", "nonce", "now_ms", "digest"):
        values.pop(name, None)
    return {name: json.encode(value) for name, value in values.items() if value is not UNSET}


class Session:
    """One client of the queue: numbers its operations, collects what it is sent."""

    def __init__(self, queue: Queue, name: str) -> None:
        self.queue = queue
        self.name = name
        self.birth = 0
        self.number = 0
        self.lease = 0
        self.inbox: list[Any] = []
        self._tickets = itertools.count(1)

    def received(self, kind: type) -> list[Any]:
        return [message for message in self.inbox if isinstance(message, kind)]

    def hello(self, held: list[tuple[int, int]] | None = None, **fields: Any) -> None:
        self.inbox.clear()
        message = Hello(self.name, self.birth, held=held or [], **fields)
        self.queue.retry(lambda: self.queue.machine.hello(message, self.queue.now_ms))
        self.queue.commit()
        self.birth = self.received(Welcome)[0].birth

    def say(self, operation: Operation, *, number: int | None = None, acked: int | None = None) -> Any:
        """Apply an operation under the next number, or once more under an old one; returns its answer's body."""
        if number is None:
            self.number += 1
            number = self.number
        message = Numbered(number, number - 1 if acked is None else acked, operation)
        self.inbox = [m for m in self.inbox if not isinstance(m, Answer)]
        self.queue.retry(lambda: self.queue.machine.numbered(self.name, self.birth, message, self.queue.now_ms))
        self.queue.commit()
        answers = self.received(Answer)
        return answers[-1].body if answers else None

    def push(self, *payloads: bytes, **options: Any) -> list[int]:
        runs = self.say(Push(list(payloads), **options)).ids
        return [job_id for first, last in runs for job_id in range(first, last + 1)]

    def claim(self, jobs: int = 1, tasks: tuple[str, ...] = ("default",), *, standing: bool = False) -> list[Handout]:
        self.inbox = [m for m in self.inbox if not isinstance(m, Granted)]
        claim = Claim(next(self._tickets), list(tasks), jobs, standing=standing)
        self.queue.machine.claim(self.name, self.birth, claim, self.queue.now_ms)
        self.queue.commit()
        granted = self.received(Granted)
        self.inbox = [m for m in self.inbox if not isinstance(m, Granted)]
        return [job for message in granted for job in message.jobs]

    def report(self, *outcomes: Outcome, lease: int | None = None) -> Any:
        lease = self.lease if lease is None else lease
        parts = [list(outcomes[at : at + MAX_OUTCOMES]) for at in range(0, max(1, len(outcomes)), MAX_OUTCOMES)]
        answers = [self.say(Report(lease, part)) for part in parts]
        refused = [answer for answer in answers if not isinstance(answer, Reported)]
        return refused[0] if refused else Reported([run for answer in answers for run in answer.lost])

    def complete(self, job: Handout, result: bytes = b"null", lease: int | None = None) -> list[int]:
        return lost_ids(self.report(Outcome(job.id, job.attempt, "succeeded", 1, 2, result), lease=lease))

    def fail(self, job: Handout, why: str = "why", **fields: Any) -> list[int]:
        error = JobError("ValueError", why)
        return lost_ids(self.report(Outcome(job.id, job.attempt, "failed", error=error, **fields)))

    def cancel(self, *ids: int, running: bool = True) -> Any:
        return self.say(Cancel(list(ids), running=running))

    def requeue(self, *ids: int) -> Any:
        return self.say(Requeue(list(ids)))

    def discard(self, *ids: int) -> Any:
        return self.say(Discard(list(ids)))

    def heartbeat(self, running: tuple[int, ...] = ()) -> bool:
        self.queue.machine.heartbeat(self.name, Heartbeat(0, self.lease, list(running)), self.queue.now_ms)
        self.queue.commit()
        return bool(self.received(Beaten)[-1].held)

    def ask(self, query: Any) -> Any:
        ask = Ask(next(self._tickets), query)
        self.queue.retry(lambda: self.queue.machine.ask(self.name, ask, self.queue.now_ms))
        self.queue.commit()
        return self.received(Reply)[-1].body

    def stats(self) -> Stats:
        return self.ask(GetStats())  # type: ignore[no-any-return]

    def get(self, job_id: int) -> Any:
        body = self.ask(GetJob(job_id))
        return body.jobs[0] if hasattr(body, "jobs") else body

    def list(self, state: str | None = None) -> list[Any]:
        return list(self.ask(ListJobs(state)).jobs)  # type: ignore[arg-type]

    def ask_list(self, state: str | None, after: int = 0) -> Any:
        return self.ask(ListJobs(state, after))  # type: ignore[arg-type]

    def granted(self) -> list[Handout]:
        """What standing claims have brought since this was asked last."""
        jobs = [job for message in self.received(Granted) for job in message.jobs]
        self.inbox = [m for m in self.inbox if not isinstance(m, Granted)]
        return jobs

    def received_ends(self) -> list[Any]:
        """The jobs whose end this session was told."""
        return [record for message in self.received(Finished) for record in message.jobs]

    def lost(self) -> list[int]:
        return [job_id for message in self.received(Lost) for job_id in message.ids]


class Queue:
    """The machine with its store."""

    def __init__(self, **settings: Any) -> None:
        self.settings = QueueSettings(**{"lease_s": LEASE_S, "retry_jitter": False, **settings})
        self.now_ms = START_MS
        self.store: dict[str, bytes] = {}
        self.root = b""
        self.sessions: dict[str, Session] = {}
        self.nonces = itertools.count(1)
        self.biggest_root = 0
        self.lag_ms = 0
        """How long after the last look at the time a commit is planned."""
        self._take_over(Root())

    def _take_over(self, root: Root) -> None:
        self.machine = QueueMachine(root, self.settings, now_ms=self.now_ms, seed="test")
        self._land(self.machine.take_over(f"owner-{next(self.nonces)}", now_ms=self.now_ms, nonce=self._nonce()))

    def _nonce(self) -> str:
        return f"{next(self.nonces)}"

    def session(self, name: str = "a") -> Session:
        if name not in self.sessions:
            self.sessions[name] = Session(self, name)
            self.sessions[name].hello()
        return self.sessions[name]

    def retry(self, action: Any) -> None:
        """Do something; load what it says it needs, and do it again: what it needed before is gone, if it may be."""
        for _ in range(200):
            try:
                action()
                return
            except NeedsObjectsError as error:
                if not error.together:
                    self.unload()
                self.load(error.keys)
        raise AssertionError("still needs objects after 200 loads")

    def load(self, keys: Any) -> None:
        for key in keys:
            self.machine.objects.load(key, self.store[key])

    def commit(self) -> None:
        """Settle, load what is wanted, and land what has changed, until nothing is left to do."""
        self._settle()
        while self.machine.changed:
            self.now_ms += self.lag_ms
            self._land(self.machine.plan(now_ms=self.now_ms, nonce=self._nonce()))
            self._settle()
        self._deliver()

    def _settle(self) -> None:
        self.machine.settle(self.now_ms)
        while wanted := self.machine.objects.take_wanted():
            self.load(wanted)
            self.machine.settle(self.now_ms)

    def _land(self, commit: Commit) -> None:
        self.store.update(commit.objects)
        self.root = commit.root
        self.biggest_root = max(self.biggest_root, len(commit.root))
        self.machine.landed(commit, self.now_ms)
        for key in commit.trash:
            del self.store[key]
        self.machine.deleted(commit.trash)
        self.machine.objects.trim()

    def _deliver(self) -> None:
        for name, message in self.machine.take_outbox():
            session = self.sessions[name]
            session.inbox.append(message)
            if isinstance(message, Granted):
                session.lease = message.lease or session.lease

    def wait(self, seconds: float) -> None:
        """Time passes, in steps short enough that the broker is not late."""
        end = self.now_ms + round(seconds * 1000)
        while self.now_ms < end:
            self.now_ms = min(end, self.now_ms + LEASE_S * 250)
            self.commit()

    def reopen(self) -> None:
        """A new broker takes over from the root's bytes; sessions come back with what they had."""
        self._take_over(codec.decode_root(self.root))

    def close(self) -> None:
        self._land(self.machine.close(now_ms=self.now_ms, nonce=self._nonce()))

    def unload(self) -> None:
        """Forget every segment that can be read again."""
        for segment in self.machine.state.backlog.segments.values():
            if segment.stored:
                self.machine.state.backlog.loaded.forget(segment)

    def root_values(self, *, without_sections: tuple[str, ...] = ()) -> dict[str, object]:
        return without(self.root, *without_sections)

    def archived(self) -> list[Any]:
        """Every record, inline or in an archive object."""
        lines = [line for key, data in self.store.items() if key.startswith("archive/") for line in data.splitlines()]
        return [codec.decode_record(line) for line in lines] + list(self.machine.finished_records())
