"""How a command reaches a queue: through the broker that has it open, or through one of its own.

    connect ─▶ somebody serves broker.sock? ── yes ─▶ joined
                  ▲        │ no
                  └── open the queue here ─▶ our own broker serves broker.sock

Rules:
* A command has one session from start to end. Brokers may come and go under it: it says again what was not answered,
  and each operation happens once.
* Whenever there is no connection, joining and opening go on side by side, so commands that run at once take turns.
* A lock that one process holds for as long as an opening waits, without serving, ends a command; so does
  `GIVE_UP_MS`. One that works on for days (``stays``) waits, and leaves a broker that it had joined `RETURN_MS` to be
  started again.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import os
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Protocol, TypeVar

from osqueue import clock
from osqueue.cli.exit_status import CannotOpen, unopened
from osqueue.core.messages import Stats
from osqueue.embedded import Broker
from osqueue.errors import OsqueueError, QueueLocked
from osqueue.pool.broker_child import BrokerStart
from osqueue.pool.broker_process import BrokerProcess
from osqueue.storage import ROOT_KEY, StorageError
from osqueue.storage.files import OsFiles
from osqueue.storage.lock import read_note
from osqueue.transport.connector import ProtocolFactory
from osqueue.transport.unix import SOCKET_NAME, UnixConnector, connect_unix

_log = logging.getLogger("osqueue")

GIVE_UP_MS = 20_000
RETURN_MS = 5_000
_POLL_S = 0.01
_LEAVE_S = 1.0

R = TypeVar("R")


class Opening(Protocol):
    """An attempt to open a queue, under way or over."""

    def done(self) -> bool: ...

    def exception(self) -> BaseException | None:
        """Of one that is done: what kept the queue from being opened; None if it was."""


class Opener(Protocol):
    """Opens a queue with a broker of this command's own. Used in the client's loop; nothing here waits."""

    def begin(self) -> Opening:
        """Begin to open it."""

    def failure(self) -> Exception | None:
        """Why a broker that had opened it cannot go on; None while it can, or as far as is known."""


class ThreadOpener:
    """A broker in a thread of this process, for commands that end soon.

    Args:
        directory: the queue's directory, absolute.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._opening: concurrent.futures.Future[Broker] | None = None
        self._asked: concurrent.futures.Future[Stats] | None = None

    def begin(self) -> Opening:
        """See `Opener`."""
        self._opening = _in_thread(lambda: Broker.open(self._directory))
        return self._opening

    def failure(self) -> Exception | None:
        """See `Opener`: a question that it cannot answer tells."""
        assert self._opening is not None, "begun before it can fail"
        if self._asked is None:
            self._asked = _in_thread(self._opening.result().stats)
        elif self._asked.done():
            asked, self._asked = self._asked, None
            error = asked.exception()
            return error if isinstance(error, Exception) else None
        return None

    def end(self) -> None:
        """Close the broker, if there is one. For the command's thread, after the client has left."""
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


class ProcessOpener:
    """A broker process, for a command that works for long; started again when it dies.

    Args:
        start: what it opens.
    """

    def __init__(self, start: BrokerStart) -> None:
        self._process = BrokerProcess(start, [], self._failed)
        self._error: OsqueueError | None = None

    def begin(self) -> Opening:
        """See `Opener`."""
        self._error = None
        opening = asyncio.get_running_loop().create_task(self._process.open())
        opening.add_done_callback(_note_outcome)
        return opening

    def failure(self) -> Exception | None:
        """See `Opener`."""
        return self._error

    async def stop(self) -> None:
        """End the process in good order, if there is one."""
        await self._process.stop()

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()

    def _failed(self, error: OsqueueError) -> None:
        self._error = error


