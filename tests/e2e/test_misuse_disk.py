"""A disk that is full, or that fills up in the middle of a batch: a small file system in memory of its own."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from osqueue import Broker, LocalPool, QueueFull, StorageLost, Unavailable
from osqueue.storage import WriteFailed
from tests.cli.command_line import osqueue, succeed
from tests.contracts.places import mounted, needs_root
from tests.e2e import handlers
from tests.e2e import misused_handlers as misused
from tests.e2e.aftermath import Place
from tests.e2e.program import Program, processes_of
from tests.e2e.waiting import wait_for

pytestmark = [needs_root, pytest.mark.usefixtures("nothing_is_left")]

KIB = 1024
MIB = 1024 * KIB
LITTLE = 160 * KIB
"""Less than the half of 4 MiB below which pushes are refused, and enough for a root beside the one before it."""


class Disk:
    """A file system of 4 MiB with a queue in it, and a file that takes as much room as is asked for."""

    def __init__(self, mount: Path) -> None:
        self.place = Place(mount / "queue")
        self.filler = mount / "filler"

    def free(self) -> int:
        found = os.statvfs(self.place.path)
        return found.f_bavail * found.f_frsize

    def leave(self, room: int) -> None:
        """Fill it up to so many free bytes."""
        with self.filler.open("ab", buffering=0) as filler:
            while self.free() > room:
                filler.write(bytes(min(4 * KIB, self.free() - room)))

    def make_room(self) -> None:
        self.filler.unlink(missing_ok=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    mount = tmp_path / "mount"
    with mounted(mount, "-t", "tmpfs", "-o", "size=4m,mode=700", "tmpfs"):
        yield Disk(mount)


def test_pushes_to_a_full_disk_are_refused_what_is_acked_stays_completions_fit_and_room_lets_pushes_in_again(
    disk: Disk, tmp_path: Path
) -> None:
    go = tmp_path / "go"
    with LocalPool({"default": misused.wait_for, "double": handlers.double}, path=disk.place.path, workers=1) as pool:
        running = pool.submit(str(go))
        wait_for(go.with_suffix(".begun").exists)
        waiting = pool.push_many(range(20), task="double")
        disk.leave(LITTLE)
        wait_until_full(pool)

        pushed = pool.stats().pushed
        for push in (
            lambda: pool.push(1, task="double"),
            lambda: pool.push_many([1], task="double"),
            lambda: pool.submit(1, task="double").result(60),
        ):
            with pytest.raises(QueueFull, match="disk is nearly full: what room is left is kept for jobs to finish in"):
                push()
        go.touch()
        assert running.result(60) == "went"
        assert pool.join(60).pushed == pushed
        assert [pool.get(job_id).result for job_id in waiting] == [b"%d" % (2 * number) for number in range(20)]

        disk.make_room()
        wait_until_pushed(pool)
        assert pool.submit(4, task="double").result(60) == 8
        succeeded = pool.join(60).succeeded

    disk.place.is_intact(succeeded=succeeded)


def push_until_refused(broker: Broker) -> int:
    for pushed in itertools.count():
        try:
            broker.push(b'"%b"' % (b"-" * 20 * KIB))
        except QueueFull:
            return pushed
    raise AssertionError


def wait_until_full(pool: LocalPool) -> None:
    def refused() -> bool:
        try:
            pool.push(0, task="double")
        except QueueFull:
            return True
        return False

    wait_for(refused)


def wait_until_pushed(pool: LocalPool) -> None:
    def pushed() -> bool:
        try:
            pool.push(0, task="double")
        except QueueFull:
            return False
        return True

    wait_for(pushed)


def test_a_disk_that_is_full_for_a_moment_in_a_batch_delays_it_and_costs_nothing(disk: Disk) -> None:
    tasks = {"double": handlers.double, "fill": misused.fill}
    with LocalPool(tasks, path=disk.place.path, workers=1) as pool:
        filling = pool.submit(str(disk.filler), task="fill")
        futures = [pool.submit(number, task="double") for number in range(50)]
        wait_for(lambda: disk.free() < 8 * KIB)
        time.sleep(1)  # commits fail meanwhile, for less than the 5 s after which the broker gives up
        disk.make_room()

        assert [future.result(60) for future in futures] == list(range(0, 100, 2))
        filling.result(60)
        assert all(pool.get(future.job_id or 0).attempts == 1 for future in [filling, *futures])

    disk.place.is_intact(succeeded=51)


ENDLESS = """
import itertools
from osqueue import LocalPool
from tests.e2e.misused_handlers import fill

def double(number):
    return number * 2

if __name__ == "__main__":
    with LocalPool({"double": double, "fill": fill}, path="mount/queue", workers=1) as pool:
        for number in itertools.count():
            print(pool.push(number, task="double"), flush=True)
            if number == 100:
                pool.push("mount/filler", task="fill")
