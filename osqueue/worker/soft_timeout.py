"""`SoftTimeout`, raised inside a handler that has run for too long.

    timer thread ──signal, until it got through──▶ main thread ─┬─ the handler's code runs ──▶ raised there
                                                                └─ its coroutine waits ─▶ task cancelled ─▶ thrown into
                                                                                          it, for the cancellation
Rules:
* Each attempt is an object, and is itself marked as due: a signal that comes late finds another one, and does nothing.
* It is raised once for each attempt, and only while the handler is on the stack: the attempt is judged outside.
* A signal may come just before a system call and not wake it, or at a bad moment: so it is sent again.
* A coroutine is interrupted in its own code alone: the event loop's would lose track of its tasks.
* Some code is never interrupted: the outbox, where half a frame would end the worker; `logging`, which prints whatever
  is raised in it and goes on, and may keep a lock; finalizers, whose exceptions Python itself swallows. What such code
  returns to is traced meanwhile, and interrupted at its next line.

The signal is one that programs do not use; ``SIGALRM`` and its like are left to the handlers.
"""

from __future__ import annotations

import asyncio
import inspect
import signal
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Generator
from types import FrameType
from typing import Any, Never

from osqueue import clock
from osqueue.errors import SoftTimeout
from osqueue.worker.coroutine import Coroutines
from osqueue.worker.reader import leave_signals_to_main_thread

_REAL_TIME: int | None = getattr(signal, "SIGRTMAX", None)
SIGNAL: int = signal.SIGURG if _REAL_TIME is None else _REAL_TIME - 1
"""SIGRTMAX itself is Valgrind's; macOS has no real-time signals, and SIGURG is ignored where nobody handles it."""

_NS_PER_S = 1_000_000_000
_AGAIN_S = 0.05
_LONGEST_AGAIN_S = 1.0
_UNTOUCHED = frozenset(["osqueue.worker.outbox", "logging", "logging.handlers", "weakref", "_weakrefset"])
"""Modules that are not interrupted, nor what they call; the last two are those of weak references' callbacks."""


class _Attempt:
    """One run of a handler, until it has ended or was interrupted."""

    __slots__ = ("again_s", "deadline_ns", "due", "steps")

    def __init__(self, deadline_ns: int, steps: _Steps | None) -> None:
        self.deadline_ns = deadline_ns
        self.steps = steps
        self.due = False
        self.again_s = _AGAIN_S


class SoftTimeouts:
    """Interrupts the handlers that it has wrapped. Belongs to the worker's main thread.

    Args:
        after_s: seconds that a handler may run.
        coroutines: where ``async def`` handlers run.
    """

    def __init__(self, after_s: float, coroutines: Coroutines) -> None:
        self._after_s = after_s
        self._after_ns = round(after_s * _NS_PER_S)
        self._coroutines = coroutines
        self._attempt: _Attempt | None = None

    def wrap(self, handler: Callable[[Any], Any]) -> Callable[[Any], Any]:
        """The handler as a plain function in which `SoftTimeout` is raised in time."""
        return self._wrapped_async(handler) if inspect.iscoroutinefunction(handler) else self._wrapped(handler)

    def start(self) -> None:
        """Take the signal, and start the timer's thread."""
        signal.signal(SIGNAL, self._interrupt)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [SIGNAL])
        threading.Thread(target=self._time, name="osqueue-soft-timeout", daemon=True).start()

    # ----------------------------------------------------------------------------------------------------- the handlers

    def _wrapped(self, handler: Callable[[Any], Any]) -> Callable[[Any], Any]:
        def run(payload: Any) -> Any:
            try:
                self._attempt = _Attempt(clock.boot_ns() + self._after_ns, None)
                return handler(payload)
            finally:
                # A signal that is handled before this line raises out of here; it has then said so itself.
                self._attempt = None

        return run

    def _wrapped_async(self, handler: Callable[[Any], Coroutine[Any, Any, Any]]) -> Callable[[Any], Any]:
        def run(payload: Any) -> Any:
            loop = self._coroutines.loop()
            before = asyncio.all_tasks(loop)
            steps = _Steps(handler(payload), self)
            try:
                self._attempt = _Attempt(clock.boot_ns() + self._after_ns, steps)
                steps.task = loop.create_task(steps)
                return loop.run_until_complete(steps.task)
            except BaseExceptionGroup as group:
                if not steps.interrupted or group.split(SoftTimeout)[1] is not None:
                    raise
                raise _first_of(group) from None  # a task group's way of passing on what was raised in its block
            finally:
                self._attempt = None
                if steps.interrupted:
                    _end_tasks(loop, asyncio.all_tasks(loop) - before)

        return run

    def error(self) -> SoftTimeout:
        """What is raised."""
        return SoftTimeout(f"the job ran longer than its soft timeout soft_timeout_s={self._after_s:g}")

    def interrupted(self) -> None:
        """The current attempt is being interrupted: this once."""
        self._attempt = None

    # ----------------------------------------------------------------------------------------- the timer and its signal

    def _time(self) -> None:
        leave_signals_to_main_thread()
        while True:
            time.sleep(self._look())

    def _look(self) -> float:
        """Send the signal if it is time; seconds until the next look, within which no other attempt can be due."""
        attempt = self._attempt
        if attempt is None:
            return self._after_s
        left_ns = attempt.deadline_ns - clock.boot_ns()
        if left_ns > 0:
            return left_ns / _NS_PER_S
        attempt.due = True
        pause_s, attempt.again_s = attempt.again_s, min(2 * attempt.again_s, _LONGEST_AGAIN_S)
        signal.pthread_kill(_main_thread_id(), SIGNAL)
        return min(pause_s, self._after_s)

    def _interrupt(self, signum: int, frame: FrameType | None) -> None:
        attempt = self._attempt
        if attempt is None or not attempt.due:
            return
        caller = _caller_of_untouched(frame)
        steps = attempt.steps
        if steps is not None and not _runs_handler(caller or frame):
            self._coroutines.loop().call_soon_threadsafe(self._ask, attempt, steps)
        elif caller is None:
            self._raise(attempt)
        elif sys.gettrace() in (None, self._trace):  # a debugger's is left alone: the timer asks again
            caller.f_trace = self._trace
            sys.settrace(self._trace)

    def _raise(self, attempt: _Attempt) -> Never:
        self.interrupted()
        if attempt.steps is not None:
            attempt.steps.interrupted = True
        raise self.error()

    def _trace(self, frame: FrameType, event: str, _: Any) -> Callable[..., Any] | None:
        """Called at each line of the frames that are to be interrupted when they go on, and as they end."""
        attempt = self._attempt
        if attempt is None or not attempt.due:
            sys.settrace(None)
            return None
        if event == "call":
            return None
        if event == "line":
            sys.settrace(None)
            self._raise(attempt)
        if event == "return":
            self._trace_caller(frame.f_back)
        return self._trace

    def _trace_caller(self, frame: FrameType | None) -> None:
        if frame is None or _is_own_or_asyncio(frame):
            sys.settrace(None)  # the handler's code has ended or waits
        else:
            frame.f_trace = self._trace

    def _ask(self, attempt: _Attempt, steps: _Steps) -> None:
        if attempt is self._attempt:
            steps.ask()