class JoinOrOpen:
    """Connections to whichever broker has a directory open, our own if nobody else has. For the client's loop.

    Args:
        directory: the queue's directory, absolute.
        opener: opens it if nobody has.
        stays: once it has been connected, it waits for as long as it takes.
    """

    def __init__(self, directory: Path, opener: Opener, *, stays: bool = False) -> None:
        self._directory = directory
        self._opener = opener
        self._stays = stays
        self._by_path = UnixConnector(directory)
        self._opening: Opening | None = None
        self._holder: int | None = None
        """Who held the lock when the opening began."""
        self._was_served = False
        self._waits_for: int | None = None
        """Of whose lock it was said that it is waited for."""

    async def connect(self, factory: ProtocolFactory) -> None:
        """See `osqueue.transport.connector.Connector`.

        Raises:
            CannotOpen: nobody serves the queue, and it cannot be opened here.
            StoreFailed: the store failed or is full.
            OsqueueError: our own broker cannot go on.
        """
        await self._until_served(lambda: self._by_path.connect(factory))

    async def reach(self) -> None:
        """Return when somebody serves the queue. Raises as `connect`."""
        await self._until_served(self._touch)

    def close(self) -> None:
        """See `osqueue.transport.connector.Connector`."""
        self._by_path.close()

    # ---------------------------------------------------------------------------------------------------------- private

    async def _touch(self) -> None:
        connect_unix(self._directory).close()

    async def _until_served(self, attempt: Callable[[], Awaitable[None]]) -> None:
        since_ms = clock.boot_ms()
        self._forget_old()
        while True:
            with suppress(OSError):  # nobody serves it at this moment
                await attempt()
                self._was_served = True
                self._waits_for = None
                return
            waited_ms = clock.boot_ms() - since_ms
            if not self._may_return(waited_ms):
                self._go_on_opening(late=waited_ms >= GIVE_UP_MS)
            await asyncio.sleep(_POLL_S)

    def _forget_old(self) -> None:
        """A connection has been lost: what became of an opening before that one says nothing of now."""
        if self._opening is not None and self._opening.done():
            failed = self._opening.exception() is not None or isinstance(self._opener.failure(), QueueLocked)
            self._opening = None if failed else self._opening

    def _may_return(self, waited_ms: int) -> bool:
        """Whether the broker is another's, and whoever runs it may be starting it again."""
        return self._stays and self._was_served and self._opening is None and waited_ms < RETURN_MS

    def _go_on_opening(self, *, late: bool) -> None:
        """See what has become of the opening; begin one when none is on its way."""
        if self._opening is None:
            self._begin_opening()
        elif self._opening.done():
            self._look_at_opened(self._opening, late=late)

    def _begin_opening(self) -> None:
        if self._was_served and not (self._directory / ROOT_KEY).exists():
            raise CannotOpen(f"the queue has been removed path={self._directory}")
        self._holder = _holder(self._directory)
        self._opening = self._opener.begin()

    def _look_at_opened(self, opening: Opening, *, late: bool) -> None:
        error = opening.exception()
        if error is None:
            self._look_after(late=late)
        elif isinstance(error, QueueLocked):
            self._look_at_locked(error, late=late)
        elif isinstance(error, OsqueueError | ValueError | OSError):
            raise unopened(error, self._directory) from error
        else:
            raise error

    def _look_at_locked(self, error: QueueLocked, *, late: bool) -> None:
        if late or error.pid in (None, self._holder):
            if not (self._stays and self._was_served):
                raise CannotOpen(_locked(error, self._directory)) from error
            if self._waits_for != error.pid:
                self._waits_for = error.pid
                _log.warning("%s", _locked(error, self._directory))
        self._begin_opening()

    def _look_after(self, *, late: bool) -> None:
        """Our own broker has not accepted a connection: if that is because it has ended, it says why."""
        error = self._opener.failure()
        if isinstance(error, QueueLocked):
            self._begin_opening()  # another one was quicker when ours had to be started again
        elif error is not None:
            raise unopened(error, self._directory) if isinstance(error, StorageError) else error
        elif late:
            raise CannotOpen(f"the queue's socket leads to nobody path={self._directory / SOCKET_NAME}")


def _note_outcome(opening: asyncio.Task[None]) -> None:
    """Look at it, in case nobody else does: somebody was quicker to serve the queue."""
    if not opening.cancelled():
        opening.exception()


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
