"""A worker process as its supervisor sees it: started, talked to, watched, killed.

    starter thread: launch ──▶ loop: joined ──▶ messages … ──▶ ended (its last words, exit code, fault report)

Rules:
* Starting blocks, so one long-lived daemon thread does it; everything else runs on the supervisor's event loop.
* That thread is no executor: those refuse work while the interpreter ends, which is when a pool must still stop.
* Each worker has its own socket pair and its own life pipe; nothing is shared, so one death concerns one worker.
* Death is seen through a pidfd. What the worker wrote before it is read first, then the owner is told, once.
* A worker's process group is killed after it: children that a handler left running do not outlive it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import multiprocessing
import multiprocessing.forkserver
import multiprocessing.process
import multiprocessing.resource_tracker
import os
import queue
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.context import BaseContext
from typing import IO, Any

import msgspec
from msgspec import Struct

from osqueue import host
from osqueue.reactor import close_after_fork
from osqueue.transport.frames import FrameProtocol
from osqueue.worker.failure import handler_frames
from osqueue.worker.lifeline import CANNOT_SPEAK
from osqueue.worker.main import PassedFd, WorkerSpec, work
from osqueue.worker.messages import FromWorker, ToWorker

_log = logging.getLogger("osqueue")

NO_MAIN_GUARD = 79
"""Exit status of a process that makes a pool while it imports the main module to become a worker itself."""

DEFAULT_METHOD = "forkserver" if sys.platform == "linux" else "spawn"
_PRELOADED = ["osqueue.worker.main", "osqueue.pool"]
"""A program that makes a pool mostly imports it in its main module, as then does each worker: a tenth of a second."""
_BUFFER_BYTES = 1 << 20
_DRAIN_BYTES = 1 << 18
_EXIT_CODE_WAIT_S = 2.0
_DYING_S = 0.1


class Ended(Struct, frozen=True):
    """How a worker's process ended.

    ``exit_code``: negative for a signal; None if somebody else has reaped it. ``report``: what `faulthandler` wrote,
    or why it could not be started.
    """

    exit_code: int | None
    report: str = ""


def start_context(method: str | BaseContext | None) -> BaseContext:
    """The multiprocessing context to start workers with.

    Raises:
        TypeError: it is no context.
        ValueError: it is unknown, or ``fork``, which would copy locks that other threads hold.
        RuntimeError: this process may have no children, or none from that fork server.
    """
    if multiprocessing.current_process().daemon:
        raise RuntimeError(
            "a pool was made in a daemonic process, which multiprocessing allows no children: make it in a process "
            "with daemon=False; those of multiprocessing.Pool are daemonic, ProcessPoolExecutor's are not"
        )
    if method is None:
        method = "spawn" if _fork_server_is_foreign() else DEFAULT_METHOD
    context = _context(method)
    if context.get_start_method() == "forkserver" and _fork_server_is_foreign():
        raise RuntimeError(
            "mp_context: the fork server belongs to the process that this one was forked from; use 'spawn' here"
        )
    if context.get_start_method() == "fork":
        raise ValueError("mp_context: fork copies locks that other threads hold; use 'forkserver' or 'spawn'")
    return context


def _context(method: object) -> BaseContext:
    if isinstance(method, BaseContext):
        return method
    if not isinstance(method, str):
        raise TypeError(f"mp_context is a start method's name or a context, not {type(method).__name__}")
    try:
        return multiprocessing.get_context(method)
    except ValueError as error:
        raise ValueError(f"mp_context: there is no such start method here mp_context={method!r}") from error


def _fork_server_pid() -> int | None:
    server = getattr(multiprocessing.forkserver, "_forkserver", None)
    pid: int | None = getattr(server, "_forkserver_pid", None)
    return pid


class _Fork:
    """What a process that the user forked finds: multiprocessing would wait for its parent's fork server in vain."""

    inherited_pid: int | None = None


def _note_inherited() -> None:
    _Fork.inherited_pid = _fork_server_pid()


def _fork_server_is_foreign() -> bool:
    return _Fork.inherited_pid is not None and _fork_server_pid() == _Fork.inherited_pid


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_note_inherited)


