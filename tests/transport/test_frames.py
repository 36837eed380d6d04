"""Frames: whatever way the bytes arrive, the same messages come out; what is no frame ends the connection."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from osqueue.core.messages import Answer, FromBroker, Granted, Handout, Pushed
from osqueue.transport.frames import FrameError, FrameProtocol, encode_frame, read_frame, write_frame

MESSAGES = [
    Answer(1, Pushed([(1, 5)])),
    Granted(2, 7, [Handout(6, 1, "default", b"x" * 300, 123)]),
    Answer(3, Pushed([])),
]


class Transport(asyncio.Transport):
    """Stands for the loop's side of the connection: it remembers what it was told."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[bytes] = []
        self.ended = False

    def write(self, data: bytes) -> None:  # type: ignore[override]
        self.written.append(bytes(data))

    def close(self) -> None:
        self.ended = True

    def abort(self) -> None:
        self.ended = True


class Peer:
    def __init__(self, *, max_frame: int = 1 << 20) -> None:
        self.got: list[FromBroker] = []
        self.lost: list[Exception | None] = []
        self.transport = Transport()
        self.protocol: FrameProtocol[FromBroker] = FrameProtocol(
            msgspec.msgpack.Decoder(FromBroker),
            on_message=self.got.append,
            on_lost=self.lost.append,
            max_frame=max_frame,
        )
        self.protocol.connection_made(self.transport)

    def end(self) -> Exception | None:
        self.protocol.connection_lost(None)
        assert len(self.lost) == 1
        return self.lost[0]


def wire(messages: list[FromBroker]) -> bytes:
    return b"".join(encode_frame(message) for message in messages)


def test_messages_split_at_every_byte_arrive_whole_and_in_order():
    data = wire(MESSAGES)
    for cut in range(len(data) + 1):
        peer = Peer()

        peer.protocol.data_received(data[:cut])
        peer.protocol.data_received(data[cut:])

        assert peer.got == MESSAGES


def test_messages_that_arrive_byte_by_byte_are_the_same():
    peer = Peer()

    for byte in wire(MESSAGES):
        peer.protocol.data_received(bytes([byte]))

    assert peer.got == MESSAGES
    assert peer.end() is None


@given(st.lists(st.binary(max_size=40), max_size=6), st.data())
def test_any_cutting_gives_the_same_messages(payloads, data):
    messages: list[FromBroker] = [Granted(1, 1, [Handout(1, 1, "t", payload, 0)]) for payload in payloads]
    rest = wire(messages)
    peer = Peer()

    while rest:
        size = data.draw(st.integers(1, len(rest)))
        peer.protocol.data_received(rest[:size])
        rest = rest[size:]

    assert peer.got == messages


def test_a_length_above_the_limit_ends_the_connection_before_memory_is_taken():
    peer = Peer(max_frame=100)

    peer.protocol.data_received((101).to_bytes(4, "big"))

    assert peer.transport.ended
    assert "bytes=101" in str(peer.end())


def test_garbage_ends_the_connection_with_its_reason_and_what_follows_is_not_delivered():
    peer = Peer()

    peer.protocol.data_received((3).to_bytes(4, "big") + b"\xc1\xc1\xc1" + wire(MESSAGES))

    assert peer.got == []
    assert peer.transport.ended
    assert isinstance(peer.end(), FrameError)


@given(st.binary(max_size=200))
def test_no_bytes_whatever_raise_in_the_loop(noise):
    peer = Peer(max_frame=1000)

    peer.protocol.data_received(noise)

    assert len(peer.got) <= len(noise)


def test_an_end_inside_a_frame_is_told_from_an_orderly_one():
    peer = Peer()

    peer.protocol.data_received(wire(MESSAGES)[:-1])

    assert peer.got == MESSAGES[:-1]
    assert "inside a frame" in str(peer.end())


def test_nothing_is_delivered_after_close():
    peer = Peer()
    peer.protocol._on_message = lambda message: (peer.got.append(message), peer.protocol.close())

    peer.protocol.data_received(wire(MESSAGES))

    assert peer.got == MESSAGES[:1]
    assert peer.end() is None


def test_a_message_above_the_limit_is_refused_by_its_sender():
    with pytest.raises(FrameError, match="limit=100"):
        encode_frame(b"x" * 200, max_frame=100)


def test_writable_follows_the_transport():
    told: list[bool] = []
    peer = Peer()
    peer.protocol._on_writable = lambda: told.append(peer.protocol.writable)

    peer.protocol.pause_writing()
    paused = peer.protocol.writable
    peer.protocol.resume_writing()

    assert (paused, told) == (False, [True])


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


def test_blocking_ends_exchange_a_message_larger_than_the_socket_buffer(pair):
    ours, theirs = pair
    message = Granted(1, 1, [Handout(1, 1, "default", b"x" * 3_000_000, 0)])
    writer = threading.Thread(target=write_frame, args=(theirs, message))
    writer.start()

    got = read_frame(ours, msgspec.msgpack.Decoder(FromBroker))

    writer.join()
    assert got == message


def test_a_blocking_reader_tells_an_orderly_end_from_a_cut_one(pair):
    ours, theirs = pair
    decoder = msgspec.msgpack.Decoder(FromBroker)
    theirs.sendall(wire(MESSAGES[:2])[:-1])
    theirs.close()

    assert read_frame(ours, decoder) == MESSAGES[0]
    with pytest.raises(FrameError, match="inside a frame"):
        read_frame(ours, decoder)
    with pytest.raises(EOFError):
        read_frame(ours, decoder)


def test_a_blocking_reader_refuses_an_oversize_length(pair):
    ours, theirs = pair
    theirs.sendall(b"\xff\xff\xff\xff")

    with pytest.raises(FrameError, match="limit=1000"):
        read_frame(ours, msgspec.msgpack.Decoder(FromBroker), max_frame=1000)
