"""``osqueue serve``: a broker alone, in the foreground, until a signal ends it."""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import signal
from pathlib import Path
from typing import Any

from osqueue.broker.takeover import take_over
from osqueue.broker_server import BrokerServer
from osqueue.cli import exit_status
from osqueue.cli.command import Command, add_grace, count, given, seconds
from osqueue.cli.exit_status import CannotOpen, unopened
from osqueue.cli.target import find_directory
from osqueue.core.settings import QueueSettings
from osqueue.errors import OsqueueError, QueueLocked
from osqueue.settings import broker_identity, queue_settings
from osqueue.storage import DirectoryStorage, open_directory

_log = logging.getLogger("osqueue")

_STATUS_AFTER = {signal.SIGINT: exit_status.INTERRUPTED, signal.SIGTERM: exit_status.TERMINATED}


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("path", metavar="PATH", help="the queue's directory; made if it is not there")
    parser.add_argument(
        "--heartbeat-timeout", metavar="S", type=seconds, help="seconds until a silent holder of a claim loses its jobs"
    )
    parser.add_argument("--identity", metavar="NAME", help="the broker's name in the queue's log of takeovers")
    parser.add_argument("--max-attempts", metavar="N", type=count, help="runs before a job is dead (default: 4)")
    parser.add_argument("--retry-backoff", metavar="S", type=seconds, help="most seconds before the first retry")
    add_grace(parser)


def _run(options: argparse.Namespace) -> int:
    settings = queue_settings(
        **given(
            lease=options.heartbeat_timeout,
            max_attempts=options.max_attempts,
            retry_backoff=options.retry_backoff,
            retry_backoff_max=_longest_backoff(options.retry_backoff),
        )
    )
    identity = broker_identity(options.identity)
    directory = find_directory(options.path, create=True).absolute()
    serving = _Serving(_opened(directory), directory, settings, identity=identity, grace_s=options.grace)
    return asyncio.Runner(loop_factory=asyncio.SelectorEventLoop).run(serving.run())


def _longest_backoff(retry_backoff: float | None) -> float | None:
    """There is no option for it: a first backoff above the usual longest one is the longest itself."""
    return None if retry_backoff is None else max(retry_backoff, QueueSettings().retry_backoff_max_s)


def _opened(directory: Path) -> DirectoryStorage:
    try:
        return open_directory(directory)
    except QueueLocked as error:
        held = f"path={directory} pid={error.pid} host={error.host}"
        raise CannotOpen(f"another process has the queue open and serves it, or is about to: {held}") from error
    except (OsqueueError, ValueError, OSError) as error:
        raise unopened(error, directory) from error


class _Serving:
    """One life of the broker, on the main thread's loop. Closes the storage in the end."""

    def __init__(
        self,
        storage: DirectoryStorage,
        directory: Path,
        settings: QueueSettings,
        *,
        identity: str | None,
        grace_s: float,
    ) -> None:
        self._storage = storage
        self._directory = directory
        self._settings = settings
        self._identity = identity
        self._grace_s = grace_s
        self._signal: signal.Signals | None = None
        self._error: Exception | None = None
        self._given_up = asyncio.Event()

    async def run(self) -> int:
        """Serve until a signal, or until the broker cannot go on; the exit status.

        Raises:
            CannotOpen: the queue cannot be taken over.
            OsqueueError: the broker could not go on.
        """
        loop = asyncio.get_running_loop()
        try:
            taken = take_over(self._storage, self._settings, identity=self._identity)
        except BaseException as error:
            self._storage.close()
            if isinstance(error, OsqueueError):
                raise unopened(error, self._directory) from error
            raise
        server = BrokerServer(loop, self._storage, taken, directory=str(self._directory), on_fatal=self._fatal)
        for number in _STATUS_AFTER:
            loop.add_signal_handler(number, self._signalled, number, server)
        server.start()
        try:
            await server.listen(str(self._directory))
            gc.freeze()
            print(f"serving {self._directory} epoch={taken.frame.epoch}", flush=True)
        except OSError as error:
            self._fatal(error)
            server.stop()
        return await self._ended(server)

    async def _ended(self, server: BrokerServer) -> int:
        given_up: asyncio.Future[Any] = asyncio.create_task(self._given_up.wait())
        await asyncio.wait([given_up, server.stopped], return_when=asyncio.FIRST_COMPLETED)
        given_up.cancel()
        if server.stopped.done():
            self._storage.close()
        else:
            # Its lock goes with the process; what was acknowledged is on disk, and the next broker starts from that.
            _log.warning("the broker did not end within --grace")
        if self._error is not None:
            raise self._error
        assert self._signal is not None, "a broker ends by an error or by a signal"
        return _STATUS_AFTER[self._signal]

    def _signalled(self, number: signal.Signals, server: BrokerServer) -> None:
        """The first one stops in order, a second one at once."""
        if self._signal is not None:
            self._given_up.set()
            return
        self._signal = number
        server.stop()
        asyncio.get_running_loop().call_later(self._grace_s, self._given_up.set)

    def _fatal(self, error: Exception) -> None:
        self._error = self._error or error


SERVE = Command("serve", "keep a queue open for others, until a signal", _add_arguments, _run)