class Starter:
    """The thread that starts processes. Any thread may hand one in."""

    def __init__(self) -> None:
        self._requests: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        threading.Thread(target=self._run, name="osqueue-starter", daemon=True).start()

    def submit(self, launch: Callable[[], None]) -> None:
        """Have ``launch()`` called in the thread; it must not raise."""
        self._requests.put(launch)

    def end(self) -> None:
        """End the thread after what was submitted."""
        self._requests.put(None)

    def _run(self) -> None:
        while (launch := self._requests.get()) is not None:
            launch()


class _LastWords(FrameProtocol[FromWorker]):
    """A worker's end of the connection, of which all is read even if writing to it fails first.

    A message to a worker that has just died fails before its death is seen, and the event loop then closes the socket
    with what the worker had said still in it.
    """

    def connection_lost(self, exc: Exception | None) -> None:
        _drain(self, self.transport.get_extra_info("socket").fileno())
        super().connection_lost(exc)


class WorkerProcess:
    """One process. All methods but `launch` and `close` belong to the loop's thread.

    Args:
        on_message: called with each message.
        on_ended: called once, after the last message, when the process is dead or could not be started.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        context: BaseContext,
        spec: WorkerSpec,
        *,
        on_message: Callable[[FromWorker], None],
        on_ended: Callable[[Ended], None],
    ) -> None:
        self._loop = loop
        self._context = context
        self._spec = spec
        self._on_ended = on_ended
        self._protocol = _LastWords(
            msgspec.msgpack.Decoder(FromWorker), on_message=on_message, on_lost=self._channel_lost
        )
        self._channel: socket.socket | None = None
        self._life: Connection | None = None
        self._faults: IO[bytes] | None = None
        self._process: Any = None
        self._pid: int | None = None
        self._pidfd: int | None = None
        self._watched: int | None = None
        self._late: asyncio.TimerHandle | None = None
        self._connecting: asyncio.Task[Any] | None = None
        self._killed = False
        self._unheard = False
        self._over = False

    @property
    def pid(self) -> int | None:
        """Its process id; None until it has been started."""
        return self._pid

    def launch(self) -> None:
        """Start the process; blocks for some milliseconds. In the starter's thread, once."""
        try:
            self._launch()
        except Exception as error:  # noqa: BLE001
            # Pickling, forking, the fork server's own death: whatever it was, this start has failed, and is told.
            self._to_loop(self._not_launched, error)
            return
        self._to_loop(self._launched)

    def send(self, message: ToWorker) -> None:
        """Send a message, never waiting; dropped if the worker is dead."""
        if not self._over:
            self._protocol.send(message)

    def kill(self) -> None:
        """Kill the process and its group now, or as soon as it has been started; ``on_ended`` follows."""
        self._killed = True
        if self._process is None or self._over:
            return
        if not self._kill_group():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._process.pid, signal.SIGKILL)  # it has not made its group yet

    def close(self) -> None:
        """Close our descriptors, in a forked child too; the worker then ends by itself."""
        if self._channel is not None:
            self._channel.close()
        if self._life is not None:
            self._life.close()
        if self._faults is not None:
            self._faults.close()
        if self._pidfd is not None:
            pidfd, self._pidfd = self._pidfd, None
            os.close(pidfd)

    # -------------------------------------------------------------------------------------------------- start, in order

    def _launch(self) -> None:
        ours, theirs = socket.socketpair()
        life_reader, life_writer = self._context.Pipe(duplex=False)
        faults = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115
        self._channel, self._life, self._faults = ours, life_writer, faults
        close_after_fork(self)
        try:
            for end in (ours, theirs):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER_BYTES)
            ours.settimeout(0)
            self._start_process(theirs, life_reader, PassedFd(faults.fileno()))
        except BaseException:
            self.close()
            raise
        finally:
            theirs.close()
            life_reader.close()

    def _start_process(self, channel: socket.socket, life: Connection, faults: PassedFd) -> None:
        _shield_children()
        if self._context.get_start_method() == "forkserver":
            _preload_worker(self._context)
        name = f"osqueue-worker-{self._spec.slot}"
        arguments = (channel, life, faults, self._spec)
        process = self._context.Process(target=work, args=arguments, name=name, daemon=False)  # type: ignore[attr-defined]
        process.start()
        # multiprocessing joins its children while the interpreter ends, before it would drop their life pipes: a pool
        # that was never closed would hang there. Its one public way out is daemonic ones, which may have no children.
        children: set[Any] = getattr(multiprocessing.process, "_children", set())
        children.discard(process)
        self._pid = process.pid
        self._process = process

    def _to_loop(self, function: Callable[..., None], *args: object) -> None:
        try:
            self._loop.call_soon_threadsafe(function, *args)
        except RuntimeError:
            self.kill()  # the loop has ended meanwhile: nobody waits for this worker
            self.close()

    def _not_launched(self, error: Exception) -> None:
        _log.warning("worker could not be started error=%r", error)
        self._over = True
        self._on_ended(Ended(exit_code=None, report=f"{type(error).__name__}: {error}"))

    def _launched(self) -> None:
        self._pidfd = host.open_pidfd(self._process.pid)
        # Without a pidfd (dead already, or no Linux) the sentinel tells, if no grandchild holds it.
        self._watch(self._process.sentinel if self._pidfd is None else self._pidfd, self._died)
        assert self._channel is not None
        connecting = self._loop.create_connection(lambda: self._protocol, sock=self._channel)
        self._connecting = self._loop.create_task(connecting)
        if self._killed:
            self.kill()

    # ---------------------------------------------------------------------------------------------------- end, in order

    def _channel_lost(self, reason: Exception | None) -> None:
        if reason is not None and not self._over and not self._killed:
            # One that died with unread jobs in its socket resets the connection: an ordinary end.
            level = logging.DEBUG if isinstance(reason, ConnectionError) else logging.ERROR
            _log.log(level, "worker spoke out of turn pid=%s reason=%s", self.pid, reason)
        # One that is just dying closes its socket a moment before its death is seen; that death tells the rest.
        self._loop.call_later(_DYING_S, self._silence)

    def _silence(self) -> None:
        """A worker that lives and can no longer be heard is of no use."""
        if not self._over:
            self._unheard = True
            self.kill()

    def _died(self) -> None:
        self._unwatch()
        assert self._channel is not None
        _drain(self._protocol, self._channel.fileno())
        self._kill_group()
        self._over = True
        self._protocol.abort()
        if self._process.exitcode is not None:
            self._tell()
            return
        # A fork server tells the exit code a moment after the death; anybody may have reaped a child of our own.
        self._watch(self._process.sentinel, self._tell)
        self._late = self._loop.call_later(_EXIT_CODE_WAIT_S, self._tell)

    def _kill_group(self) -> bool:
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            return False  # no such group; PermissionError: macOS says so of a group of zombies
        return True

    def _tell(self) -> None:
        if self._late is not None:
            self._late.cancel()
        self._unwatch()
        exit_code = CANNOT_SPEAK if self._unheard else self._process.exitcode
        ended = Ended(exit_code=exit_code, report=self._fault_report())
        self.close()
        with contextlib.suppress(ValueError):
            self._process.close()  # ValueError: somebody else has reaped it, so multiprocessing thinks that it lives
        self._on_ended(ended)

    def _fault_report(self) -> str:
        assert self._faults is not None
        size = self._faults.seek(0, os.SEEK_END)
        self._faults.seek(0)
        text = self._faults.read(min(size, _DRAIN_BYTES)).decode(errors="replace")
        return handler_frames(text)

    def _watch(self, descriptor: int, callback: Callable[[], None]) -> None:
        self._watched = descriptor
        self._loop.add_reader(descriptor, callback)

    def _unwatch(self) -> None:
        if self._watched is not None:
            self._loop.remove_reader(self._watched)
            self._watched = None


def _drain(protocol: FrameProtocol[FromWorker], channel: int) -> None:
    """Read what the worker still said; a grandchild may hold the socket, so no end-of-file is waited for."""
    with contextlib.suppress(OSError):
        while data := os.read(channel, _DRAIN_BYTES):
            protocol.data_received(data)


def _shield_children() -> None:
    """Block SIGINT in this thread, for the fork server and every worker to inherit until they can ignore it properly.

    Else an early Ctrl-C kills those that are still importing, with a traceback each. The resource tracker comes first:
    multiprocessing starts it together with the first process, and unblocks SIGINT in the thread that does.
    """
    multiprocessing.resource_tracker.ensure_running()
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})


def _preload_worker(context: BaseContext) -> None:
    """Have the fork server import our modules once, instead of each worker; unless the program chose for itself.

    This also keeps newer Pythons from importing the user's main module in the fork server.
    """
    server = getattr(multiprocessing.forkserver, "_forkserver", None)
    if getattr(server, "_preload_modules", None) == ["__main__"]:
        context.set_forkserver_preload(_PRELOADED)
