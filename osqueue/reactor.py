"""One event loop in a daemon thread, which any thread may hand work to.

    any thread ──call, run──▶ inbox ──one wake-up──▶ the loop's thread

Rules:
* A burst of calls wakes the loop once.
* No executor anywhere: those refuse work while the interpreter ends, which is when a pool must still stop.
* A process that the user forks shares our descriptors, not our thread: there they are closed, and every call raises.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import os
import selectors
import threading
import weakref
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, Protocol, TypeVar, TypeVarTuple

_log = logging.getLogger("osqueue")

_LAST_TURNS = 2
_CLOSED = "this queue connection has been closed"

R = TypeVar("R")
Args = TypeVarTuple("Args")


_Made = tuple[asyncio.AbstractEventLoop, selectors.BaseSelector]


class Closable(Protocol):
    """Something that holds a descriptor."""

    def close(self) -> None:
        """Close the descriptor; twice is harmless."""


class LoopThread:
    """An event loop in a thread of its own. All methods may be called from any thread.

    Args:
        name: the thread's name.
    """

    def __init__(self, name: str = "osqueue") -> None:
        self._inbox: deque[tuple[Callable[..., object], tuple[Any, ...]]] = deque()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._woken = False
        self._ended = False
        self._forked = False
        made: concurrent.futures.Future[_Made] = concurrent.futures.Future()
        self._thread = threading.Thread(target=self._run, args=(made,), name=name, daemon=True)
        self._thread.start()
        self.loop, self._selector = made.result()
        _threads.add(self)

    def call(self, function: Callable[[*Args], object], *args: *Args) -> None:
        """Have ``function(*args)`` called in the loop's thread, after whatever was handed in before.

        Raises:
            RuntimeError: the loop has been stopped, or belongs to the process that forked this one.
        """
        self.refuse_forked()
        self._inbox.append((function, args))
        if self._ended:
            # After this was set the inbox is emptied once more: what was too late for that is refused here.
            raise RuntimeError(_CLOSED)
        if self._woken:
            return
        try:
            self._woken = True
            self.loop.call_soon_threadsafe(self._drain)
        except RuntimeError as error:
            raise RuntimeError(_CLOSED) from error
        except BaseException:
            self._woken = False  # Ctrl-C: the loop may still sleep, and the next call is to wake it
            raise

    def run(self, function: Callable[[*Args], Coroutine[Any, Any, R]], *args: *Args) -> concurrent.futures.Future[R]:
        """Run the coroutine ``function(*args)`` in the loop; the future has its result.

        It is made in the loop's thread: Ctrl-C in the caller's leaves none that nobody awaits.

        Raises:
            RuntimeError: as `call`.
        """
        future: concurrent.futures.Future[R] = concurrent.futures.Future()
        self.call(self._begin, lambda: function(*args), future)
        return future

    def stop(self, timeout_s: float = 5.0) -> None:
        """End the loop and its thread; what was handed in before still runs. Not from the loop's own thread."""
        if self._forked or self.loop.is_closed():
            return
        try:
            self.call(self.loop.stop)
        except RuntimeError:
            return
        self._thread.join(timeout_s)

    @property
    def stopped(self) -> bool:
        """Whether the loop takes no more work."""
        return self._forked or not self._thread.is_alive()

    def in_thread(self) -> bool:
        """Whether the caller is the loop's own thread, which must not wait."""
        return threading.current_thread() is self._thread

    @property
    def forked(self) -> bool:
        """Whether this process was forked from the one whose loop it is."""
        return self._forked

    def refuse_forked(self) -> None:
        """Raises `RuntimeError` in a process that was forked from the one whose loop it is."""
        if self._forked:
            raise RuntimeError("this osqueue object belongs to the parent of this forked process; make a new one here")

    # ---------------------------------------------------------------------------------------------------------- private

    def _begin(self, make: Callable[[], Coroutine[Any, Any, R]], future: concurrent.futures.Future[R]) -> None:
        task = self.loop.create_task(make())
        self._tasks.add(task)
        task.add_done_callback(lambda task: self._tell(task, future))

    def _tell(self, task: asyncio.Task[R], future: concurrent.futures.Future[R]) -> None:
        self._tasks.discard(task)
        if task.cancelled():
            future.set_exception(RuntimeError(_CLOSED))
        elif (error := task.exception()) is not None:
            future.set_exception(error)
        else:
            future.set_result(task.result())

    def _run(self, made: concurrent.futures.Future[_Made]) -> None:
        # Made here, since Ctrl-C is raised in the main thread, and a loop that is half made cannot even be deleted.
        try:
            selector = _Selector()
            loop = asyncio.SelectorEventLoop(selector)
        except BaseException as error:  # noqa: BLE001 - raised by whoever waits for the loop
            made.set_exception(error)
            return
        asyncio.set_event_loop(loop)
        made.set_result((loop, selector))
        try:
            loop.run_forever()
        finally:
            self._finish(loop)

    def _finish(self, loop: asyncio.AbstractEventLoop) -> None:
        self._ended = True
        self._drain()
        tasks = asyncio.all_tasks(loop)
        for task in tasks:
            task.cancel()
        if tasks:
            loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        for _ in range(_LAST_TURNS):  # transports that were aborted close their sockets in a turn of their own
            loop.run_until_complete(asyncio.sleep(0))
        loop.close()

    def _drain(self) -> None:
        self._woken = False
        inbox = self._inbox
        for _ in range(len(inbox)):
            function, args = inbox.popleft()
            try:
                function(*args)
            except Exception:  # noqa: BLE001
                # A callback's failure must not take those behind it along; whoever waits has a deadline of its own.
                _log.exception("callback failed function=%r", function)

    def _abandon(self) -> None:
        """In a forked child: the thread is not here, so nothing will ever run."""
        self._forked = True
        self._selector.close()


class _Selector(selectors.DefaultSelector):
    """A selector that knows nothing any more once it is closed.

    In a forked child it is closed below its loop, whose transports ask it for themselves as they are deleted.
    """

    def get_key(self, fileobj: Any) -> selectors.SelectorKey:
        try:
            return super().get_key(fileobj)
        except RuntimeError:
            raise KeyError(fileobj) from None


_threads: weakref.WeakSet[LoopThread] = weakref.WeakSet()
_shared: weakref.WeakSet[Closable] = weakref.WeakSet()


def close_after_fork(resource: Closable) -> None:
    """Have a descriptor's owner closed in every child that the user forks, so that its peer still sees our end."""
    _shared.add(resource)


def _in_forked_child() -> None:
    for thread in list(_threads):
        thread._abandon()
    for resource in list(_shared):
        try:
            resource.close()
        except OSError:
            # Closed already; a descriptor has no other way to be lost here.
            continue


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_forked_child)
