"""The worker's second thread: it takes in what the supervisor says while a job runs, and watches that it lives."""

from __future__ import annotations

import select
import signal
import socket
import threading
from typing import assert_never

import msgspec

from osqueue.context import Stage
from osqueue.transport.frames import FrameError, read_frame
from osqueue.worker.inbox import Inbox
from osqueue.worker.lifeline import die
from osqueue.worker.messages import CancelJobs, End, GiveBack, GivenBack, ToWorker, Work, WriteOut
from osqueue.worker.outbox import Outbox

_SYNCHRONOUS = {signal.SIGSEGV, getattr(signal, "SIGBUS", signal.SIGSEGV), signal.SIGFPE, signal.SIGILL, signal.SIGABRT}


def leave_signals_to_main_thread() -> None:
    """Block signals in the calling thread: one delivered here would not wake the main thread's system call."""
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals() - _SYNCHRONOUS)


class Reader:
    """Reads until the supervisor is gone, which ends the process. It never waits for the main thread's job."""

    def __init__(self, channel: socket.socket, inbox: Inbox, outbox: Outbox, stage: Stage) -> None:
        self._channel = channel
        self._inbox = inbox
        self._outbox = outbox
        self._stage = stage
        self._decoder = msgspec.msgpack.Decoder(ToWorker)

    def start(self, ends: list[int]) -> None:
        """Start the thread.

        Args:
            ends: descriptors that turn readable, or hang up, when the supervisor is gone.
        """
        threading.Thread(target=self._read, args=(ends,), name="osqueue-reader", daemon=True).start()

    def _read(self, ends: list[int]) -> None:
        leave_signals_to_main_thread()
        watch = select.poll()
        watch.register(self._channel, select.POLLIN)
        for descriptor in ends:
            watch.register(descriptor, select.POLLIN)
        try:
            while all(descriptor == self._channel.fileno() for descriptor, _ in watch.poll()):
                self._handle(read_frame(self._channel, self._decoder))
        except (EOFError, OSError, FrameError):
            die()
        die()

    def _handle(self, message: ToWorker) -> None:
        match message:
            case Work():
                if self._stage.cancelled_ids:
                    self._stage.cancelled_ids.difference_update(job.id for job in message.jobs)
                self._inbox.put(message.jobs, message.offset_ms)
            case GiveBack():
                self._outbox.say(GivenBack(message.number, self._inbox.take_back(frozenset(message.ids))))
                self._outbox.write_out()
            case CancelJobs():
                not_begun = self._inbox.take_back(frozenset(message.ids))
                self._stage.cancelled_ids.update(set(message.ids).difference(not_begun))
                self._outbox.say(GivenBack(0, not_begun))
            case WriteOut():
                self._outbox.write_out()
            case End():
                self._inbox.end()
            case _:
                assert_never(message)
