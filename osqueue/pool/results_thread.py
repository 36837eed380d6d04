"""The thread that settles futures, so that neither decoding nor a callback of the user's holds the loop's thread up."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable

_log = logging.getLogger("osqueue")


class ResultsThread:
    """Calls what it is handed, in order, in a daemon thread of its own. Any thread may hand in."""

    def __init__(self) -> None:
        self._inbox: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="osqueue-results", daemon=True)
        self._thread.start()

    def call(self, function: Callable[[], None]) -> None:
        """Have ``function`` called after whatever was handed in before."""
        self._inbox.put(function)

    def call_each(self, functions: list[Callable[[], None]]) -> None:
        """Have them called one after the other, with one wake-up of the thread; the failure of one is its own."""
        self._inbox.put(lambda: _call_all(functions))

    def refuse_wait(self) -> None:
        """Raises `RuntimeError` in the thread itself: what it waits for there could never be told."""
        if threading.current_thread() is self._thread:
            raise RuntimeError(
                "a future's callback cannot wait for another job of its pool, whose end would be told in this very "
                "thread: give that one a callback too, or wait in a thread of your own"
            )

    def stop(self, timeout_s: float) -> None:
        """End the thread when what was handed in has been called; nothing is waited for in the thread itself."""
        self._inbox.put(None)
        if threading.current_thread() is not self._thread:
            self._thread.join(timeout_s)

    def _run(self) -> None:
        while (function := self._inbox.get()) is not None:
            _call_all([function])


def _call_all(functions: list[Callable[[], None]]) -> None:
    for function in functions:
        try:
            function()
        except BaseException:  # noqa: BLE001  a callback's SystemExit, too, must not keep other futures waiting
            _log.exception("a future's callback failed, or it could not be settled")
