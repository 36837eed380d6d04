"""How a command reaches a queue: through the broker that has it open, or through one of its own.

    connect ─▶ somebody serves broker.sock? ── yes ─▶ joined
                  ▲        │ no
                  └── open the queue here, in a thread ─▶ our own broker serves broker.sock

Rules:
* A command has one `Client` from start to end. Brokers may come and go under it: its session says again what was not
  answered, and each operation happens once.
* Whenever there is no connection, joining and opening go on side by side, so commands that run at once take turns.
* A lock that one process holds for as long as an opening waits, without serving, ends it; so does `GIVE_UP_MS`.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from osqueue import clock
from osqueue.cli.exit_status import CannotOpen
from osqueue.core.messages import Stats
from osqueue.embedded import Broker
from osqueue.errors import OsqueueError, QueueLocked
from osqueue.storage.files import OsFiles
from osqueue.storage.lock import read_note
from osqueue.transport.connector import ProtocolFactory
from osqueue.transport.unix import SOCKET_NAME, UnixConnector

GIVE_UP_MS = 20_000
_POLL_S = 0.01
_LEAVE_S = 1.0

R = TypeVar("R")


class JoinOrOpen:
    """Connections to whichever broker has a directory open, our own if nobody else has.

    `connect` and `close` are for the client's loop; `end` is for the command's thread, after the client has left.

    Args:
        directory: the queue's directory, absolute.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._by_path = UnixConnector(directory)
        self._opening: concurrent.futures.Future[Broker] | None = None
        self._asked: concurrent.futures.Future[Stats] | None = None
        self._holder: int | None = None
        """Who held the lock when the opening began."""

    async def connect(self, factory: ProtocolFactory) -> None:
        """See `osqueue.transport.connector.Connector`.

        Raises:
            CannotOpen: nobody serves the queue, and it cannot be opened here.
            OsqueueError: our own broker cannot go on.
        """
        give_up_ms = clock.boot_ms() + GIVE_UP_MS
        while True:
            with suppress(OSError):  # nobody serves it at this moment
                await self._by_path.connect(factory)
                return
            self._go_on_opening(give_up_ms)
            await asyncio.sleep(_POLL_S)

    def close(self) -> None:
        """See `osqueue.transport.connector.Connector`."""
        self._by_path.close()

    def end(self) -> None:
        """Close our own broker, if there is one."""
        opening, self._opening = self._opening, None
        if opening is None:
            return
        try:
            broker = opening.result(_LEAVE_S)
        except TimeoutError:
            opening.add_done_callback(_close_opened)  # it waits for the lock, and ends with this process
        except Exception:  # noqa: BLE001  it was not opened: whoever waited has been told why
            return
        else:
            broker.close()

    # ---------------------------------------------------------------------------------------------------------- private

    def _go_on_opening(self, give_up_ms: int) -> None:
        """See what has become of the opening; begin one when none is on its way."""
        late = clock.boot_ms() >= give_up_ms
        if self._opening is None:
            self._begin_opening()
        elif self._opening.done():
            self._look_at_opened(self._opening, late=late)

    def _begin_opening(self) -> None:
        self._holder = _holder(self._directory)
        self._opening = _in_thread(lambda: Broker.open(self._directory))

    def _look_at_opened(self, opening: concurrent.futures.Future[Broker], *, late: bool) -> None:
        try:
            broker = opening.result()
        except QueueLocked as error:
            if late or error.pid in (None, self._holder):
                raise CannotOpen(_locked(error, self._directory)) from error
            self._begin_opening()
        except (OsqueueError, ValueError, OSError) as error:
            raise CannotOpen(str(error)) from error
        else:
            self._look_after(broker)
            if late:
                raise CannotOpen(f"the queue's socket leads to nobody path={self._directory / SOCKET_NAME}")

    def _look_after(self, broker: Broker) -> None:
        """Our own broker has not accepted a connection: if that is because it has ended, it says why."""
        if self._asked is None:
            self._asked = _in_thread(broker.stats)
        elif self._asked.done():
            asked, self._asked = self._asked, None
            asked.result()


def _in_thread(function: Callable[[], R]) -> concurrent.futures.Future[R]:
    """Call a function that blocks in a daemon thread: an interrupted command does not wait for it."""
    future: concurrent.futures.Future[R] = concurrent.futures.Future()

    def run() -> None:
        try:
            future.set_result(function())
        except BaseException as error:  # noqa: BLE001  raised by whoever asks for the result
            future.set_exception(error)

    threading.Thread(target=run, name="osqueue-open", daemon=True).start()
    return future


def _close_opened(opening: concurrent.futures.Future[Broker]) -> None:
    if opening.exception() is None:
        opening.result().close()


def _holder(directory: Path) -> int | None:
    """The process that last took the queue's lock, if that can be read."""
    try:
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return None  # it is still to be made
    try:
        note = read_note(OsFiles(), descriptor)
    finally:
        os.close(descriptor)
    return None if note is None else note.pid


def _locked(error: QueueLocked, directory: Path) -> str:
    return (
        "the queue is open in another process, which does not serve it: end that process, or wait until it ends: "
        f"path={directory} pid={error.pid} host={error.host}"
    )
