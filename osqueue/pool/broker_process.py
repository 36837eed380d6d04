"""A pool's broker: one process after another, as they die; `osqueue.pool.broker_child` is each of them.

    open ─▶ Start ─▶ Started ─▶ sockets to the connectors ─▶ pings ─┬─ stop ───────────▶ ended
              ▲                                                     ├─ Failed ─▶ that error, for everybody
              └───────────────── at once ◀──────────────────────────┴─ death, or silence and SIGKILL

Rules:
* Everything runs in the loop's thread.
* A broker that dies is started again at once, except the fifth time in 30 seconds: something kills them all.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol

from osqueue import clock
from osqueue.client.refusal import named_error
from osqueue.errors import OsqueueError, PoolBroken
from osqueue.pool.broker_child import BrokerChild, BrokerStart, start_child
from osqueue.storage import ReadFailed, StorageError, StorageLost, WriteFailed, WriteUnknown
from osqueue.transport.connector import Connector, SocketPairConnector
from osqueue.transport.control import Failed

_log = logging.getLogger("osqueue")

DEATHS = 5
DEATHS_WITHIN_MS = 30_000
STOP_S = 30.0
_STORAGE_ERRORS = {"read_failed": ReadFailed, "write_failed": WriteFailed, "write_unknown": WriteUnknown}


class Broker(Protocol):
    """What an engine needs of its broker. All methods are for the loop's thread."""

    @property
    def connectors(self) -> Sequence[Connector]:
        """Ways to it: the client's, and the supervisor's."""

    async def open(self) -> None:
        """Return when the queue is open.

        Raises:
            OsqueueError, ValueError: it cannot be opened.
        """

    async def stop(self) -> None:
        """Leave the queue in good order, once nobody here is connected to it."""

    def kill(self) -> None:
        """Leave it at once."""


class BrokerProcess:
    """The broker of one pool, a `Broker`. All methods are for the loop's thread.

    Args:
        start: what it opens.
        connectors: who talks to it; fed anew whenever it is started.
        on_broken: told once, if it can no longer be started.
    """

    def __init__(
        self,
        start: BrokerStart,
        connectors: Sequence[SocketPairConnector],
        on_broken: Callable[[OsqueueError], None],
    ) -> None:
        self._start = start
        self.connectors = connectors
        self._on_broken = on_broken
        self._deaths_ms: deque[int] = deque(maxlen=DEATHS)
        self._child: BrokerChild | None = None
        self._watching: asyncio.Task[None] | None = None
        self._stopping = False

    @property
    def pid(self) -> int | None:
        """The process id of the one that runs now."""
        return None if self._child is None else self._child.pid

    async def open(self) -> None:
        """Start it, and have it open the queue; again, if it could not go on.

        Raises:
            OsqueueError, ValueError: the queue cannot be opened; what the broker said.
            PoolBroken: it dies whenever it is started.
        """
        self._watching = None
        child = await self._started()
        self._watching = asyncio.get_running_loop().create_task(self._watch(child))

    async def stop(self) -> None:
        """End it in good order: what it has applied is durable, and the queue is closed."""
        self._stopping = True
        if self._child is None:
            return
        if self._watching is None:
            # It has not opened the queue yet.
            self._child.kill()
            await self._child.ended()
            return
        self._child.stop()
        try:
            await asyncio.wait_for(asyncio.shield(self._watching), STOP_S)
        except TimeoutError:
            _log.warning("broker does not end, killing it pid=%d", self._child.pid)
            self._child.kill()
            await self._watching

    def kill(self) -> None:
        """End it at once, and start no other."""
        self._stopping = True
        if self._child is not None:
            self._child.kill()

    # ---------------------------------------------------------------------------------------------------------- private

    async def _watch(self, child: BrokerChild) -> None:
        while True:
            status = await child.ended()
            if self._stopping:
                return
            _log.warning("broker ended, starting another pid=%d %s", child.pid, _described(status))
            try:
                if child.failed is not None:
                    raise _failure(child.failed)
                self._count_death(status)
                child = await self._started()
            except Exception as error:  # noqa: BLE001  whatever it is, everybody who waits is told
                self._broken(error)
                return

    async def _started(self) -> BrokerChild:
        """A broker that has opened the queue; the connectors have its sockets."""
        while True:
            child = self._child = start_child(self._start, len(self.connectors))
            started = await child.opened()
            if started is not None:
                break
            status = await child.ended()
            for sock in child.clients:
                sock.close()
            if child.failed is not None:
                raise _failure(child.failed)
            self._count_death(status)
        _log.debug("broker started pid=%d epoch=%d", child.pid, started.epoch)
        for connector, sock in zip(self.connectors, child.clients, strict=True):
            connector.feed(sock)
        child.ping()
        return child

    def _count_death(self, status: int) -> None:
        now_ms = clock.boot_ms()
        self._deaths_ms.append(now_ms)
        if self._stopping:
            raise PoolBroken("the pool has been stopped")
        if len(self._deaths_ms) == DEATHS and now_ms - self._deaths_ms[0] < DEATHS_WITHIN_MS:
            raise PoolBroken(f"the queue's broker has died {DEATHS} times in a row, the last time {_described(status)}")

    def _broken(self, error: Exception) -> None:
        told = error if isinstance(error, OsqueueError) else PoolBroken(f"the queue's broker cannot go on: {error}")
        if isinstance(told, StorageError):
            told = StorageLost.to(told)
        for connector in self.connectors:
            connector.fail(told)
        with contextlib.suppress(RuntimeError):  # the loop may be ending
            self._on_broken(told)


def _failure(failed: Failed) -> Exception:
    kind = _STORAGE_ERRORS.get(failed.code)
    error = named_error(failed.code, failed.message) if kind is None else kind(failed.message)
    for name in ("pid", "host", "key", "errno"):
        value = getattr(failed, name)
        if value is not None:
            setattr(error, name, value)
    return error


def _described(status: int) -> str:
    if status >= 0:
        return f"exit_status={status}"
    try:
        return f"signal={signal.Signals(-status).name}"
    except ValueError:
        return f"signal={-status}"