class _Steps(Coroutine[Any, Any, Any]):
    """A handler's coroutine. To interrupt it while it waits its task is cancelled, which becomes `SoftTimeout` here."""

    def __init__(self, coroutine: Coroutine[Any, Any, Any], timeouts: SoftTimeouts) -> None:
        self._coroutine = coroutine
        self._timeouts = timeouts
        self._asked = False
        self.task: asyncio.Task[Any] | None = None
        self.interrupted = False

    def ask(self) -> None:
        """Have it interrupted at its next step, and have that come soon."""
        if not self._asked and self.task is not None:
            self._asked = self.task.cancel()

    def send(self, value: Any) -> Any:
        if self._asked:
            return self._throw_timeout()  # what it waited for has swallowed the cancellation
        return self._coroutine.send(value)

    def throw(self, *error: Any) -> Any:
        if self._asked:
            if isinstance(error[0], asyncio.CancelledError):
                return self._throw_timeout()
            self._withdraw()  # the timer asks again
        return self._coroutine.throw(*error)

    def close(self) -> None:
        self._coroutine.close()

    def __await__(self) -> Generator[Any, Any, Any]:
        return self._coroutine.__await__()

    def __getattr__(self, name: str) -> Any:
        # Names, frames and code, by which the loop describes its tasks.
        return getattr(self._coroutine, name)

    def _throw_timeout(self) -> Any:
        self._withdraw()
        self._timeouts.interrupted()
        self.interrupted = True
        return self._coroutine.throw(self._timeouts.error())

    def _withdraw(self) -> None:
        assert self.task is not None
        self._asked = False
        self.task.uncancel()


_STEPS = frozenset(step.__code__ for step in (_Steps.send, _Steps.throw, _Steps.close, _Steps._throw_timeout))
_OWN_FILE = _Steps.send.__code__.co_filename


def _runs_handler(frame: FrameType | None) -> bool:
    """Whether this is the code of a coroutine that takes a step now: neither ours nor the event loop's."""
    if frame is None or _is_own_or_asyncio(frame):
        return False
    while frame is not None:
        if frame.f_code in _STEPS:
            return True
        frame = frame.f_back
    return False


def _caller_of_untouched(frame: FrameType | None) -> FrameType | None:
    """The frame that called what must not be interrupted; None if this is no such code, nor called by it."""
    caller = None
    while frame is not None:
        if frame.f_code.co_name == "__del__" or frame.f_globals.get("__name__") in _UNTOUCHED:
            caller = frame.f_back
        frame = frame.f_back
    return caller


def _is_own_or_asyncio(frame: FrameType) -> bool:
    module = str(frame.f_globals.get("__name__"))
    return frame.f_code.co_filename == _OWN_FILE or module.startswith("asyncio.")


def _first_of(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _end_tasks(loop: asyncio.AbstractEventLoop, tasks: set[asyncio.Task[Any]]) -> None:
    """Cancel what an interrupted coroutine has left in the loop, as `asyncio.run` does: it is not the next job's."""
    for task in tasks:
        task.cancel()
    if tasks:
        loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))


def _main_thread_id() -> int:
    identity = threading.main_thread().ident
    assert identity is not None
    return identity
