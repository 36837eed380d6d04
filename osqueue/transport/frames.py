"""Messages as frames on a byte stream: four bytes of length, big-endian, then msgspec's msgpack.

    FrameProtocol            on an event loop, never blocking
    read_frame, write_frame  on a blocking socket

Rules:
* A length is checked before memory is taken for it.
* Bytes that are no frame of the expected type end the connection; the reason is told to ``on_lost``.
* Nothing here waits for the peer: what cannot be sent yet is buffered, and ``writable`` says so.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Generic, TypeVar, cast

import msgspec

MAX_FRAME_BYTES = 64 * 1024 * 1024
_HEADER_BYTES = 4
_CHUNK_BYTES = 1024 * 1024

T = TypeVar("T")

_encoder = msgspec.msgpack.Encoder()


class FrameError(ValueError):
    """The peer sent, or was to be sent, what is no acceptable frame; the connection cannot go on."""


def encode_frame(message: object, *, max_frame: int = MAX_FRAME_BYTES) -> bytes:
    """The message as one frame.

    Raises:
        FrameError: it is larger than ``max_frame`` bytes.
    """
    body = _encoder.encode(message)
    if len(body) > max_frame:
        raise FrameError(f"message is above the frame limit bytes={len(body)} limit={max_frame}")
    return len(body).to_bytes(_HEADER_BYTES, "big") + body


class FrameProtocol(asyncio.Protocol, Generic[T]):
    """One end of a connection on an event loop. All methods and callbacks run in the loop's thread.

    Args:
        decoder: turns a frame's body into a message.
        on_message: called with each message, in order; not after `close`.
        on_lost: called once, when the connection has ended: None for an orderly end by either side, else why.
        on_made: called when the connection stands, for servers.
        on_writable: called when ``writable`` turns true again.
        max_frame: largest acceptable body in bytes.
    """

    def __init__(
        self,
        decoder: msgspec.msgpack.Decoder[T],
        *,
        on_message: Callable[[T], None],
        on_lost: Callable[[Exception | None], None],
        on_made: Callable[[FrameProtocol[T]], None] | None = None,
        on_writable: Callable[[], None] | None = None,
        max_frame: int = MAX_FRAME_BYTES,
    ) -> None:
        self._decoder = decoder
        self._on_message = on_message
        self._on_lost = on_lost
        self._on_made = on_made
        self._on_writable = on_writable
        self._max_frame = max_frame
        self._buffer = bytearray()
        self._needed = _HEADER_BYTES
        self._transport: asyncio.Transport | None = None
        self._closing = False
        self._reason: Exception | None = None
        self.writable = True
        """False while the transport's buffer is above its high-water mark; what is sent then is still taken."""

    @property
    def transport(self) -> asyncio.Transport:
        """The connection's transport, for pausing reads and peer names."""
        assert self._transport is not None, "not connected yet"
        return self._transport

    def send(self, message: object) -> None:
        """Send a message, or buffer it; after the end of the connection it is dropped."""
        self.send_bytes(encode_frame(message, max_frame=self._max_frame))

    def send_bytes(self, frames: bytes) -> None:
        """Send what `encode_frame` made, one frame or several joined."""
        if self._transport is not None and not self._closing:
            self._transport.write(frames)

    def close(self) -> None:
        """End the connection when what is buffered has been sent."""
        if not self._closing:
            self._closing = True
            if self._transport is not None:
                self._transport.close()

    def abort(self, reason: Exception | None = None) -> None:
        """End the connection at once; what is buffered is dropped."""
        self._closing = True
        self._reason = self._reason or reason
        if self._transport is not None:
            self._transport.abort()

    # ------------------------------------------------------------------------------------------------ asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        if self._closing:
            self._transport.abort()
        if self._on_made is not None:
            self._on_made(self)

    def data_received(self, data: bytes) -> None:
        if not self._buffer:
            self._keep(data, self._take(data))
            return
        self._buffer += data
        if len(self._buffer) < self._needed:
            return
        whole, self._buffer = self._buffer, bytearray()
        self._keep(whole, self._take(whole))

    def pause_writing(self) -> None:
        self.writable = False

    def resume_writing(self) -> None:
        self.writable = True
        if self._on_writable is not None:
            self._on_writable()

    def connection_lost(self, exc: Exception | None) -> None:
        cut = bool(self._buffer) and not self._closing
        self._closing = True
        self._buffer = bytearray()
        self._on_lost(self._reason or exc or (FrameError("connection ended inside a frame") if cut else None))

    # ---------------------------------------------------------------------------------------------------------- private

    def _take(self, data: bytes | bytearray) -> int:
        """Deliver the whole frames at the start of ``data``; return how many bytes they were."""
        offset = 0
        size = len(data)
        with memoryview(data) as view:
            while not self._closing:
                self._needed = _HEADER_BYTES
                if size - offset < _HEADER_BYTES:
                    break
                length = int.from_bytes(view[offset : offset + _HEADER_BYTES], "big")
                if length > self._max_frame:
                    self.abort(FrameError(f"frame is above the limit bytes={length} limit={self._max_frame}"))
                    break
                end = offset + _HEADER_BYTES + length
                self._needed = _HEADER_BYTES + length
                if end > size:
                    break
                self._deliver(view[offset + _HEADER_BYTES : end])
                offset = end
        return offset

    def _deliver(self, body: memoryview) -> None:
        with body:
            try:
                message = self._decoder.decode(body)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
                self.abort(FrameError(f"frame cannot be decoded: {error}"))
                return
        self._on_message(message)

    def _keep(self, data: bytes | bytearray, taken: int) -> None:
        if self._closing or taken == len(data):
            return
        self._buffer += memoryview(data)[taken:]


def write_frame(sock: socket.socket, message: object, *, max_frame: int = MAX_FRAME_BYTES) -> None:
    """Send a message on a blocking socket.

    Raises:
        FrameError: the message is larger than ``max_frame`` bytes; nothing was sent.
        OSError: the connection has ended; the peer may have got a part.
    """
    sock.sendall(encode_frame(message, max_frame=max_frame))


def read_frame(sock: socket.socket, decoder: msgspec.msgpack.Decoder[T], *, max_frame: int = MAX_FRAME_BYTES) -> T:
    """Wait for one message on a blocking socket.

    Raises:
        EOFError: the peer has ended the connection between two frames.
        FrameError: the bytes are no acceptable frame, or ended inside one; close the connection.
        OSError: the connection was reset.
    """
    header = _read_exactly(sock, _HEADER_BYTES)
    if not header:
        raise EOFError("connection ended")
    length = int.from_bytes(header, "big")
    if len(header) == _HEADER_BYTES and length > max_frame:
        raise FrameError(f"frame is above the limit bytes={length} limit={max_frame}")
    body = _read_exactly(sock, length) if len(header) == _HEADER_BYTES else b""
    if len(header) < _HEADER_BYTES or len(body) < length:
        raise FrameError("connection ended inside a frame")
    try:
        return decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise FrameError(f"frame cannot be decoded: {error}") from error


def _read_exactly(sock: socket.socket, size: int) -> bytes | bytearray:
    """So many bytes, or fewer if the peer has ended the connection."""
    data = sock.recv(min(size, _CHUNK_BYTES)) if size else b""
    if len(data) in (0, size):
        return data
    whole = bytearray(data)
    while len(whole) < size:
        data = sock.recv(min(size - len(whole), _CHUNK_BYTES))
        if not data:
            break
        whole += data
    return whole
