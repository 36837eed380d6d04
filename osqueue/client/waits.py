"""Waiting until a queue is idle, or until it has room for a push.

A broker parks the question until its time has come, so all who wait for the same share one question, however often
they give up and wait anew: who gives up leaves nothing behind.
"""

from __future__ import annotations

import concurrent.futures
import copy
import threading
from collections.abc import Callable

from osqueue.client.calls import Response
from osqueue.client.connection import Connection
from osqueue.client.refusal import to_error
from osqueue.core.messages import Refused, Reply, Stats, WaitIdle, WaitRoom
from osqueue.errors import OsqueueError
from osqueue.reactor import LoopThread

Answer = concurrent.futures.Future[Response | Exception]

_ROOM = None
"""The one question that is not about tasks."""
_Subject = tuple[str, ...] | None


class Waits:
    """Open questions by their tasks. Any thread but the loop's own."""

    def __init__(self, reactor: LoopThread, connection: Connection) -> None:
        self._reactor = reactor
        self._connection = connection
        self._lock = threading.Lock()
        self._open: dict[_Subject, Answer] = {}
        self._no_room: Exception | None = None
        self.when_for_room: Callable[[], None] = _nothing
        """Told in the loop's thread when somebody begins to wait for room."""

    def idle(self, tasks: list[str], timeout_s: float | None) -> Stats:
        """Wait until no job of these tasks is ready, delayed or running.

        Raises:
            TimeoutError: not within ``timeout_s``.
            OsqueueError: the queue cannot be asked.
        """
        answer = self._question(tuple(sorted(tasks)))
        try:
            response = answer.result(timeout_s)
        except TimeoutError:
            raise TimeoutError(f"jobs still wait or run after {timeout_s:g} s; `stats` counts them") from None
        return _stats(response)

    def room(self) -> None:
        """Wait until there is room for a job.

        Raises:
            OsqueueError: the queue cannot be asked.
            Exception: whatever was given to `end_room`.
        """
        _stats(self._question(_ROOM).result())

    @property
    def for_room(self) -> bool:
        """Whether room is waited for."""
        return _ROOM in self._open

    def end_room(self, error: Exception) -> None:
        """Nobody waits for room any more: who does, or would, gets the error."""
        with self._lock:
            self._no_room = error
            answer = self._open.pop(_ROOM, None)
        if answer is not None:
            answer.set_result(error)

    def _question(self, subject: _Subject) -> Answer:
        self._reactor.refuse_forked()  # what the parent has asked is answered there, and its lock may be held for ever
        with self._lock:
            if subject is _ROOM and self._no_room is not None:
                raise copy.copy(self._no_room)
            answer = self._open.get(subject)
            if answer is None:
                answer = self._open[subject] = concurrent.futures.Future()
                try:
                    self._reactor.call(self._ask, subject, answer)
                except RuntimeError:
                    del self._open[subject]  # nobody will answer it
                    raise
        return answer

    def _ask(self, subject: _Subject, answer: Answer) -> None:
        def answered(response: Response | OsqueueError) -> None:
            with self._lock:
                if self._open.get(subject) is not answer:
                    return  # `end_room` has answered
                del self._open[subject]
            answer.set_result(response)

        if subject is _ROOM:
            self.when_for_room()
        self._connection.ask(WaitRoom() if subject is _ROOM else WaitIdle(list(subject)), answered, wait_ms=None)


def _nothing() -> None:
    """Nobody wants to know."""


def _stats(response: Response | Exception) -> Stats:
    if isinstance(response, Exception):
        raise copy.copy(response)
    assert isinstance(response, Reply), "a query is answered by a reply"
    if isinstance(response.body, Refused):
        raise to_error(response.body)
    assert isinstance(response.body, Stats), "this query is answered by counts"
    return response.body
