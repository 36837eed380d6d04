"""The lock of a queue directory: one opener at a time, and fenced when it is taken away."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from osqueue.errors import Fenced, QueueLocked
from osqueue.storage import (
    ROOT_KEY,
    Conflict,
    DirectoryStorage,
    open_directory,
)
from osqueue.storage.files import Identity, OsFiles, Status
from tests.contracts.failing_files import FailingFiles
from tests.contracts.places import make_queue


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "queue"


HOLDER = """
import os, sys, time
from osqueue.storage import open_directory, ROOT_KEY
storage = open_directory(sys.argv[1])
if "fork" in sys.argv:
    child = os.fork()
    if child == 0:
        try:
            storage.read(ROOT_KEY)
        except RuntimeError as error:
            print("child", os.getpid(), error, flush=True)
        os.close(1)
        sys.stdin.read()
        os._exit(0)
else:
    print("open", os.getpid(), flush=True)
sys.stdin.read()
"""


@contextmanager
def holder(place: Path, *arguments: str) -> Iterator[tuple[subprocess.Popen[str], list[str]]]:
    """Another process that has the directory open, and the first words that it said."""
    command = [sys.executable, "-c", HOLDER, str(place), *arguments]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process, process.stdout.readline().split()
        finally:
            process.kill()


def test_a_second_opener_is_refused_and_told_who_has_it(place: Path) -> None:
    with holder(place) as (process, _), pytest.raises(QueueLocked, match=r"Client\.connect") as locked:
        open_directory(place, wait_s=0)

    assert locked.value.pid == process.pid
    assert locked.value.host == os.uname().nodename
    assert f"pid={process.pid}" in str(locked.value)


def test_a_second_opener_in_the_same_process_is_refused(place: Path) -> None:
    with closing(open_directory(place)), pytest.raises(QueueLocked) as locked:
        open_directory(place, wait_s=0)

    assert locked.value.pid == os.getpid()


def test_an_opener_waits_for_a_holder_that_is_ending(place: Path) -> None:
    storage = open_directory(place)
    opened: list[DirectoryStorage] = []
    waiter = threading.Thread(target=lambda: opened.append(open_directory(place, wait_s=60)))
    waiter.start()
    try:
        assert opened == []
    finally:
        storage.close()
        waiter.join()

    opened[0].close()
    assert len(opened) == 1


def test_the_lock_is_free_as_soon_as_its_holder_is_killed(place: Path) -> None:
    with holder(place) as (process, _):
        process.kill()
        process.wait()

        open_directory(place, wait_s=0).close()


def test_a_child_forked_by_the_user_has_no_part_in_the_queue_and_does_not_keep_it(place: Path) -> None:
    make_queue(place)
    with holder(place, "fork") as (process, said):
        assert said[0] == "child"
        assert "forked" in said
        with pytest.raises(QueueLocked):  # the child's closing did not unlock
            open_directory(place, wait_s=0)

        process.kill()
        process.wait()

        os.kill(int(said[1]), 0)  # the child lives on
        open_directory(place, wait_s=0).close()


class LockFileReplaced(FailingFiles):
    """The real files, where somebody replaces the lock file between its opening and its locking, once."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path
        self.replaced = False

    def try_lock(self, file: int) -> bool:
        if not self.replaced:
            self.replaced = True
            self._path.unlink()
            self._path.touch(0o600)
        return OsFiles().try_lock(file)


def test_a_lock_on_a_file_that_was_replaced_meanwhile_does_not_count(place: Path) -> None:
    files = LockFileReplaced(place / "queue.lock")

    with closing(open_directory(place, files=files)) as storage:
        assert files.replaced
        with pytest.raises(QueueLocked):
            open_directory(place, wait_s=0)
        storage.compare_and_swap(ROOT_KEY, b"{}", None)


class AlwaysTheSame(FailingFiles):
    """The real files on a file system whose inodes are used again at once and whose clock stands still."""

    def status(self, descriptor: int) -> Status:
        return OsFiles().status(descriptor)._replace(identity=Identity(1, 2, 3))

    def status_of(self, name: str, at: int) -> Status:
        return OsFiles().status_of(name, at)._replace(identity=Identity(1, 2, 3))


def test_versions_differ_though_inodes_and_times_come_back(place: Path) -> None:
    with closing(open_directory(place, files=AlwaysTheSame())) as storage:
        first = storage.compare_and_swap(ROOT_KEY, b"one", None)
        second = storage.compare_and_swap(ROOT_KEY, b"two", first)

        with pytest.raises(Conflict):
            storage.compare_and_swap(ROOT_KEY, b"late", first)
        assert storage.read(ROOT_KEY) == (b"two", second)


def test_the_lock_file_keeps_its_inode_from_holder_to_holder(place: Path) -> None:
    open_directory(place).close()
    first = (place / "queue.lock").stat().st_ino

    open_directory(place).close()

    assert (place / "queue.lock").stat().st_ino == first


def test_a_holder_whose_lock_file_was_removed_is_fenced_and_writes_nothing(place: Path) -> None:
    with closing(open_directory(place)) as zombie:
        version = zombie.compare_and_swap(ROOT_KEY, b"old", None)
        (place / "queue.lock").unlink()
        with pytest.raises(Fenced):
            zombie.compare_and_swap(ROOT_KEY, b"before anybody came", version)

        with closing(open_directory(place, wait_s=0)) as successor:
            data, seen = successor.read(ROOT_KEY)
            successor.compare_and_swap(ROOT_KEY, b"new", seen)

            with pytest.raises(Fenced):
                zombie.compare_and_swap(ROOT_KEY, b"late", version)
            assert data == b"old"
            assert successor.read(ROOT_KEY)[0] == b"new"


def test_a_holder_whose_root_was_replaced_is_fenced_and_leaves_it(place: Path) -> None:
    with closing(open_directory(place)) as storage:
        version = storage.compare_and_swap(ROOT_KEY, b"ours", None)
        (place / "put-back").write_bytes(b"ours")
        (place / "put-back").rename(place / ROOT_KEY)

        with pytest.raises(Fenced):
            storage.compare_and_swap(ROOT_KEY, b"next", version)

        assert (place / ROOT_KEY).read_bytes() == b"ours"
        assert not list(place.glob(".tmp-*"))


def test_a_holder_whose_root_was_removed_is_fenced_and_makes_no_new_one(place: Path) -> None:
    with closing(open_directory(place)) as storage:
        version = storage.compare_and_swap(ROOT_KEY, b"ours", None)
        (place / ROOT_KEY).unlink()

        with pytest.raises(Fenced):
            storage.compare_and_swap(ROOT_KEY, b"next", version)

        assert not (place / ROOT_KEY).exists()


def test_an_old_root_put_back_before_the_first_swap_is_a_conflict(place: Path) -> None:
    make_queue(place)
    with closing(open_directory(place)) as storage:
        _, version = storage.read(ROOT_KEY)
        (place / "put-back").write_bytes(b"old")
        (place / "put-back").rename(place / ROOT_KEY)

        with pytest.raises(Conflict):
            storage.compare_and_swap(ROOT_KEY, b"next", version)
