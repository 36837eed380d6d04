"""One broker process, from its start to its end; `osqueue.pool.broker_process` decides what follows.

Rules:
* Everything runs in the loop's thread; nothing waits there.
* The child is a fresh interpreter that runs no user code, in a process group of its own, so that Ctrl-C does not reach
  it. It loads the very osqueue package that runs here, by its place, whatever its own search path says.
* Its sockets are its own: nobody else holds the other ends, so end-of-file means that it has gone.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import multiprocessing.spawn
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import filelock
import msgspec

import osqueue
from osqueue.core.settings import QueueSettings
from osqueue.host import open_pidfd
from osqueue.reactor import close_after_fork
from osqueue.transport.control import Failed, FromBrokerProcess, Ping, Pong, Start, Started, Stop
from osqueue.transport.frames import FrameProtocol

_log = logging.getLogger("osqueue")

PING_S = 2.0
SILENT_PINGS = 5
"""So many pings without an answer are silence; pings, not time: a program that Ctrl-Z stopped counts none."""
_LINGER_S = 1.0
_POLL_S = 0.01

_BOOT = """
import importlib.util, runpy, sys
package, *places = sys.argv[1 : sys.argv.index("--")]
del sys.argv[1 : sys.argv.index("--") + 1]
sys.path += [place for place in places if place not in sys.path]
spec = importlib.util.spec_from_file_location(
    "osqueue", package + "/__init__.py", submodule_search_locations=[package]
)
sys.modules["osqueue"] = module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
runpy.run_module("osqueue.serve", run_name="__main__", alter_sys=True)
"""

_decoder = msgspec.msgpack.Decoder(FromBrokerProcess)


class BrokerStart(msgspec.Struct, frozen=True, kw_only=True):
    """What a broker is started with: an absolute directory, whether to fsync in it, the queue's settings."""

    where: str
    settings: QueueSettings
    durable: bool = True


class Descriptor:
    """A bare file descriptor that is closed once."""

    def __init__(self, number: int) -> None:
        self.number = number

    def close(self) -> None:
        """Close it; twice is harmless."""
        number, self.number = self.number, -1
        if number >= 0:
            os.close(number)


class Ends(NamedTuple):
    """One side's ends of a broker's sockets."""

    control: socket.socket
    clients: list[socket.socket]

    def close(self) -> None:
        """Close them all."""
        for sock in (self.control, *self.clients):
            sock.close()


def start_child(start: BrokerStart, clients: int) -> BrokerChild:
    """Start a broker process, in the loop's thread.

    Args:
        start: what it is to open.
        clients: how many connections it shall serve.

    Raises:
        OSError: no process or descriptor can be had now.
    """
    pairs = [socket.socketpair() for _ in range(1 + clients)]
    ours = Ends(pairs[0][0], [pair[0] for pair in pairs[1:]])
    theirs = Ends(pairs[0][1], [pair[1] for pair in pairs[1:]])
    for sock in (ours.control, *ours.clients):
        sock.settimeout(0)
        close_after_fork(sock)
    try:
        process = _popen(theirs)
        numbers = [sock.fileno() for sock in theirs.clients]
        return BrokerChild(process, ours, Start(start.where, start.settings, numbers, start.durable))
    except BaseException:
        ours.close()
        raise
    finally:
        theirs.close()


def _popen(theirs: Ends) -> subprocess.Popen[bytes]:
    package = Path(osqueue.__file__).parent
    places = [package, Path(msgspec.__file__).parent.parent, Path(filelock.__file__).parent.parent]
    descriptors = [sock.fileno() for sock in (theirs.control, *theirs.clients)]
    executable = os.fsdecode(multiprocessing.spawn.get_executable() or sys.executable)
    return subprocess.Popen(
        [executable, "-P", "-c", _BOOT, *map(str, places), "--", "--control", str(descriptors[0])],
        pass_fds=descriptors,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        process_group=0,
    )


class BrokerChild:
    """A running broker. Made by `start_child`; all methods are for the loop's thread."""

    def __init__(self, process: subprocess.Popen[bytes], ends: Ends, start: Start) -> None:
        self._loop = asyncio.get_running_loop()
        self._process = process
        self._ends = ends
        self._start = start
        self._control: FrameProtocol[FromBrokerProcess] = FrameProtocol(
            _decoder, on_message=self._received, on_lost=self._lost
        )
        self.failed: Failed | None = None
        """Why it ended, if it said so."""
        self._started: asyncio.Future[Started | None] = self._loop.create_future()
        self._ending = asyncio.Event()
        self._control_lost = asyncio.Event()
        self._exited = asyncio.Event()
        self._unanswered = 0
        self._pidfd = self._watch()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def clients(self) -> list[socket.socket]:
        """Our ends of its connections, for whoever talks to it; those that nobody took are closed at its end."""
        return self._ends.clients

    async def opened(self) -> Started | None:
        """Have it open the queue; None when it failed or died instead."""
        await self._loop.create_connection(lambda: self._control, sock=self._ends.control)
        self._control.send(self._start)
        return await self._started

    def ping(self) -> None:
        """Ask for a sign of life, now and every few seconds; silence is its end."""
        if self._ending.is_set():
            return
        if self._unanswered >= SILENT_PINGS:
            _log.warning("broker is silent, replacing it pid=%d", self.pid)
            self.kill()
            return
        self._unanswered += 1
        self._control.send(Ping(self._unanswered))
        self._loop.call_later(PING_S, self.ping)

    def stop(self) -> None:
        """Ask it to end in good order."""
        self._control.send(Stop())

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()

    async def ended(self) -> int:
        """Wait for its end; its exit status, negative for a signal."""
        await self._ending.wait()
        with contextlib.suppress(TimeoutError):  # its last words may still be on their way
            await asyncio.wait_for(self._control_lost.wait(), _LINGER_S)
        impatience = self._loop.call_later(_LINGER_S, self.kill)
        status = await self._reaped()
        impatience.cancel()
        self._control.abort()
        return status

    # ---------------------------------------------------------------------------------------------------------- private

    async def _reaped(self) -> int:
        while (status := self._process.poll()) is None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._exited.wait(), _POLL_S if self._pidfd is None else _LINGER_S)
        return status

    def _watch(self) -> Descriptor | None:
        number = open_pidfd(self._process.pid)
        if number is None:
            return None
        pidfd = Descriptor(number)
        close_after_fork(pidfd)
        self._loop.add_reader(number, self._died)
        return pidfd

    def _died(self) -> None:
        assert self._pidfd is not None, "only a pidfd calls this"
        self._loop.remove_reader(self._pidfd.number)
        self._pidfd.close()
        self._exited.set()
        self._ending.set()

    def _received(self, message: FromBrokerProcess) -> None:
        match message:
            case Started():
                self._begin(message)
            case Failed():
                self.failed = message
                self._begin(None)
            case Pong():
                self._unanswered = 0

    def _lost(self, reason: Exception | None) -> None:
        if reason is not None:
            _log.debug("broker's control connection broke pid=%d reason=%s", self.pid, reason)
        self._begin(None)
        self._control_lost.set()
        self._ending.set()

    def _begin(self, started: Started | None) -> None:
        if not self._started.done():
            self._started.set_result(started)