"""


def test_a_disk_that_stays_full_in_a_batch_ends_the_program_by_name_and_every_acked_job_runs_once_there_is_room(
    disk: Disk, tmp_path: Path
) -> None:
    program = Program(tmp_path, ENDLESS)

    ended = program.end(60)

    assert ended.status == 1
    assert "StorageLost: the queue's storage has failed; mend it, then open the queue again" in ended.err
    assert "No space left on device" in ended.err
    wait_for(lambda: not processes_of(tmp_path), 10)
    misused.fill(str(disk.filler))  # what the program's end made room for
    for open_queue in (open_pool, open_broker):
        with pytest.raises(WriteFailed, match="No space left on device"):
            open_queue(disk.place.path)
    assert succeed("verify", disk.place.path, cwd=tmp_path).endswith("no problems\n")
    disk.make_room()
    acked = [int(line) for line in ended.out.split()]
    with LocalPool({"double": handlers.double, "fill": handlers.nothing}, path=disk.place.path, workers=2) as pool:
        stats = pool.join(60)
        assert {pool.get(job_id).state for job_id in acked} == {"succeeded"}
    assert stats.pushed - len(disk.place.ids) - 1 - len(acked) in (0, 1)

    disk.place.is_intact(succeeded=stats.succeeded)


def open_pool(path: Path) -> object:
    with LocalPool(handlers.double, path=path, workers=1):
        return None


def open_broker(path: Path) -> object:
    with Broker.open(path):
        return None


def test_a_batch_on_a_full_disk_is_refused_on_the_command_line_with_status_4(disk: Disk, tmp_path: Path) -> None:
    (tmp_path / "items.jsonl").write_text("1\n")
    misused.fill(str(disk.filler))

    done = osqueue("run", "builtins:abs", "--file", "items.jsonl", "--path", disk.place.path, cwd=tmp_path)

    assert done.returncode == 4
    assert "No space left on device" in done.stderr
    assert "Traceback" not in done.stderr
    disk.make_room()
    disk.place.is_intact()


COMMANDS = [
    ["status", "mount/queue"],
    ["list", "mount/queue"],
    ["prune", "mount/queue", "--older-than", "1d"],
    ["push", "mount/queue", "1"],
    ["push", "mount/new", "1"],
    ["serve", "mount/queue"],
    ["work", "mount/queue", "builtins:abs"],
    ["run", "builtins:abs", "--path", "mount/queue"],
]


@pytest.mark.parametrize("arguments", COMMANDS, ids=" ".join)
def test_every_command_on_a_full_disk_ends_with_status_4_and_says_where_to_make_room(
    arguments: list[str], disk: Disk, tmp_path: Path
) -> None:
    misused.fill(str(disk.filler))

    done = osqueue(*arguments, cwd=tmp_path)

    assert done.returncode == 4
    assert "No space left on device; make room there, then run the command again: path=" in done.stderr
    assert done.stderr.endswith(("mount/queue\n", "mount/new\n"))
    disk.make_room()
    disk.place.is_intact()


def test_whoever_waits_when_the_disk_is_full_for_good_is_told_that_the_outcome_is_unknown_and_why(disk: Disk) -> None:
    with (  # noqa: PT012
        pytest.raises(StorageLost, match="No space left on device") as caught,
        LocalPool({"double": handlers.double, "fill": misused.fill}, path=disk.place.path, workers=1) as pool,
    ):
        future = pool.submit(str(disk.filler), task="fill")
        assert isinstance(future.exception(60), Unavailable)
        with pytest.raises(Unavailable):
            pool.push(1, task="double")
        pool.join(60)

    with pytest.raises(RuntimeError, match="open the queue again"):
        caught.value.again()
    disk.make_room()
    disk.place.is_intact()


def test_the_same_program_goes_on_with_a_new_pool_once_there_is_room(disk: Disk) -> None:
    tasks = {"double": handlers.double, "fill": misused.fill}
    with pytest.raises(StorageLost), LocalPool(tasks, path=disk.place.path, workers=1) as pool:
        pool.submit(str(disk.filler), task="fill").result(60)
    disk.make_room()

    with LocalPool({"double": handlers.double, "fill": handlers.nothing}, path=disk.place.path, workers=1) as pool:
        assert pool.join(10).succeeded == 1
    disk.place.is_intact(succeeded=1)


def test_a_program_that_pushes_until_a_small_disk_is_full_is_refused_and_all_its_jobs_still_finish(
    tmp_path: Path,
) -> None:
    mount = tmp_path / "mount"
    with mounted(mount, "-t", "tmpfs", "-o", "size=100m,mode=700", "tmpfs"):
        place = Place(mount / "queue")
        with Broker.open(place.path) as broker:
            pushed = push_until_refused(broker)

        with LocalPool(handlers.nothing, path=place.path, workers=1) as pool:
            assert pool.join(60).succeeded == pushed
        place.is_intact(succeeded=pushed)
