"""What a sweep deletes, what it tries again, and what it leaves alone."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec import structs

from osqueue import host
from osqueue.blame import Blame, Slot
from osqueue.broker.sweep import AT_ONCE, Sweep
from osqueue.broker.writer import WorkThread
from osqueue.core.messages import Claim, Holder
from osqueue.storage import WriteFailed
from osqueue.storage.memory import MemoryStorage
from tests.broker.bed import Bed

DEADLINE_S = 30


class Stubborn(MemoryStorage):
    """Refuses to delete some keys."""

    def __init__(self) -> None:
        super().__init__()
        self.refused: set[str] = set()
        self.tried: list[str] = []

    def delete(self, key: str) -> None:
        self.tried.append(key)
        if key in self.refused:
            raise WriteFailed("no", key=key)
        super().delete(key)


class Swept:
    """A sweep in a loop of its own, over a commit loop on the bench."""

    def __init__(self, directory: str = "") -> None:
        self.bed = Bed()
        self.storage = Stubborn()
        self.thread = WorkThread(asyncio.get_running_loop(), "sweep")
        self.sweep = Sweep(self.storage, self.bed.loop, self.thread, directory, on_deleted=lambda: None)

    @property
    def trash(self) -> list[str]:
        return self.bed.loop.machine.state.frame.trash

    def drop(self, *keys: str) -> None:
        """As if a commit that dropped these had landed."""
        self.trash.extend(keys)
        self.sweep.delete(list(keys))

    async def settle(self, rounds: int = 10) -> None:
        """Let the thread do what it was given, and what follows from that."""
        for _ in range(rounds):
            done = asyncio.Event()
            self.thread.submit(lambda: None, done=lambda _, done=done: done.set(), failed=lambda _: None)
            await asyncio.wait_for(done.wait(), DEADLINE_S)


def test_one_key_that_cannot_be_deleted_keeps_none_of_the_others():
    async def main() -> None:
        swept = Swept()
        swept.storage.refused = {"segments/1-1.jsonl"}

        swept.drop("segments/1-1.jsonl", "segments/2-1.jsonl")
        await swept.settle()

        assert swept.trash == ["segments/1-1.jsonl"]

    asyncio.run(main())


def test_what_could_not_be_deleted_is_tried_again_with_the_next_deletion():
    async def main() -> None:
        swept = Swept()
        swept.storage.refused = {"segments/1-1.jsonl"}
        swept.drop("segments/1-1.jsonl")
        await swept.settle()
        swept.storage.refused = set()

        swept.drop("segments/2-1.jsonl")
        await swept.settle()

        assert swept.trash == []

    asyncio.run(main())


def test_much_that_cannot_be_deleted_is_tried_again_a_part_at_a_time():
    async def main() -> None:
        swept = Swept()
        keys = [f"segments/{number}-1.jsonl" for number in range(1, 3 * AT_ONCE + 1)]
        swept.storage.refused = set(keys)
        swept.drop(*keys)
        await swept.settle()
        swept.storage.tried.clear()

        for number in range(3):
            swept.drop(f"segments/{1000 + number}-1.jsonl")
            await swept.settle()

        assert len(swept.storage.tried) == 3 + 3 * AT_ONCE
        assert set(keys) <= set(swept.storage.tried)
        assert swept.trash == keys

    asyncio.run(main())


@pytest.fixture
def living() -> Iterator[Holder]:
    """A process that lives until the test has ended."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        yield structs.replace(host.this_process(), pid=child.pid, started=host.start_time(child.pid) or 0)
        child.kill()


@pytest.fixture
def dead() -> Holder:
    """A process that has ended."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        started = host.start_time(child.pid) or 0
    return structs.replace(host.this_process(), pid=child.pid, started=started)


def blame_file(directory: Path, name: str, *, owner: Holder, worker: Holder) -> Path:
    path = directory / "blame" / name
    path.parent.mkdir(exist_ok=True)
    Blame.create(path, 1, owner=owner)
    Slot(path, 0, pid=worker.pid, process_started=worker.started)
    return path


def test_the_blame_files_that_killed_pools_left_are_removed_after_a_takeover(tmp_path, dead):
    async def main() -> None:
        for number in range(AT_ONCE + 5):
            blame_file(tmp_path, f"{number}", owner=dead, worker=dead)
        swept = Swept(str(tmp_path))

        swept.sweep.start(swept.bed.loop.landed_frame)
        await swept.settle()

        assert list((tmp_path / "blame").iterdir()) == []

    asyncio.run(main())


def test_blame_files_of_the_living_and_of_leases_are_left_alone(tmp_path, dead, living):
    async def main() -> None:
        kept = {
            blame_file(tmp_path, "supervisor-lives", owner=living, worker=dead),
            blame_file(tmp_path, "worker-lives", owner=dead, worker=living),
            blame_file(tmp_path, "elsewhere", owner=structs.replace(dead, pid_namespace="other"), worker=dead),
            blame_file(tmp_path, "leased", owner=dead, worker=dead),
        }
        being_made = tmp_path / "blame" / "being-made"
        being_made.touch()
        blame_file(tmp_path, "nobodys", owner=dead, worker=dead)
        swept = Swept(str(tmp_path))
        swept.bed.connect(1, "s", holder=structs.replace(dead, blame="blame/leased"))
        swept.bed.push(1, b"1")
        swept.bed.say(1, Claim(1, ["default"], 1, standing=True))

        swept.sweep.start(swept.bed.loop.landed_frame)
        await swept.settle()

        assert set((tmp_path / "blame").iterdir()) == kept | {being_made}

    asyncio.run(main())
