"""A lease ends with the process that holds it, whenever it was granted."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from osqueue.broker.holders import Holders
from osqueue.broker.writer import WorkThread
from osqueue.clock import QueueClock
from osqueue.core.messages import Claim
from tests.broker.bed import Bed
from tests.processes.test_host import holder_of

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux")
DEADLINE_S = 30


class Watched:
    """A commit loop on the bench, whose holders are watched; counts what the loop is told."""

    def __init__(self, reader: WorkThread) -> None:
        self.bed = Bed()
        self._reader = reader
        self.told = asyncio.Event()
        self.looks = 0
        self.errors: list[Exception] = []
        self.holders = Holders(
            asyncio.get_running_loop(),
            self.bed.loop,
            reader,
            clock=QueueClock(),
            directory="",
            on_ended=self._ended,
            failed=self.errors.append,
        )

    def _ended(self) -> None:
        self.looks += 1
        self.told.set()

    async def wait_until_told(self) -> None:
        await asyncio.wait_for(self.told.wait(), DEADLINE_S)
        self.told.clear()
        assert self.errors == []

    async def all_was_read(self) -> None:
        """The reader has done what it was given until now."""
        read = asyncio.Event()
        self._reader.submit(lambda: None, done=lambda _: read.set(), failed=self.errors.append)
        await asyncio.wait_for(read.wait(), DEADLINE_S)

    def grant_one(self, pid: int) -> None:
        """The process holds a job."""
        self.bed.connect(1, "a", holder=holder_of(pid))
        self.bed.claim(1, 1)
        self.bed.push(1, b"1")
        self.bed.settle()

    def leases(self) -> int:
        return len(list(self.bed.loop.machine.state.leases.all()))


@asynccontextmanager
async def watched() -> AsyncIterator[Watched]:
    reader = WorkThread(asyncio.get_running_loop(), "reader")
    watched = Watched(reader)
    try:
        yield watched
    finally:
        watched.holders.close()
        reader.stop()


def test_a_lease_ends_with_its_holder_and_one_granted_after_that_ends_too(child: subprocess.Popen[bytes]) -> None:
    async def scene() -> None:
        async with watched() as it:
            bed = it.bed
            it.grant_one(child.pid)
            it.holders.watch_all()
            assert it.leases() == 1

            child.kill()
            child.wait()
            await it.wait_until_told()
            bed.turn()
            bed.settle()
            assert it.leases() == 0

            # What it had sent before its end is read after it.
            bed.say(1, Claim(2, ["default"], 1, standing=True))
            bed.settle()
            assert it.leases() == 1
            it.holders.watch_all()
            await it.wait_until_told()
            bed.turn()
            bed.settle()
            assert it.leases() == 0

    asyncio.run(scene())


def test_a_lease_that_is_about_to_end_is_not_looked_at_again(child: subprocess.Popen[bytes]) -> None:
    async def scene() -> None:
        async with watched() as it:
            bed = it.bed
            it.grant_one(child.pid)
            child.kill()
            child.wait()
            it.holders.watch_all()
            await it.wait_until_told()

            it.holders.watch_all()
            await it.all_was_read()
            bed.turn()
            bed.settle()
            bed.push(1, b"2")
            bed.settle()
            it.holders.watch_all()
            await it.all_was_read()

            assert it.leases() == 0
            assert it.looks == 1

    asyncio.run(scene())
