"""Opening a queue directory, and reading one without opening it."""

from __future__ import annotations

import stat
from contextlib import closing
from pathlib import Path

import pytest

from osqueue.storage import (
    ROOT_KEY,
    NotFound,
    Standing,
    find_queue,
    open_directory,
    open_reader,
)
from tests.contracts.places import make_queue


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "queue"


def test_what_was_written_is_there_after_opening_again(place: Path) -> None:
    with closing(open_directory(place)) as storage:
        storage.compare_and_swap(ROOT_KEY, b"root", None)
        storage.create("segments/1.json", b"one")

    with closing(open_directory(place)) as storage:
        data, version = storage.read(ROOT_KEY)
        storage.compare_and_swap(ROOT_KEY, b"next", version)

        assert data == b"root"
        assert storage.read("segments/1.json")[0] == b"one"


def test_missing_directories_are_made_for_this_user_alone(place: Path) -> None:
    with closing(open_directory(place / "a" / "b")) as storage:
        storage.compare_and_swap(ROOT_KEY, b"{}", None)
        storage.create("archive/2026-01-01T10/1.jsonl", b"")

    modes = {path: stat.S_IMODE(path.stat().st_mode) for path in [place, *place.rglob("*")]}
    assert len(modes) == 8
    assert all(mode == (0o700 if path.is_dir() else 0o600) for path, mode in modes.items())


def test_an_existing_empty_directory_becomes_a_queue(place: Path) -> None:
    place.mkdir()

    make_queue(place)

    with closing(open_directory(place)) as storage:
        assert find_queue(storage) is Standing.QUEUE


def test_a_making_cut_short_begins_again(place: Path) -> None:
    with closing(open_directory(place)):
        (place / "segments").mkdir()
        (place / ".tmp-0123").write_bytes(b"half a ro")

    with closing(open_directory(place)) as storage:
        assert find_queue(storage) is Standing.EMPTY
        assert not (place / ".tmp-0123").exists()


def test_temporary_files_are_swept_at_opening_wherever_a_writer_may_have_died(place: Path) -> None:
    make_queue(place)
    left = [place / ".tmp-1", place / "segments/.tmp-2", place / "archive/2026-01-01T10/.tmp-3"]
    for path in left:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"half")

    with closing(open_directory(place)):
        assert not any(path.exists() for path in left)


def test_a_path_longer_than_a_socket_address_works(tmp_path: Path) -> None:
    deep = tmp_path.joinpath(*["a-directory-with-a-long-name" * 4] * 5)
    assert len(str(deep)) > 500

    make_queue(deep)

    with closing(open_directory(deep)) as storage:
        assert storage.read(ROOT_KEY)[0] == b"{}"


def test_the_directory_itself_may_be_reached_through_a_symbolic_link(place: Path, tmp_path: Path) -> None:
    place.mkdir()
    (tmp_path / "link").symlink_to(place)

    make_queue(tmp_path / "link")

    assert (place / ROOT_KEY).exists()


@pytest.mark.parametrize("name", ["queue", "queue/below"])
def test_a_path_that_is_a_file_is_a_value_error(tmp_path: Path, name: str) -> None:
    (tmp_path / "queue").write_text("mine")

    with pytest.raises(ValueError, match="is a file"):
        open_directory(tmp_path / name)


def test_a_directory_that_holds_something_else_is_a_value_error_and_stays_as_it_was(place: Path) -> None:
    place.mkdir()
    (place / "thesis.txt").write_text("mine")

    with pytest.raises(ValueError, match=r"not empty.*thesis\.txt"):
        open_directory(place)

    assert [path.name for path in place.iterdir()] == ["thesis.txt"]


def test_a_directory_that_holds_a_directory_with_something_in_it_is_a_value_error(place: Path) -> None:
    (place / "theses").mkdir(parents=True)
    open_directory(place).close()  # an empty directory may be what a making cut short left
    (place / "theses" / "first.txt").write_text("mine")

    with pytest.raises(ValueError, match=r"not empty.*theses"):
        open_directory(place)


def test_a_queue_with_a_foreign_file_beside_it_opens(place: Path) -> None:
    make_queue(place)
    (place / "README.txt").write_text("mine")

    with closing(open_directory(place)) as storage:
        assert find_queue(storage) is Standing.QUEUE


def test_files_of_a_pool_may_be_there_before_the_queue_and_are_no_objects(place: Path) -> None:
    (place / "blame").mkdir(parents=True)
    (place / "blame" / "1").write_bytes(b"")

    with closing(open_directory(place)) as storage:
        assert find_queue(storage) is Standing.EMPTY
        assert list(storage.list("")) == []
        for key in ("blame/1", "blame", "queue.lock", "broker.sock"):
            with pytest.raises(ValueError, match="not an object's"):
                storage.create(key, b"")


@pytest.mark.parametrize("path", ["", "a\0b"])
def test_a_path_that_names_nothing_is_a_value_error(path: str) -> None:
    with pytest.raises(ValueError, match="path"):
        open_directory(path)


def test_a_reader_reads_beside_the_holder_and_takes_no_lock(place: Path) -> None:
    with closing(open_directory(place)) as storage, closing(open_reader(place)) as reader:
        version = storage.compare_and_swap(ROOT_KEY, b"one", None)
        first = reader.read(ROOT_KEY)
        storage.compare_and_swap(ROOT_KEY, b"two", version)
        second = reader.read(ROOT_KEY)

        assert (first[0], second[0]) == (b"one", b"two")
        assert first[1] != second[1]
        assert list(reader.list("")) == [ROOT_KEY]


def test_a_reader_changes_nothing_at_all(place: Path) -> None:
    make_queue(place)
    (place / ".tmp-1").write_bytes(b"")
    (place / "queue.lock").unlink()
    before = sorted(path.name for path in place.rglob("*"))

    with closing(open_reader(place)) as reader:
        assert find_queue(reader) is Standing.QUEUE

    assert sorted(path.name for path in place.rglob("*")) == before


def test_a_reader_of_a_missing_directory_makes_none(place: Path) -> None:
    with pytest.raises(NotFound):
        open_reader(place)

    assert not place.exists()


def test_a_reader_of_a_file_is_a_value_error(place: Path) -> None:
    place.write_text("mine")

    with pytest.raises(ValueError, match="is a file"):
        open_reader(place)
