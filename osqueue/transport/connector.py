"""How a client gets a connection to its broker, and the next one after a loss."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Protocol

from osqueue.errors import OsqueueError
from osqueue.reactor import close_after_fork

_FED_WITHIN_S = 1.0

ProtocolFactory = Callable[[], asyncio.Protocol]


class Connector(Protocol):
    """Makes connections to one queue's broker, whichever process that is by now. Used in one loop's thread."""

    async def connect(self, factory: ProtocolFactory) -> None:
        """Make a connection and give it to the protocol that ``factory`` makes.

        Raises:
            OSError: not now; try again later.
            OsqueueError: there will never be a connection again; this is what to tell whoever waits.
        """

    def close(self) -> None:
        """No more connections; one being waited for is given up."""


class SocketPairConnector:
    """Connections over socket pairs, fed by whoever starts the broker. Used in one loop's thread.

    Args:
        fallback: how to reach a broker that lives on when it, or its client, has ended the pair's connection.
    """

    def __init__(self, fallback: Connector | None = None) -> None:
        self._fallback = fallback
        self._next: asyncio.Future[socket.socket] | None = None
        self._ready: socket.socket | None = None
        self._error: OsqueueError | None = None

    def feed(self, sock: socket.socket) -> None:
        """The broker, perhaps a new one, serves the other end of ``sock``."""
        sock.settimeout(0)
        close_after_fork(sock)
        if self._next is not None and not self._next.done():
            self._next.set_result(sock)
            return
        if self._ready is not None:
            self._ready.close()
        self._ready = sock

    def fail(self, error: OsqueueError) -> None:
        """There will be no broker any more."""
        self._error = error
        if self._next is not None and not self._next.done():
            self._next.set_exception(error)

    async def connect(self, factory: ProtocolFactory) -> None:
        """See `Connector`; waits for the next socket that is fed."""
        if self._ready is None:
            if self._error is not None:
                raise self._error
            self._next = asyncio.get_running_loop().create_future()
            try:
                self._ready = await asyncio.wait_for(self._next, None if self._fallback is None else _FED_WITHIN_S)
            except TimeoutError:
                assert self._fallback is not None, "only then is there a limit"
                await self._fallback.connect(factory)
                return
        sock, self._ready = self._ready, None
        await asyncio.get_running_loop().create_connection(factory, sock=sock)

    def close(self) -> None:
        """See `Connector`."""
        if self._ready is not None:
            self._ready.close()
            self._ready = None
        if self._next is not None:
            self._next.cancel()
