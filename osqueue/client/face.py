"""Between a blocking caller and the loop's thread: operations, queries, claims, each as a plain call."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from functools import partial
from typing import TypeVar

from osqueue import clock
from osqueue.client.connection import Connection
from osqueue.client.exchange import Asking, Operating
from osqueue.client.refusal import to_error
from osqueue.client.session import Session
from osqueue.client.waits import Waits
from osqueue.core.messages import (
    AnswerBody,
    Beaten,
    Claim,
    Granted,
    History,
    JobRecord,
    ListJobs,
    Operation,
    Page,
    Query,
    Refused,
    Reply,
    Stats,
)
from osqueue.errors import PayloadTooLarge
from osqueue.reactor import LoopThread
from osqueue.transport.connector import Connector

R = TypeVar("R")
M = TypeVar("M")


def open_connection(reactor: LoopThread, connector: Connector) -> Connection:
    """A connection with a new session; not started."""
    return Connection(reactor, connector, Session(lambda: secrets.token_hex(8)))


class Face:
    """What `Client`'s verbs are made of. Any thread but the loop's own.

    Args:
        reactor, connection: where everything happens.
    """

    def __init__(self, reactor: LoopThread, connection: Connection) -> None:
        self.reactor = reactor
        self.connection = connection
        self.waits = Waits(reactor, connection)

    def start(self, operation: Operation, convert: Callable[[AnswerBody], R]) -> Operating[R]:
        """Begin an operation."""
        self._may_wait()
        return Operating(self.reactor, self.connection, operation, convert)

    def operate(self, operation: Operation, answer: type[M], pick: Callable[[M], R]) -> R:
        """Do an operation; what ``pick`` makes of its answer, which is of the type ``answer``."""
        return self.start(operation, lambda body: pick(expect(body, answer))).result()

    def ask(self, query: Query, answer: type[M], pick: Callable[[M], R]) -> R:
        """Ask a query; what ``pick`` makes of its answer, which is of the type ``answer``."""
        self._may_wait()
        asking = Asking(
            self.reactor,
            self.connection,
            partial(self.connection.ask, query),
            lambda response: pick(expect(expect(response, Reply).body, answer)),
        )
        return asking.result()

    def claim(self, claim: Claim, pick: Callable[[Granted], R]) -> R:
        """Claim once; what ``pick`` makes of what was granted."""
        self._may_wait()
        asking = Asking(
            self.reactor,
            self.connection,
            partial(self.connection.claim, claim),
            lambda response: pick(expect(response, Granted)),
        )
        return asking.result()

    def heartbeat(self, lease: int, running: list[int], pick: Callable[[Beaten], R]) -> R:
        """Extend a lease; what ``pick`` makes of the answer."""
        self._may_wait()
        asking = Asking(
            self.reactor,
            self.connection,
            partial(self.connection.heartbeat, lease, running),
            lambda response: pick(expect(response, Beaten)),
        )
        return asking.result()

    def pages(self, first: ListJobs | History) -> Iterator[JobRecord]:
        """The jobs of all pages of a query, read as they are asked for.

        Raises:
            Corrupt: after the last one; some are lacking because of damage.
        """
        query = first
        damage: Refused | None = None
        while True:
            page = self.ask(query, Page, itself)
            yield from page.jobs
            damage = damage or page.damage
            if not page.cursor:
                break
            query = _next_page(query, page)
        if damage is not None:
            raise to_error(damage)

    def wait_idle(self, tasks: list[str], timeout_s: float | None) -> Stats:
        """Wait until no job of these tasks waits or runs.

        Raises:
            TimeoutError: not within ``timeout_s``.
        """
        self._may_wait()
        return self.waits.idle(tasks, timeout_s)

    def wait_room(self) -> None:
        """Wait until fewer than ``max_queued`` jobs wait."""
        self._may_wait()
        self.waits.room()

    def now_ms(self) -> int:
        """The broker's time; this host's until the broker has told its own."""
        known = self.connection.session.now_ms(clock.boot_ms())
        return clock.wall_ms() if known is None else known

    def check_size(self, payload: bytes) -> bytes:
        """Refuse what the broker would refuse.

        Raises:
            TypeError: no bytes.
            PayloadTooLarge: above the queue's ``max_payload``.
        """
        data = to_bytes("payload", payload)
        limit = self.connection.session.max_payload_bytes
        if limit and len(data) > limit:
            raise PayloadTooLarge(
                f"payload is above max_payload: store it elsewhere and push a reference bytes={len(data)} limit={limit}"
            )
        return data

    def _may_wait(self) -> None:
        if self.reactor.in_thread():
            raise RuntimeError("this call would wait in the thread that brings its answer")


def _next_page(query: ListJobs | History, page: Page) -> ListJobs | History:
    if isinstance(query, ListJobs):
        return ListJobs(query.state, int(page.cursor), query.limit)
    return History(query.since_ms, page.cursor)


def itself(value: M) -> M:
    """The value, for answers that need nothing made of them."""
    return value


def to_bytes(name: str, value: object) -> bytes:
    """A payload or result as bytes.

    Raises:
        TypeError: it is text, or no bytes at all.
    """
    if isinstance(value, bytes):
        return value
    if isinstance(value, bytearray | memoryview):
        return bytes(value)
    way_out = "encode it first, or use Queue" if isinstance(value, str) else "use Queue for other values"
    raise TypeError(f"{name} is bytes here, not {type(value).__name__}: {way_out}")


def expect(body: object, kind: type[M]) -> M:
    """The body, which is of this kind unless the broker speaks another protocol."""
    if not isinstance(body, kind):
        raise TypeError(f"unexpected answer from the broker answer={type(body).__name__} expected={kind.__name__}")
    return body
