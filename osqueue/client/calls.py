"""Calls that are not numbered: queries, one-shot claims, heartbeats.

Each has a ticket, which means something only on the connection that it went out on: after a new one it is asked
again, under a new ticket. Sans-I/O, called from one thread, time comes in as ``now_ms`` of the boot clock.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from osqueue.client.operations import PATIENCE_MS
from osqueue.core.messages import Ask, Beaten, Claim, Granted, Heartbeat, Progress, Query, Reply
from osqueue.errors import OsqueueError, Unavailable

Request = Ask | Claim | Heartbeat
Response = Reply | Granted | Beaten
OnResponse = Callable[[Response | OsqueueError], None]
Build = Callable[[int, int], Request]
"""Makes the request from a ticket and the time."""


class Call:
    """One request until it is answered."""

    __slots__ = ("build", "on_response", "since_ms", "wait_ms")

    def __init__(self, build: Build, on_response: OnResponse, since_ms: int, wait_ms: int | None) -> None:
        self.build = build
        self.on_response = on_response
        self.since_ms = since_ms
        self.wait_ms = wait_ms
        """How long the broker may take by agreement; None for as long as it likes."""

    def expired(self, now_ms: int, lost_ms: int | None) -> bool:
        """Whether it has waited too long, for an answer or for a connection."""
        if self.wait_ms is not None and now_ms - self.since_ms >= self.wait_ms + PATIENCE_MS:
            return True
        return lost_ms is not None and now_ms - max(self.since_ms, lost_ms) >= PATIENCE_MS


class Calls:
    """See the module. Not thread-safe."""

    def __init__(self) -> None:
        self._calls: dict[int, Call] = {}
        self._unsent: list[Call] = []
        self._next = 1

    def __len__(self) -> int:
        return len(self._calls) + len(self._unsent)

    def ask(self, query: Query, on_response: OnResponse, now_ms: int, *, wait_ms: int | None = 0) -> Call:
        """Ask a query; ``wait_ms=None`` for one that is answered when its time has come."""
        return self._add(Call(lambda ticket, _: Ask(ticket, query), on_response, now_ms, wait_ms))

    def claim(self, claim: Claim, on_response: OnResponse, now_ms: int) -> Call:
        """Claim once; asked again on a new connection for what is left of its wait."""
        wait_ms = int(claim.wait_s * 1000)

        def build(ticket: int, at_ms: int) -> Claim:
            left_s = max(0, now_ms + wait_ms - at_ms) / 1000
            return Claim(ticket, claim.tasks, claim.jobs, wait_s=left_s, worker=claim.worker)

        return self._add(Call(build, on_response, now_ms, wait_ms))

    def heartbeat(
        self, lease: int, running: list[int], on_response: OnResponse, now_ms: int, *, progress: Sequence[Progress] = ()
    ) -> Call:
        """Extend a lease."""
        told = list(progress)
        return self._add(Call(lambda ticket, _: Heartbeat(ticket, lease, running, told), on_response, now_ms, 0))

    def ticket(self) -> int:
        """A ticket for a request whose answers are not waited for here."""
        ticket = self._next
        self._next += 1
        return ticket

    def forget(self, call: Call) -> None:
        """Nobody waits any more."""
        self._unsent = [one for one in self._unsent if one is not call]
        self._calls = {ticket: one for ticket, one in self._calls.items() if one is not call}

    def to_send(self, now_ms: int) -> list[Request]:
        """Requests that have not been sent on this connection."""
        requests = []
        for call in self._unsent:
            ticket = self.ticket()
            self._calls[ticket] = call
            requests.append(call.build(ticket, now_ms))
        self._unsent.clear()
        return requests

    def answered(self, response: Response) -> bool:
        """Take an answer in; False when nobody here has its ticket."""
        call = self._calls.pop(response.ticket, None)
        if call is None:
            return False
        call.on_response(response)
        return True

    def unsayable(self, ticket: int, error: OsqueueError) -> None:
        """A request cannot be put into bytes: its caller is told."""
        if (call := self._calls.pop(ticket, None)) is not None:
            call.on_response(error)

    def disconnected(self) -> None:
        """Tickets are void: everything is asked again, in order."""
        self._unsent = [*self._calls.values(), *self._unsent]
        self._calls.clear()

    def expire(self, now_ms: int, lost_ms: int | None) -> None:
        """Tell those that have waited too long; ``lost_ms``: since when there is no connection."""
        for call in [*self._calls.values(), *self._unsent]:
            if call.expired(now_ms, lost_ms):
                self.forget(call)
                call.on_response(Unavailable("no answer from the broker"))

    def fail(self, error: OsqueueError) -> None:
        """There will be no answers any more."""
        gone = [*self._calls.values(), *self._unsent]
        self._calls.clear()
        self._unsent.clear()
        for call in gone:
            call.on_response(error)

    def _add(self, call: Call) -> Call:
        self._unsent.append(call)
        return call
