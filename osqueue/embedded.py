"""A broker inside the caller's process: the same server, in one loop with the client that talks to it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from pathlib import Path
from typing import Self

from osqueue.broker.takeover import take_over
from osqueue.broker_server import BrokerServer
from osqueue.client.client import Client
from osqueue.client.connection import Connection
from osqueue.client.face import open_connection
from osqueue.core.settings import KIB, MIB
from osqueue.errors import OsqueueError
from osqueue.held import HeldDirectory
from osqueue.reactor import LoopThread, close_after_fork
from osqueue.settings import broker_identity, queue_settings
from osqueue.storage import Storage, StorageError, StorageLost, open_directory
from osqueue.transport.connector import ProtocolFactory


class ToOwnServer:
    """Connections to a server in the same loop; as many as are needed, one after the other."""

    def __init__(self) -> None:
        self.server: BrokerServer | None = None
        self._error: OsqueueError | None = None

    def fail(self, error: OsqueueError) -> None:
        """The server has ended."""
        self._error = error

    async def connect(self, factory: ProtocolFactory) -> None:
        """See `osqueue.transport.connector.Connector`."""
        if self._error is not None:
            raise self._error
        assert self.server is not None, "started before it is connected to"
        ours, theirs = socket.socketpair()
        for sock in (ours, theirs):
            sock.settimeout(0)
            close_after_fork(sock)
        await self.server.serve(theirs)
        await asyncio.get_running_loop().create_connection(factory, sock=ours)

    def close(self) -> None:
        """See `osqueue.transport.connector.Connector`: nothing is kept between connections."""


class Broker(Client):
    """A queue that this process has open: a `Client` whose broker is its own. Made by `open`."""

    def __init__(
        self,
        reactor: LoopThread,
        connection: Connection,
        storage: Storage,
        server: BrokerServer,
        held: HeldDirectory | None,
    ) -> None:
        super().__init__(reactor, connection)
        self._storage = storage
        self._server = server
        self._held = held
        if held is not None:
            held.hold()

    @classmethod
    def open(
        cls,
        where: str | os.PathLike[str] | Storage,
        *,
        max_attempts: int = 4,
        retry_backoff: float = 1.0,
        retry_backoff_max: float = 600.0,
        retry_jitter: bool = True,
        lease: float = 30.0,
        identity: str | None = None,
        max_queued: int | None = None,
        max_payload: int = 4 * MIB - 64 * KIB,
    ) -> Self:
        """Open a queue, making it if it is new.

        Args:
            where: a directory, or any `osqueue.storage.Storage`; the broker closes it in the end.
            max_attempts: runs until a job is dead.
            retry_backoff, retry_backoff_max, retry_jitter: the delay after a failed attempt, see `LocalPool`.
            lease: seconds after which a silent holder of a claim loses its jobs.
            identity: the name, of 1 to 64 bytes, that stands for this broker in the root and its log of takeovers;
                None for a random one.
            max_queued: how many jobs may wait, ready or delayed; above it `push` raises `QueueFull`, and `push_many`
                waits. None for as many as there is room for.
            max_payload: largest payload in bytes.

        Raises:
            QueueLocked: another process has it open, or this one in another broker or pool; join it with
                `Client.connect`.
            AccessDenied: the directory is another user's, or cannot be written.
            Corrupt: its root is damaged.
            ValueError: the path is a file or a directory of something else, or an argument is out of bounds.
        """
        settings = queue_settings(
            max_attempts=max_attempts,
            retry_backoff=retry_backoff,
            retry_backoff_max=retry_backoff_max,
            retry_jitter=retry_jitter,
            lease=lease,
            max_queued=max_queued,
            max_payload=max_payload,
        )
        name = broker_identity(identity)
        directory = _absolute(where) if isinstance(where, str | os.PathLike) else ""
        held = HeldDirectory(Path(directory), "another Broker") if directory else None
        if held is not None:
            held.refuse_second()
        storage: Storage = open_directory(directory) if isinstance(where, str | os.PathLike) else _storage(where)
        try:
            taken = take_over(storage, settings, identity=name)
        except BaseException:
            storage.close()
            raise
        reactor = LoopThread("osqueue-broker")
        connector = ToOwnServer()
        connection = open_connection(reactor, connector)

        async def start() -> BrokerServer:
            loop = asyncio.get_running_loop()
            server = BrokerServer(
                loop, storage, taken, directory=directory, on_fatal=lambda error: connector.fail(_told(error))
            )
            server.start()
            if directory:
                try:
                    await server.listen(directory)
                except OSError:
                    server.stop()
                    await server.stopped
                    raise
            connector.server = server
            await connection.start()
            return server

        try:
            server = reactor.run(start).result()
        except BaseException:
            reactor.stop()
            storage.close()
            raise
        return cls(reactor, connection, storage, server, held)

    def close(self) -> None:
        """Close the queue: what was acknowledged is durable, finished jobs are in the archive, the lock is free."""
        face = self._face
        if face.reactor.stopped:
            return
        if self._held is not None:
            self._held.release()
        face.reactor.run(self._close).result()
        face.reactor.stop()
        self._storage.close()

    async def _close(self) -> None:
        with contextlib.suppress(OsqueueError):  # the broker could not go on; there is nobody to say goodbye to
            await self._face.connection.close(OsqueueError("this queue has been closed"))
        self._server.stop()
        await self._server.stopped


def _absolute(where: str | os.PathLike[str]) -> str:
    if not os.fspath(where):
        raise ValueError("where: the path is empty; write . for the current directory")
    return str(Path(where).absolute())


def _storage(where: object) -> Storage:
    if isinstance(where, Storage):
        return where
    raise TypeError(f"where is a directory or a storage, not {type(where).__name__}")


def _told(error: Exception) -> OsqueueError:
    if isinstance(error, StorageError):
        return StorageLost.to(error)
    return error if isinstance(error, OsqueueError) else OsqueueError(f"the queue's broker cannot go on: {error}")
