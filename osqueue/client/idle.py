"""Waiting until a queue is idle.

A broker parks the question until its time has come, so all who wait for the same tasks share one question, however
often they give up and wait anew.
"""

from __future__ import annotations

import concurrent.futures
import copy
import threading

from osqueue.client.calls import Response
from osqueue.client.connection import Connection
from osqueue.client.refusal import to_error
from osqueue.core.messages import Refused, Reply, Stats, WaitIdle
from osqueue.errors import OsqueueError
from osqueue.reactor import LoopThread

Answer = concurrent.futures.Future[Response | OsqueueError]


class IdleWaits:
    """Open questions by their tasks. Any thread but the loop's own."""

    def __init__(self, reactor: LoopThread, connection: Connection) -> None:
        self._reactor = reactor
        self._connection = connection
        self._lock = threading.Lock()
        self._open: dict[tuple[str, ...], Answer] = {}

    def wait(self, tasks: list[str], timeout_s: float | None) -> Stats:
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
        if isinstance(response, OsqueueError):
            raise copy.copy(response)
        assert isinstance(response, Reply), "a query is answered by a reply"
        if isinstance(response.body, Refused):
            raise to_error(response.body)
        assert isinstance(response.body, Stats), "this query is answered by counts"
        return response.body

    def _question(self, tasks: tuple[str, ...]) -> Answer:
        with self._lock:
            answer = self._open.get(tasks)
            if answer is None:
                answer = self._open[tasks] = concurrent.futures.Future()
                self._reactor.call(self._ask, tasks, answer)
        return answer

    def _ask(self, tasks: tuple[str, ...], answer: Answer) -> None:
        def answered(response: Response | OsqueueError) -> None:
            with self._lock:
                del self._open[tasks]
            answer.set_result(response)

        self._connection.ask(WaitIdle(list(tasks)), answered, wait_ms=None)
