"""Waiting for an answer: begun in the loop's thread, waited for in the caller's, perhaps more than once."""

from __future__ import annotations

import concurrent.futures
import copy
from collections.abc import Callable
from typing import Generic, TypeVar

from osqueue.client.calls import Call, OnResponse, Response
from osqueue.client.connection import Connection
from osqueue.client.operations import Pending
from osqueue.client.refusal import to_error
from osqueue.core.messages import AnswerBody, Operation, Refused, Reply
from osqueue.errors import OsqueueError, SessionLost, Unavailable
from osqueue.reactor import LoopThread

R = TypeVar("R")
Begin = Callable[[OnResponse], Call]


class Operating(Generic[R]):
    """One numbered operation. For one thread at a time; not for the loop's own.

    Args:
        reactor, connection: where it is done.
        operation: what to do.
        convert: makes the result of the answer's body.
    """

    def __init__(
        self, reactor: LoopThread, connection: Connection, operation: Operation, convert: Callable[[AnswerBody], R]
    ) -> None:
        self._reactor = reactor
        self._connection = connection
        self._operation = operation
        self._convert = convert
        self._pending: Pending | None = None
        self._answer = self._start(self._begin)

    def result(self) -> R:
        """Wait for the answer.

        Raises:
            Rejected: the broker refused.
            Unavailable: no answer in time; its ``again()`` waits for the answer to this very operation.
        """
        body = self._answer.result()
        if isinstance(body, OsqueueError):
            # One error may be told to several threads: each has its own traceback, and its own way to go on.
            error = copy.copy(body)
            if isinstance(error, Unavailable) and not isinstance(error, SessionLost):
                error._again = self._repeat
                error.add_note("error.again() repeats this very operation")
            raise error
        if isinstance(body, Refused):
            raise to_error(body)
        return self._convert(body)

    def _repeat(self) -> R:
        self._answer = self._start(self._again)
        return self.result()

    def _start(
        self, begin: Callable[[concurrent.futures.Future[AnswerBody | OsqueueError]], None]
    ) -> concurrent.futures.Future[AnswerBody | OsqueueError]:
        answer: concurrent.futures.Future[AnswerBody | OsqueueError] = concurrent.futures.Future()
        self._reactor.call(begin, answer)
        return answer

    def _begin(self, answer: concurrent.futures.Future[AnswerBody | OsqueueError]) -> None:
        self._pending = self._connection.submit(self._operation, answer.set_result)

    def _again(self, answer: concurrent.futures.Future[AnswerBody | OsqueueError]) -> None:
        assert self._pending is not None, "begun before it can be repeated"
        self._connection.again(self._pending, answer.set_result)


class Asking(Generic[R]):
    """One call that is not numbered. For one thread at a time; not for the loop's own.

    Args:
        reactor, connection: where it is done.
        begin: makes the call, in the loop's thread.
        convert: makes the result of the response.
    """

    def __init__(
        self, reactor: LoopThread, connection: Connection, begin: Begin, convert: Callable[[Response], R]
    ) -> None:
        self._reactor = reactor
        self._connection = connection
        self._call: Call | None = None
        self._begin_call = begin
        self._convert = convert

    def result(self) -> R:
        """Ask, and wait for the answer.

        Raises:
            Rejected: the broker refused.
            Unavailable: no answer in time; its ``again()`` asks anew.
        """
        answer: concurrent.futures.Future[Response | OsqueueError] = concurrent.futures.Future()
        self._reactor.call(self._begin, answer)
        try:
            response = answer.result()
        except BaseException:  # Ctrl-C: what comes yet is nobody's
            self._reactor.call(self._forget)
            raise
        error: Exception
        if isinstance(response, OsqueueError):
            error = copy.copy(response)
        elif isinstance(response, Reply) and isinstance(response.body, Refused):
            error = to_error(response.body)
        else:
            return self._convert(response)
        if isinstance(error, Unavailable):
            error._again = self.result
            error.add_note("error.again() asks again")
        raise error

    def _begin(self, answer: concurrent.futures.Future[Response | OsqueueError]) -> None:
        self._call = self._begin_call(answer.set_result)

    def _forget(self) -> None:
        if self._call is not None:
            self._connection.forget(self._call)
