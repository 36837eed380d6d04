"""What the errors of a queue directory's system calls become."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from osqueue.storage import (
    ROOT_KEY,
    DirectoryStorage,
    Standing,
    WriteFailed,
    WriteUnknown,
    find_queue,
    open_directory,
)
from tests.contracts.failing_files import FailingFiles
from tests.contracts.places import make_queue, mounted, needs_root


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "queue"


BEFORE_PUBLISHING = ["open_new", "write", "sync", "status", "close"]
Write = Callable[[DirectoryStorage], object]


@pytest.fixture
def faulty(place: Path) -> Iterator[tuple[DirectoryStorage, FailingFiles]]:
    make_queue(place)
    files = FailingFiles()
    with closing(open_directory(place, files=files)) as storage:
        storage.create("segments/1.json", b"one")
        yield storage, files


def swap(storage: DirectoryStorage) -> object:
    return storage.compare_and_swap(ROOT_KEY, b"next", storage.read(ROOT_KEY)[1])


def create(storage: DirectoryStorage) -> None:
    storage.create("segments/2.json", b"two")


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize("call", ["open_new", "write", "sync"])
@pytest.mark.parametrize("write", [swap, create])
def test_an_error_before_anything_can_be_seen_is_a_definite_failure_and_the_same_bytes_may_be_written_again(
    faulty: tuple[DirectoryStorage, FailingFiles], place: Path, write: Write, call: str, number: int
) -> None:
    storage, files = faulty
    before = {key: storage.read(key)[0] for key in storage.list("")}
    files.fail(call, number)

    with pytest.raises(WriteFailed) as failed:
        write(storage)

    assert failed.value.errno == number
    assert {key: storage.read(key)[0] for key in storage.list("")} == before
    assert not list(place.rglob(".tmp-*"))
    assert files.calls.count("rename") + files.calls.count("link") == 0
    write(storage)
    assert {key: storage.read(key)[0] for key in storage.list("")} != before


def test_an_error_of_closing_the_new_file_is_a_definite_failure(
    faulty: tuple[DirectoryStorage, FailingFiles], place: Path
) -> None:
    storage, files = faulty
    _, version = storage.read(ROOT_KEY)
    files.fail("close", errno.EIO)

    with pytest.raises(WriteFailed):
        storage.compare_and_swap(ROOT_KEY, b"next", version)

    assert storage.compare_and_swap(ROOT_KEY, b"next", version) != version
    assert not list(place.rglob(".tmp-*"))


def test_a_file_that_could_not_be_synced_is_never_synced_again(faulty: tuple[DirectoryStorage, FailingFiles]) -> None:
    storage, files = faulty
    files.fail("sync", errno.EIO)
    with pytest.raises(WriteFailed):
        create(storage)

    create(storage)

    assert [call for call in files.calls if call in ("open_new", "sync")] == ["open_new", "sync", "open_new", "sync"]


@pytest.mark.parametrize(("write", "publish"), [(swap, "rename"), (create, "link")])
@pytest.mark.parametrize("call", ["publish", "sync_directory"])
def test_an_error_of_publishing_is_unknown_and_nothing_is_written_afterwards(
    faulty: tuple[DirectoryStorage, FailingFiles], write: Write, publish: str, call: str
) -> None:
    storage, files = faulty
    files.fail(publish if call == "publish" else call, errno.EIO)

    with pytest.raises(WriteUnknown) as unknown:
        write(storage)

    assert unknown.value.errno == errno.EIO
    files.calls.clear()
    for later in (swap, create, lambda storage: storage.delete("segments/1.json")):
        with pytest.raises(WriteUnknown):
            later(storage)
    assert not {"open_new", "rename", "link", "unlink", "sync", "sync_directory"}.intersection(files.calls)
    assert storage.read("segments/1.json")[0] == b"one"


def test_a_directory_that_cannot_be_made_is_a_definite_failure(faulty: tuple[DirectoryStorage, FailingFiles]) -> None:
    storage, files = faulty
    files.fail("make_directory", errno.ENOSPC)

    with pytest.raises(WriteFailed):
        storage.create("archive/2026-01-01T10/1.jsonl", b"")

    storage.create("archive/2026-01-01T10/1.jsonl", b"")


def test_an_error_of_a_new_directorys_parent_is_unknown(faulty: tuple[DirectoryStorage, FailingFiles]) -> None:
    storage, files = faulty
    files.fail("sync_directory", errno.EIO)

    with pytest.raises(WriteUnknown):
        storage.create("archive/2026-01-01T10/1.jsonl", b"")

    with pytest.raises(WriteUnknown):
        storage.create("archive/2026-01-01T10/1.jsonl", b"")


def test_a_directory_that_was_removed_meanwhile_is_made_again(
    faulty: tuple[DirectoryStorage, FailingFiles], place: Path
) -> None:
    storage, _ = faulty
    storage.delete("segments/1.json")
    (place / "segments").rmdir()

    with pytest.raises(WriteFailed):
        create(storage)
    create(storage)

    assert storage.read("segments/2.json")[0] == b"two"


def test_a_commit_costs_one_sync_of_the_file_and_one_of_its_directory(
    faulty: tuple[DirectoryStorage, FailingFiles],
) -> None:
    storage, files = faulty
    for write in (swap, create):
        files.calls.clear()

        write(storage)

        assert [call for call in files.calls if call.startswith("sync")] == ["sync", "sync_directory"]


def test_without_durability_nothing_is_ever_synced(place: Path) -> None:
    files = FailingFiles()
    with closing(open_directory(place, durable=False, files=files)) as storage:
        storage.compare_and_swap(ROOT_KEY, b"{}", None)
        storage.create("archive/2026-01-01T10/1.jsonl", b"")
        storage.delete("archive/2026-01-01T10/1.jsonl")

    assert not [call for call in files.calls if call.startswith("sync")]


@needs_root
def test_a_full_disk_fails_for_certain_and_serves_again_once_there_is_room(place: Path) -> None:
    with mounted(place, "-t", "tmpfs", "-o", "size=1m,mode=700", "tmpfs"), closing(open_directory(place)) as storage:
        version = storage.compare_and_swap(ROOT_KEY, b"first", None)
        assert storage.has_room()
        storage.create("segments/1.json", b"x" * 990_000)
        assert not storage.has_room()

        for _ in range(2):
            with pytest.raises(WriteFailed) as failed:
                storage.compare_and_swap(ROOT_KEY, b"y" * 100_000, version)
            assert failed.value.errno == errno.ENOSPC
            with pytest.raises(WriteFailed):
                storage.create("segments/2.json", b"z" * 100_000)

        assert storage.read(ROOT_KEY) == (b"first", version)
        assert list(storage.list("")) == [ROOT_KEY, "segments/1.json"]
        storage.delete("segments/1.json")
        storage.compare_and_swap(ROOT_KEY, b"y" * 100_000, version)
        assert storage.has_room()


@needs_root
def test_a_queue_on_a_full_disk_still_opens(place: Path) -> None:
    with mounted(place, "-t", "tmpfs", "-o", "size=1m,mode=700", "tmpfs"):
        make_queue(place)
        with pytest.raises(OSError, match="No space"):
            (place / "filler").write_bytes(b"x" * 2_000_000)

        with closing(open_directory(place)) as storage:
            assert find_queue(storage) is Standing.QUEUE
            assert not storage.has_room()
