"""Handlers that run until they are interrupted."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
import threading
import time
import weakref

import msgspec

from osqueue import SoftTimeout, current_job
from osqueue.transport.frames import read_frame
from osqueue.worker.messages import FromWorker, GivenBack
from osqueue.worker.outbox import Outbox
from osqueue.worker.soft_timeout import SIGNAL

_LONG_S = 600.0


def sleep(payload):
    time.sleep(_LONG_S)


def spin(payload):
    count = 0
    while True:
        count += 1


def wait_for_lock(payload):
    threading.Event().wait()


def wait_for_child(payload):
    done = os.popen(f"exec sleep {_LONG_S}")
    done.read()


async def sleep_async(payload):
    await asyncio.sleep(_LONG_S)


async def spin_async(payload):
    await asyncio.sleep(0)
    spin(payload)


async def gather(payload):
    await asyncio.gather(sleep_async(payload), sleep_async(payload))


async def wait_in_time(payload):
    async with asyncio.timeout(_LONG_S):
        await asyncio.Event().wait()


async def wait_for_stubborn(payload):
    """What it waits for takes no notice of its cancellation, and gives a result in the end."""

    async def stubborn():
        try:
            await asyncio.sleep(_LONG_S)
        except asyncio.CancelledError:
            return "a result"

    return await asyncio.create_task(stubborn())


async def wait_for_failing(payload):
    """What it waits for fails when it is cancelled, and the handler goes on."""

    async def failing():
        try:
            await asyncio.sleep(_LONG_S)
        except asyncio.CancelledError:
            raise LookupError("on the way out") from None

    try:
        await asyncio.create_task(failing())
    except LookupError:
        await asyncio.sleep(_LONG_S)


async def group(payload):
    """A task group passes on what is raised in its block in an exception group, or leaves its tasks behind."""
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(asyncio.sleep(_LONG_S))
        if payload:
            await asyncio.sleep(_LONG_S)


SYNC = [sleep, spin, wait_for_lock, wait_for_child]
ASYNC = [sleep_async, spin_async, gather, wait_in_time, wait_for_stubborn, wait_for_failing]


def caught(name):
    """Run another of these handlers, and catch what interrupts it."""
    started = time.monotonic()
    try:
        globals()[name](None)
    except SoftTimeout as timeout:
        return [str(timeout), time.monotonic() - started]


async def caught_async(name):
    started = time.monotonic()
    try:
        await globals()[name](None)
    except SoftTimeout as timeout:
        before = asyncio.current_task().cancelling()
        await asyncio.sleep(0.01)  # nothing of the interruption is left in the task
        return [str(timeout), time.monotonic() - started, before]


async def tasks(payload):
    return len(asyncio.all_tasks())


async def leave_task(payload):
    """Return while a task of its own goes on."""
    await_forever = asyncio.get_running_loop().create_task(asyncio.sleep(_LONG_S))
    return await_forever.get_name()


def again_and_again(payload):
    """Catch the first interruption, and go on for much longer than it took to come."""
    try:
        spin(payload)
    except SoftTimeout:
        spun_until(time.monotonic() + 5 * payload)
    return "once"


async def again_and_again_async(payload):
    try:
        await asyncio.sleep(_LONG_S)
    except SoftTimeout:
        await asyncio.sleep(5 * payload)
    return "once"


IN_ASYNCIO = {"__name__": "asyncio.as_if", "time": time}
exec("def spin(end):\n    while time.monotonic() < end: pass", IN_ASYNCIO)


async def spin_in_asyncio(seconds):
    """The first signals find the event loop's own code, and only then the coroutine's, which catches it."""
    caught_in = "nothing"
    try:
        try:
            IN_ASYNCIO["spin"](time.monotonic() + seconds)
        except SoftTimeout:
            caught_in = "asyncio"
        spin(seconds)
    except SoftTimeout:
        caught_in = "the coroutine"
        await asyncio.sleep(seconds)
    return caught_in


def signal_early(payload):
    """The signal finds this job though it is not due: sent by somebody else, or for the job before."""
    signal.raise_signal(SIGNAL)
    return "went on"


async def signal_early_async(payload):
    signal.raise_signal(SIGNAL)
    await asyncio.sleep(0.01)
    return "went on"


def clean_up_and_fail(payload):
    try:
        sleep(payload)
    except SoftTimeout as timeout:
        raise LookupError("cleaned up") from timeout


def around(job):
    """Take so many seconds, and say what has ended them."""
    seconds, how = job
    try:
        if how == "sleep":
            time.sleep(seconds)
        else:
            spun_until(time.monotonic() + seconds)
    except SoftTimeout:
        return [current_job().id, "interrupted"]
    return [current_job().id, "returned"]


async def around_async(job):
    seconds, how = job
    try:
        if how == "sleep":
            await asyncio.sleep(seconds)
        else:
            spun_until(time.monotonic() + seconds)
    except SoftTimeout:
        return [current_job().id, "interrupted"]
    return [current_job().id, "returned"]


def uncaught(job):
    """As `around`, but it lets the interruption pass."""
    spun_until(time.monotonic() + job[0])
    return [current_job().id, "returned"]


def spun_until(end):
    while time.monotonic() < end:
        pass


def alarm(payload):
    """Use ``SIGALRM`` while the soft timeout comes: both reach the handler."""
    seen = []
    before = signal.signal(signal.SIGALRM, lambda *_: seen.append("alarm"))
    signal.setitimer(signal.ITIMER_REAL, 0.02, 0.02)
    try:
        sleep(payload)
    except SoftTimeout:
        return len(seen)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def remaining(payload):
    return current_job().time_remaining


class Slow(logging.Handler):
    """Takes half a second for each record."""

    def emit(self, record):
        try:
            spun_until(time.monotonic() + 0.5)
        except Exception:  # noqa: BLE001  as every handler of the standard library does
            self.handleError(record)


_log = logging.getLogger("tests.slow")
_log.addHandler(Slow())


class Finalized:
    """Its end takes half a second."""

    def __del__(self):
        spun_until(time.monotonic() + 0.5)


def log_slowly(payload):
    _log.error("a record")


def end_slowly(payload):
    Finalized()


def call_back_slowly(payload):
    watched = Slow()
    weakref.finalize(watched, lambda: spun_until(time.monotonic() + 0.5))
    del watched


def go_on_after(name):
    """Have the soft timeout come in code that would swallow it, and spin afterwards."""
    globals()[name](None)
    spun_until(time.monotonic() + 1)
    return "ran to its end"


async def go_on_after_async(name):
    globals()[name](None)
    spun_until(time.monotonic() + 1)
    return "ran to its end"


def log_and_return(payload):
    """Nothing is left to be interrupted when the record is written."""
    _log.error("a record")


def traced(payload):
    return sys.gettrace() is not None


def say_much(seconds):
    """Write one message to a peer that begins to read long after the soft timeout, and then spin."""
    ours, theirs = socket.socketpair()
    whole = list(range(200_000))
    arrived = []

    def read():
        time.sleep(seconds)
        arrived.append(read_frame(theirs, msgspec.msgpack.Decoder(FromWorker)))

    reader = threading.Thread(target=read)
    reader.start()
    try:
        Outbox(ours).say(GivenBack(1, whole))
        spin(seconds)
    except SoftTimeout:
        reader.join()
        return arrived == [GivenBack(1, whole)]
