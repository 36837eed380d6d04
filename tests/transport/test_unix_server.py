"""The socket in a queue directory is served, or it is not there: nobody waits at one that nobody accepts from."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from osqueue import Broker, Client
from osqueue.core.messages import FromBroker, Hello
from osqueue.transport.frames import read_frame, write_frame
from osqueue.transport.unix import connect_unix


@pytest.fixture
def busy_descriptors() -> Iterator[None]:
    """Descriptors are opened and closed all the time, so that a number that was closed is soon something else."""
    ended = threading.Event()

    def churn() -> None:
        while not ended.is_set():
            for sock in [socket.socket() for _ in range(20)]:
                sock.close()

    threads = [threading.Thread(target=churn) for _ in range(2)]
    for thread in threads:
        thread.start()
    yield
    ended.set()
    for thread in threads:
        thread.join()


@pytest.mark.usefixtures("busy_descriptors")
def test_a_queue_is_opened_and_joined_whatever_becomes_of_descriptors(tmp_path: Path) -> None:
    for number in range(20):
        with Broker.open(tmp_path) as broker, Client.connect(tmp_path) as client:
            client.push(b"1")
            assert broker.stats().pushed == number + 1


def test_a_directory_that_takes_no_socket_leaves_no_lock_and_no_broker(tmp_path: Path) -> None:
    with Broker.open(tmp_path):
        pass
    (tmp_path / "broker.sock").mkdir()

    for _ in range(2):
        with pytest.raises(OSError, match=r"broker\.sock"), contextlib.closing(Broker.open(tmp_path)):
            pass


def test_a_client_sees_the_end_of_a_broker_whose_program_has_forked_a_child_that_lives_on(tmp_path: Path) -> None:
    with Broker.open(tmp_path):
        client = connect_unix(tmp_path)
        client.settimeout(10)
        write_frame(client, Hello("a"))
        read_frame(client, msgspec.msgpack.Decoder(FromBroker))
        child = os.fork()
        if child == 0:
            signal.pause()
    try:
        while client.recv(1024):  # whatever it has to say yet
            continue
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        client.close()
