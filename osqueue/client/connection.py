"""A session's connection: made, lost, made again; messages go through, time is told.

Everything here runs in the loop's thread. Sends are gathered: what one turn of the loop submits leaves in one write.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Sequence

import msgspec

from osqueue import clock
from osqueue.client.calls import Call, OnResponse
from osqueue.client.operations import OnAnswer, Pending
from osqueue.client.session import Session
from osqueue.core.messages import Claim, FromBroker, GetStats, Operation, Progress, Query, ToBroker
from osqueue.errors import OsqueueError
from osqueue.reactor import LoopThread
from osqueue.transport.connector import Connector
from osqueue.transport.frames import FrameProtocol, encode_frame

_log = logging.getLogger("osqueue")
_TICK_S = 1.0
_FIRST_DELAY_S = 0.02
_LAST_DELAY_S = 1.0
_GOODBYE_S = 2.0
UNSAYABLE = (OverflowError, TypeError, ValueError, RecursionError)
"""What encoding raises: a number above 64 bits, a value of no type of ours, a lone surrogate, a frame too large."""

_decoder = msgspec.msgpack.Decoder(FromBroker)


class Connection:
    """Drives a session over a connector's connections. All methods are for the loop's thread.

    Args:
        reactor: whose loop it is.
        connector: makes the connections.
        session: what they carry.
    """

    def __init__(self, reactor: LoopThread, connector: Connector, session: Session) -> None:
        self._loop = reactor.loop
        self._connector = connector
        self.session = session
        self._protocol: FrameProtocol[FromBroker] | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._ticking = False
        self._pumping = False
        self._closed = False
        self._gone = asyncio.Event()
        """No connection stands."""
        self._gone.set()
        self._error: OsqueueError | None = None

    async def start(self) -> None:
        """Make the first connection.

        Raises:
            OSError: no broker is there.
            OsqueueError: there will never be one.
        """
        await self._connector.connect(self._new_protocol)

    def start_soon(self) -> None:
        """Make the first connection as soon as it can be made."""
        self._reconnect()

    def submit(self, operation: Operation, on_answer: OnAnswer, *, expires: bool = True) -> Pending:
        """Do a numbered operation; ``on_answer`` gets the answer's body or the error, once."""
        pending = self.session.operations.submit(operation, on_answer, clock.boot_ms(), expires=expires)
        self.flush()
        return pending

    def again(self, pending: Pending, on_answer: OnAnswer) -> None:
        """Wait anew for an operation that was told to be unavailable."""
        self.session.operations.again(pending, on_answer, clock.boot_ms())
        self.flush()

    def ask(self, query: Query, on_response: OnResponse, *, wait_ms: int | None = 0) -> Call:
        """Ask a query."""
        call = self.session.calls.ask(query, on_response, clock.boot_ms(), wait_ms=wait_ms)
        self.flush()
        return call

    def claim(self, claim: Claim, on_response: OnResponse) -> Call:
        """Claim once."""
        call = self.session.calls.claim(claim, on_response, clock.boot_ms())
        self.flush()
        return call

    def forget(self, call: Call) -> None:
        """Nobody waits for a call any more; a job that it brings yet goes back."""
        self.session.calls.forget(call)

    def claim_standing(self, tasks: list[str], jobs: int, worker: str) -> None:
        """Ask for jobs into the standing lease."""
        self.session.claim_standing(tasks, jobs, worker)
        self.flush()

    def heartbeat(
        self, lease: int, running: list[int], on_response: OnResponse, *, progress: Sequence[Progress] = ()
    ) -> Call:
        """Extend a lease."""
        call = self.session.heartbeat(lease, running, on_response, clock.boot_ms(), progress=progress)
        self.flush()
        return call

    def flush(self) -> None:
        """Send what is there at the end of this turn of the loop."""
        if self._error is not None:
            self._loop.call_soon(self.session.fail, self._error)
        if not self._pumping:
            self._pumping = True
            self._loop.call_soon(self._pump)

    def fail(self, error: OsqueueError) -> None:
        """End it for good: whoever waits, now or later, gets ``error``."""
        if self._error is not None:
            return
        self._error = error
        self.session.fail(error)
        self._end()

    async def close(self, error: OsqueueError) -> None:
        """Leave the queue: say goodbye, and see that it has arrived; whoever still waits gets ``error``."""
        if not self._closed:
            await self._say_goodbye()
        self.fail(error)
        try:
            await asyncio.wait_for(self._gone.wait(), _GOODBYE_S)
        except TimeoutError:
            if self._protocol is not None:
                self._protocol.abort()

    # ---------------------------------------------------------------------------------------------------------- private

    async def _say_goodbye(self) -> None:
        """On return the broker has applied it, or has not answered in time: then it sees that we are gone."""
        applied = asyncio.Event()
        self.session.leave()
        self.ask(GetStats(), lambda _: applied.set())
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(applied.wait(), _GOODBYE_S)

    def _new_protocol(self) -> FrameProtocol[FromBroker]:
        protocol: FrameProtocol[FromBroker] = FrameProtocol(
            _decoder,
            on_message=self._received,
            on_lost=lambda reason: self._lost(protocol, reason),
            on_made=self._made,
            on_writable=self.flush,
        )
        return protocol

    def _made(self, protocol: FrameProtocol[FromBroker]) -> None:
        if self._closed:
            protocol.abort()
            return
        self._protocol = protocol
        self._gone.clear()
        self.session.connected()
        self.flush()

    def _received(self, message: FromBroker) -> None:
        self.session.received(message, clock.boot_ms())
        if self.session.stale and self._protocol is not None:
            self._protocol.abort()
        self.flush()

    def _lost(self, protocol: FrameProtocol[FromBroker], reason: Exception | None) -> None:
        if protocol is not self._protocol:
            return
        self._protocol = None
        self._gone.set()
        self.session.disconnected(clock.boot_ms())
        if self._closed:
            return
        _log.debug("connection to the broker lost reason=%s", reason)
        self._reconnect()
        self._tick_soon()

    def _reconnect(self) -> None:
        self._connecting = self._loop.create_task(self._connect())

    async def _connect(self) -> None:
        delay_s = _FIRST_DELAY_S
        while not self._closed:
            try:
                await self._connector.connect(self._new_protocol)
            except OsqueueError as error:
                self.fail(error)
            except OSError as error:
                _log.debug("no connection to the broker yet reason=%s", error)
                await asyncio.sleep(delay_s)
                delay_s = min(2 * delay_s, _LAST_DELAY_S)
            else:
                return

    def _pump(self) -> None:
        self._pumping = False
        if self._protocol is not None and self._protocol.writable:
            messages = self.session.outbox(clock.boot_ms())
            if messages:
                self._protocol.send_bytes(self._encoded(messages))
        self._tick_soon()

    def _encoded(self, messages: Sequence[ToBroker]) -> bytes:
        try:
            return b"".join(map(encode_frame, messages))
        except UNSAYABLE:
            return b"".join(frame for message in messages for frame in self._frames(message))

    def _frames(self, message: ToBroker) -> list[bytes]:
        """One message; if it cannot be put into bytes, its caller is told, and the others go on."""
        try:
            return [encode_frame(message)]
        except UNSAYABLE as error:
            return [*map(encode_frame, self.session.unsayable(message, error))]

    def _tick_soon(self) -> None:
        if not self._ticking and self.session.busy and not self._closed:
            self._ticking = True
            self._loop.call_later(_TICK_S, self._tick)

    def _tick(self) -> None:
        self._ticking = False
        self.session.time_passed(clock.boot_ms())
        self.flush()

    def _end(self) -> None:
        self._closed = True
        self._connector.close()
        if self._connecting is not None and self._connecting is not asyncio.current_task(self._loop):
            self._connecting.cancel()
        if self._protocol is not None:
            self._protocol.close()
