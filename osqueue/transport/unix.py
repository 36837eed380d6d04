"""The Unix socket ``broker.sock`` in a queue directory, by which clients of the same host join a running broker.

Rules:
* The socket has mode 0600; each side looks at the other's user id, and ends the connection if it is neither its own
  nor root's.
* A socket's address has at most 107 bytes, a directory's path may have more: both sides reach the socket through the
  directory's descriptor, ``/proc/self/fd/N/broker.sock``.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
from asyncio.trsock import TransportSocket
from collections.abc import Callable, Iterator
from pathlib import Path

from osqueue.errors import AccessDenied
from osqueue.reactor import close_after_fork
from osqueue.transport.connector import ProtocolFactory

SOCKET_NAME = "broker.sock"
_BACKLOG = 128
_PEER_CREDENTIALS = struct.Struct("3i")


class UnixConnector:
    """Connections to the broker that has a directory open. Used in one loop's thread.

    Args:
        directory: the queue's directory.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    async def connect(self, factory: ProtocolFactory) -> None:
        """See `osqueue.transport.connector.Connector`."""
        sock = connect_unix(self._directory)
        close_after_fork(sock)
        try:
            await asyncio.get_running_loop().create_connection(factory, sock=sock)
        except BaseException:
            sock.close()
            raise

    def close(self) -> None:
        """See `osqueue.transport.connector.Connector`: nothing is kept between connections."""


class Accepted:
    """The descriptor of a connection that an event loop has accepted, for `close_after_fork`.

    Args:
        sock: the transport's, which has no `close`.
    """

    def __init__(self, sock: TransportSocket) -> None:
        self._sock = sock

    def close(self) -> None:
        """Let go of the connection; the number stays open until its owner closes it, so it is nobody else's."""
        number = self._sock.fileno()
        if number < 0:
            return
        nowhere = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        try:
            os.dup2(nowhere, number, inheritable=False)
        finally:
            os.close(nowhere)


def connect_unix(directory: Path) -> socket.socket:
    """A non-blocking socket that is connected to the directory's broker.

    Raises:
        OSError: no broker has the directory open, or it accepts nothing now; try again later.
        AccessDenied: the socket belongs to another user.
    """
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.settimeout(0)
        with _address(directory) as address:
            sock.connect(address)
        check_peer(sock)
    except BaseException:
        sock.close()
        raise
    return sock


async def serve_unix(directory: Path, factory: Callable[[], asyncio.Protocol]) -> asyncio.Server:
    """Serve connections to a queue directory in this event loop; the caller holds the directory's lock.

    A socket that a dead broker left behind is replaced. Nobody can connect before somebody accepts.

    Raises:
        OSError: the directory takes no socket.
    """
    sock = _bound_unix(directory)
    try:
        close_after_fork(sock)
        # Not `create_unix_server`: since Python 3.13 it looks at the socket's address, which is valid no longer.
        return await asyncio.get_running_loop().create_server(factory, sock=sock, backlog=_BACKLOG)
    except BaseException:
        sock.close()
        raise


def _bound_unix(directory: Path) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.settimeout(0)
        with _address(directory) as address:
            _bind(sock, address)
    except BaseException:
        sock.close()
        raise
    return sock


def remove_unix(directory: Path) -> None:
    """Take the directory's socket away; the caller holds the directory's lock."""
    with contextlib.suppress(FileNotFoundError):
        (directory / SOCKET_NAME).unlink()


def check_peer(sock: socket.socket) -> None:
    """Refuse a peer of another user.

    Raises:
        AccessDenied: the peer is neither our user nor root.
    """
    if not hasattr(socket, "SO_PEERCRED"):
        return  # macOS: the socket's mode in a 0700 directory stands alone
    credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER_CREDENTIALS.size)
    _, uid, _ = _PEER_CREDENTIALS.unpack(credentials)
    if uid not in (0, os.geteuid()):
        raise AccessDenied(f"the other end of the queue's socket belongs to another user uid={uid}")


def _bind(sock: socket.socket, address: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(address)
    sock.bind(address)
    # The directory is 0700, so nobody else can connect between the two calls.
    os.chmod(address, 0o600)


@contextlib.contextmanager
def _address(directory: Path) -> Iterator[str]:
    """The socket's address, valid inside the block."""
    path = str(directory / SOCKET_NAME)
    if not os.path.isdir("/proc/self/fd"):
        yield path
        return
    descriptor = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{descriptor}/{SOCKET_NAME}"
    finally:
        os.close(descriptor)
