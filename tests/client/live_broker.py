"""The model broker behind a real socket: clients under test connect to it as to any other."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from pathlib import Path

import msgspec

from osqueue.core.messages import FromBroker, Hello, ToBroker
from osqueue.reactor import LoopThread
from osqueue.transport.frames import FrameProtocol
from osqueue.transport.unix import serve_unix
from tests.client.model_broker import ModelBroker


class LiveBroker:
    """Serves one client at a time in a directory.

    ``answering`` cleared: what comes in is applied, and nothing is answered.
    """

    def __init__(self, directory: Path) -> None:
        self.model = ModelBroker()
        self.answering = threading.Event()
        self.answering.set()
        self.hellos = 0
        self._directory = directory
        self._reactor = LoopThread("live-broker")
        self._protocol: FrameProtocol[ToBroker] | None = None
        self._server: asyncio.Server | None = None
        self.open()

    def open(self) -> None:
        self._reactor.run(self._open).result(10)

    def close(self) -> None:
        self._reactor.run(self._close).result(10)

    def drop(self) -> None:
        """End the connection, not the broker."""
        self._reactor.run(self._drop).result(10)

    def stop(self) -> None:
        with contextlib.suppress(RuntimeError):
            self.close()
        self._reactor.stop()

    async def _open(self) -> None:
        self._server = await serve_unix(self._directory, self._new)

    async def _close(self) -> None:
        if self._server is not None:
            self._server.close()
        await self._drop()

    async def _drop(self) -> None:
        if self._protocol is not None:
            self._protocol.abort()
        await asyncio.sleep(0)

    def _new(self) -> FrameProtocol[ToBroker]:
        protocol: FrameProtocol[ToBroker] = FrameProtocol(
            msgspec.msgpack.Decoder(ToBroker),
            on_message=lambda message: self._received(protocol, message),
            on_lost=lambda _: None,
        )
        return protocol

    def _received(self, protocol: FrameProtocol[ToBroker], message: ToBroker) -> None:
        if isinstance(message, Hello):
            self.hellos += 1
            if self._protocol is not None:
                self._protocol.abort()
            self._protocol = protocol
            self.model.disconnected()
        answers: list[FromBroker] = self.model.received(message)
        if self.answering.is_set() or isinstance(message, Hello):
            for answer in answers:
                protocol.send(answer)
