"""The broker process: opens a queue and serves it until it is told to stop, or whoever started it is gone.

It runs no user code and never forks. ``python -m osqueue.serve --control FD`` is how a pool starts it
(`osqueue.transport.control`).
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import os
import signal
import socket
import sys

import msgspec

from osqueue.broker.takeover import take_over
from osqueue.broker_server import BrokerServer
from osqueue.errors import OsqueueError, code_of
from osqueue.storage import DirectoryStorage, open_directory
from osqueue.transport.control import Failed, Ping, Pong, Start, Started, Stop, ToBrokerProcess
from osqueue.transport.frames import FrameProtocol, read_frame, write_frame

EXIT_STORE_FAILED = 4
EXIT_DEFECT = 70
"""``EX_SOFTWARE`` of sysexits.h: the broker itself is at fault."""
_decoder = msgspec.msgpack.Decoder(ToBrokerProcess)


def main(arguments: list[str] | None = None) -> int:
    """Serve one queue; returns the exit status."""
    parser = argparse.ArgumentParser(prog="osqueue.serve")
    parser.add_argument("--control", type=int, required=True)
    control = socket.socket(fileno=parser.parse_args(arguments).control)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    start = read_frame(control, _decoder)
    if not isinstance(start, Start):
        return EXIT_STORE_FAILED
    try:
        storage = open_directory(start.where, durable=start.durable, owner=os.getppid())
    except (OsqueueError, OSError, ValueError) as error:
        write_frame(control, failure(error))
        return EXIT_STORE_FAILED
    return asyncio.Runner(loop_factory=asyncio.SelectorEventLoop).run(_Service(start, storage, control).run())


class _Service:
    """One life of a broker."""

    def __init__(self, start: Start, storage: DirectoryStorage, control: socket.socket) -> None:
        self._start = start
        self._storage = storage
        self._socket = control
        self._error: Exception | None = None
        self._server: BrokerServer | None = None
        self._control: FrameProtocol[ToBrokerProcess] = FrameProtocol(
            _decoder, on_message=self._received, on_lost=self._parent_gone
        )

    async def run(self) -> int:
        loop = asyncio.get_running_loop()
        self._socket.settimeout(0)
        await loop.create_connection(lambda: self._control, sock=self._socket)
        try:
            taken = take_over(self._storage, self._start.settings)
            self._server = BrokerServer(loop, self._storage, taken, directory=self._start.where, on_fatal=self._fatal)
            self._server.start()
            await self._serve(self._server, taken.frame.epoch)
            await self._server.stopped
        except (OsqueueError, OSError, ValueError) as error:
            self._fatal(error)
        self._storage.close()
        status = self._say_why()
        self._control.close()
        await asyncio.sleep(0)
        return status

    def _say_why(self) -> int:
        """Tell the pool what the broker cannot mend; after an error of its own it is started again instead."""
        if self._error is None:
            return 0
        if not isinstance(self._error, OsqueueError | OSError | ValueError):
            return EXIT_DEFECT
        self._control.send(failure(self._error))
        return EXIT_STORE_FAILED

    async def _serve(self, server: BrokerServer, epoch: int) -> None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, server.stop)
        for descriptor in self._start.connections:
            connection = socket.socket(fileno=descriptor)
            connection.settimeout(0)
            await server.serve(connection)
        await server.listen(self._start.where)
        gc.freeze()
        self._control.send(Started(epoch))

    def _received(self, message: ToBrokerProcess) -> None:
        match message:
            case Ping():
                self._control.send(Pong(message.number))
            case Stop() | Start():
                self._stop()

    def _parent_gone(self, reason: Exception | None) -> None:
        self._stop()

    def _stop(self) -> None:
        if self._server is not None:
            self._server.stop()

    def _fatal(self, error: Exception) -> None:
        self._error = error


def failure(error: Exception) -> Failed:
    """An error in the words of the control channel."""
    return Failed(
        code=code_of(type(error)),
        message=str(error),
        pid=getattr(error, "pid", None),
        host=getattr(error, "host", None),
        key=getattr(error, "key", None) or None,
        errno=getattr(error, "errno", None),
    )


if __name__ == "__main__":
    with contextlib.suppress(EOFError):
        sys.exit(main())
