"""The broker on an event loop: connections in front, the commit loop in the middle, work threads behind.

    connection ─▶ CommitLoop.received ─▶ turn ─▶ effects ─▶ swapper · maker · reader threads ─▶ CommitLoop.landed …

Rules:
* All methods run on the loop's thread; only the work threads block.
* A turn is taken once for whatever came in together: that is the group of a group commit.
* An error that the storage cannot recover from ends the broker: connections are closed, nobody is answered.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import socket
from collections.abc import Callable
from pathlib import Path
from typing import assert_never

import msgspec

from osqueue.broker.archive import Archive, Old
from osqueue.broker.effects import CloseConnection, Create, Delete, Effect, Forget, Load, Lookup, Send, Swap
from osqueue.broker.holders import Holders
from osqueue.broker.lookup import look_up
from osqueue.broker.loop import CommitLoop
from osqueue.broker.sweep import Sweep
from osqueue.broker.takeover import Taken, nonce
from osqueue.broker.writer import WorkThread
from osqueue.core.commit import Commit
from osqueue.core.messages import Hello, Prune, Refused, Reply, ToBroker, refused_as_corrupt
from osqueue.errors import AccessDenied, Corrupt
from osqueue.reactor import close_after_fork
from osqueue.storage import NotFound, ReadFailed, Storage, has_room
from osqueue.transport.frames import FrameProtocol
from osqueue.transport.unix import SOCKET_NAME, Accepted, check_peer, remove_unix, serve_unix

_log = logging.getLogger("osqueue")
_decoder = msgspec.msgpack.Decoder(ToBroker)

READ_AGAIN_S = 1.0
READ_PATIENCE_MS = 20_000
"""After so long a segment that cannot be read is passed over like a damaged one, until it can be read after all."""
ROOM_CHECK_MS = 100
MAX_WAITING = 128
"""Messages of one connection that wait to be applied; more are not read."""


class BrokerServer:
    """Serves one queue that has just been taken over.

    Args:
        loop: where it runs.
        storage: where the queue is; closed by whoever opened it, after `stopped`.
        taken: the takeover's result.
        directory: the queue's directory, for blame files; empty if there is none.
        on_fatal: told once why the broker cannot go on.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        storage: Storage,
        taken: Taken,
        *,
        directory: str,
        on_fatal: Callable[[Exception], None],
    ) -> None:
        self._loop = loop
        self._storage = storage
        self._writer = taken.writer
        self._clock = taken.clock
        self._directory = directory
        self._on_fatal = on_fatal
        self._commits = CommitLoop(taken.machine, taken.frame, nonce)
        self._archive = Archive(storage)
        self._swapper = WorkThread(loop, "osqueue-swap")
        self._maker = WorkThread(loop, "osqueue-create")
        self._reader = WorkThread(loop, "osqueue-read")
        self._numbers = itertools.count(1)
        self._protocols: dict[int, FrameProtocol[ToBroker]] = {}
        self._accepted: dict[int, Accepted] = {}
        self._sweep = Sweep(storage, self._commits, self._reader, directory, on_deleted=self._deleted)
        self._holders = Holders(
            loop,
            self._commits,
            self._reader,
            clock=taken.clock,
            directory=directory,
            on_ended=self._schedule_turn,
            failed=self._fail,
        )
        self._paused: set[int] = set()
        self._turn_scheduled = False
        self._alarm: asyncio.TimerHandle | None = None
        self._room_checked_ms = 0
        self._listener: asyncio.AbstractServer | None = None
        self._fatal = False
        self._socket_inode: int | None = None
        self.stopped: asyncio.Future[None] = loop.create_future()
        """Done when the last commit has landed and the threads have ended."""

    # ---------------------------------------------------------------------------------------------------------- start

    def start(self) -> None:
        """Look for holders that died, sweep what is not real, and begin to take turns."""
        self._holders.watch_all()
        self._sweep.start(self._commits.landed_frame)
        self._schedule_turn()

    async def listen(self, directory: str) -> None:
        """Serve ``broker.sock`` in the queue directory too, for this user's other processes."""
        self._listener = await serve_unix(Path(directory), self._protocol)
        self._socket_inode = (Path(directory) / SOCKET_NAME).lstat().st_ino

    async def serve(self, sock: socket.socket) -> None:
        """Serve a connection that is already there."""
        await self._loop.create_connection(self._protocol, sock=sock)

    # ---------------------------------------------------------------------------------------------------- connections

    def _protocol(self) -> FrameProtocol[ToBroker]:
        number = next(self._numbers)
        protocol: FrameProtocol[ToBroker] = FrameProtocol(
            _decoder,
            on_message=lambda message: self._received(number, message),
            on_lost=lambda reason: self._lost(number, reason),
            on_made=lambda protocol: self._made(number, protocol),
            on_writable=self._schedule_turn,
        )
        self._protocols[number] = protocol
        self._commits.connected(number)
        return protocol

    def _made(self, number: int, protocol: FrameProtocol[ToBroker]) -> None:
        sock = protocol.transport.get_extra_info("socket")
        accepted = self._accepted[number] = Accepted(sock)
        close_after_fork(accepted)
        try:
            check_peer(sock)
        except AccessDenied as error:
            protocol.abort(error)  # the socket's own mode is the first line

    def _received(self, number: int, message: ToBroker) -> None:
        if isinstance(message, Hello) and message.holder is not None and not self._holders.watch(message.holder):
            message.holder = None  # as good as remote: silence ends its lease
        self._commits.received(number, message)
        self._schedule_turn()
        self._pause_if_behind(number)

    def _lost(self, number: int, reason: Exception | None) -> None:
        if reason is not None:
            _log.debug("connection lost connection=%d reason=%s", number, reason)
        self._protocols.pop(number, None)
        self._accepted.pop(number, None)
        self._commits.disconnected(number)
        self._schedule_turn()

    def _pause_if_behind(self, number: int) -> None:
        """Read nothing more from a client whose messages wait, or that does not read its answers."""
        if number not in self._paused and not self._keeps_up(number):
            self._protocols[number].transport.pause_reading()
            self._paused.add(number)

    def _resume_if_caught_up(self, number: int) -> None:
        if number not in self._protocols:
            self._paused.discard(number)
        elif self._keeps_up(number):
            self._paused.discard(number)
            self._protocols[number].transport.resume_reading()

    def _keeps_up(self, number: int) -> bool:
        return self._commits.waiting(number) <= MAX_WAITING and self._protocols[number].writable

    # ---------------------------------------------------------------------------------------------------------- turns

    def _schedule_turn(self) -> None:
        if not self._turn_scheduled and not self._fatal:
            self._turn_scheduled = True
            self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        self._turn_scheduled = False
        if self._fatal or self.stopped.done():
            return
        try:
            self._take_turn()
        except Exception as error:  # noqa: BLE001 - logged, and the end of this broker
            # A turn that was cut short may have applied half an operation: nothing of it may be committed.
            _log.exception("broker cannot go on")
            self._fail(error)

    def _take_turn(self) -> None:
        now_ms = self._clock.now_ms()
        self._check_room(now_ms)
        for effect in self._commits.turn(now_ms):
            self._perform(effect)
        self._holders.watch_all()
        for number in list(self._paused):
            self._resume_if_caught_up(number)
        if self._commits.closed:
            self._finish()
            return
        self._set_alarm(now_ms)

    def _set_alarm(self, now_ms: int) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        alarm_ms = self._commits.next_alarm_ms()
        if alarm_ms is not None:
            self._alarm = self._loop.call_later(max(0, alarm_ms - now_ms) / 1000, self._schedule_turn)

    def _check_room(self, now_ms: int) -> None:
        if now_ms - self._room_checked_ms >= ROOM_CHECK_MS:
            self._room_checked_ms = now_ms
            self._commits.machine.state.has_room = has_room(self._storage)

    def _perform(self, effect: Effect) -> None:
        match effect:
            case Send():
                self._send(effect)
            case Lookup():
                self._look_up(effect)
            case Forget():
                Path(effect.blame_path).unlink(missing_ok=True)
            case Create():
                self._create(effect.commit)
            case Swap():
                self._swap(effect.commit)
            case Load():
                for key in effect.keys:
                    self._load(key)
            case Delete():
                self._sweep.delete(effect.keys)
            case CloseConnection():
                self._close_connection(effect.connection)
            case _:
                assert_never(effect)

    def _send(self, effect: Send) -> None:
        if (protocol := self._protocols.get(effect.connection)) is not None:
            protocol.send(effect.message)
            self._pause_if_behind(effect.connection)

    def _send_all(self, sends: list[Send]) -> None:
        for send in sends:
            self._send(send)

    def _close_connection(self, number: int) -> None:
        if (protocol := self._protocols.get(number)) is not None:
            protocol.close()

    # -------------------------------------------------------------------------------------------------------- writing

    def _create(self, commit: Commit) -> None:
        self._maker.submit(lambda: self._writer.create(commit), done=lambda _: self._created(commit), failed=self._fail)

    def _swap(self, commit: Commit) -> None:
        self._swapper.submit(lambda: self._writer.swap(commit), done=lambda _: self._landed(commit), failed=self._fail)

    def _created(self, commit: Commit) -> None:
        self._commits.created(commit)
        self._schedule_turn()

    def _landed(self, commit: Commit) -> None:
        self._archive.landed(commit.objects)
        self._archive.dropped(commit.trash)
        self._commits.landed(commit, self._clock.now_ms())
        # At once, not in the next round of the loop: the next swap should not wait for what came in meanwhile.
        self._turn()

    def _deleted(self) -> None:
        if self._commits.prunes_wait:
            self._schedule_turn()

    # -------------------------------------------------------------------------------------------------------- reading

    def _load(self, key: str, failing_since_ms: int | None = None) -> None:
        def done(data: bytes | None) -> None:
            try:
                if data is not None:
                    self._commits.loaded(key, data)
                elif self._commits.not_loaded(key):
                    _log.error("segment is missing, its jobs are blocked key=%s", key)
            except Corrupt as error:
                _log.error("segment is damaged, its jobs are blocked key=%s reason=%s", key, error)
            self._schedule_turn()

        def failed(error: Exception) -> None:
            if not isinstance(error, ReadFailed):
                self._fail(error)
                return
            since_ms = self._still_unreadable(key, failing_since_ms, error)
            self._read_again(lambda: self._load(key, since_ms))

        self._reader.submit(lambda: self._read(key), done=done, failed=failed)

    def _read(self, key: str) -> bytes | None:
        try:
            return self._storage.read(key)[0]
        except NotFound:
            return None
        except Corrupt as error:
            _log.error("segment cannot be read key=%s reason=%s", key, error)
            return None

    def _look_up(self, lookup: Lookup) -> None:
        frame = self._commits.landed_frame
        self._archive.ask()

        def failed(error: Exception) -> None:
            if isinstance(error, Corrupt) and lookup.ticket:
                self._send(Send(lookup.connection, Reply(lookup.ticket, refused_as_corrupt(error))))
            elif not isinstance(error, ReadFailed):
                self._fail(error)
            elif lookup.ticket:
                refused = Refused("unavailable", f"the archive cannot be read now: {error}")
                self._send(Send(lookup.connection, Reply(lookup.ticket, refused)))
            elif lookup.connection in self._protocols:
                _log.warning("archive cannot be read now, trying again reason=%s", error)
                self._read_again(lambda: self._look_up(lookup))

        def not_pruned(error: Exception) -> None:
            failed(error)
            self._commits.prune_failed()
            self._schedule_turn()

        if isinstance(query := lookup.query, Prune):
            self._reader.submit(
                lambda: self._archive.old(frame, query), done=lambda old: self._prune(lookup, old), failed=not_pruned
            )
            return
        self._reader.submit(lambda: look_up(self._archive, frame, lookup), done=self._send_all, failed=failed)

    def _prune(self, lookup: Lookup, old: Old) -> None:
        self._commits.prune(lookup.connection, lookup.ticket, old.keys, old.pruned)
        self._schedule_turn()

    def _still_unreadable(self, key: str, since_ms: int | None, error: ReadFailed) -> int:
        """A segment cannot be read; returns since when."""
        now_ms = self._clock.now_ms()
        if since_ms is None:
            _log.warning("segment cannot be read, trying again key=%s reason=%s", key, error)
            return now_ms
        if now_ms - since_ms >= READ_PATIENCE_MS and self._commits.unreadable(key):
            _log.error("segment cannot be read for long, its jobs are blocked until it can key=%s", key)
            self._schedule_turn()
        return since_ms

    def _read_again(self, read: Callable[[], None]) -> None:
        def again() -> None:
            if not self._fatal and not self.stopped.done():
                read()

        self._loop.call_later(READ_AGAIN_S, again)

    # ------------------------------------------------------------------------------------------------------------ end

    def stop(self) -> None:
        """Land what is applied, close the queue, end. `stopped` tells when."""
        self._commits.close()
        self._schedule_turn()

    def _fail(self, error: Exception) -> None:
        if self._fatal:
            return
        self._fatal = True
        for protocol in list(self._protocols.values()):
            protocol.abort(error)
        self._on_fatal(error)
        self._end(error)

    def _finish(self) -> None:
        for protocol in list(self._protocols.values()):
            protocol.close()
        self._end(None)

    def _remove_socket(self) -> None:
        """Ours, and not that of a broker that has replaced us."""
        if _inode(Path(self._directory) / SOCKET_NAME) == self._socket_inode:
            remove_unix(Path(self._directory))

    def _end(self, error: Exception | None) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        if self._listener is not None:
            self._listener.close()
            self._remove_socket()
        self._holders.close()
        for thread in (self._swapper, self._maker, self._reader):
            thread.stop()
        if not self.stopped.done():
            self.stopped.set_result(None)


def _inode(path: Path) -> int | None:
    try:
        return path.lstat().st_ino
    except FileNotFoundError:
        return None
