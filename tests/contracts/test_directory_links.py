"""Symbolic links and pipes in a queue directory: refused, and nothing followed."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from osqueue.errors import AccessDenied, Corrupt, Fenced
from osqueue.storage import (
    ROOT_KEY,
    WriteFailed,
    open_directory,
    open_reader,
)
from tests.contracts.places import make_queue


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "queue"


@pytest.fixture
def victim(tmp_path: Path) -> Iterator[Path]:
    """A file that no symbolic link may lead us to."""
    path = tmp_path / "victim"
    path.write_text("precious")
    yield path
    assert path.read_text() == "precious"


def test_a_symbolic_link_in_the_place_of_the_lock_is_refused(place: Path, victim: Path) -> None:
    make_queue(place)
    (place / "queue.lock").unlink()
    (place / "queue.lock").symlink_to(victim)

    with pytest.raises(AccessDenied, match=r"queue\.lock is no plain file"):
        open_directory(place)


def test_a_symbolic_link_in_the_place_of_the_root_is_damage(place: Path, victim: Path) -> None:
    make_queue(place)
    (place / ROOT_KEY).unlink()
    (place / ROOT_KEY).symlink_to(victim)

    with closing(open_directory(place)) as storage, pytest.raises(Corrupt):
        storage.read(ROOT_KEY)
    with closing(open_reader(place)) as reader, pytest.raises(Corrupt):
        reader.read(ROOT_KEY)


def test_a_symbolic_link_put_in_the_place_of_the_root_meanwhile_fences(place: Path, victim: Path) -> None:
    with closing(open_directory(place)) as storage:
        version = storage.compare_and_swap(ROOT_KEY, b"{}", None)
        (place / ROOT_KEY).unlink()
        (place / ROOT_KEY).symlink_to(victim)

        with pytest.raises(Fenced):
            storage.compare_and_swap(ROOT_KEY, b"{}", version)


def test_a_symbolic_link_in_the_place_of_a_directory_is_never_gone_through(place: Path, tmp_path: Path) -> None:
    make_queue(place)
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "1.json").write_text("{}")
    (outside / ".tmp-1").write_text("not ours to sweep")
    (place / "segments").symlink_to(outside)

    with closing(open_directory(place)) as storage:
        with pytest.raises(Corrupt):
            storage.read("segments/1.json")
        with pytest.raises(Corrupt):
            list(storage.list("segments/"))
        with pytest.raises(WriteFailed):
            storage.create("segments/2.json", b"")
        with pytest.raises(WriteFailed):
            storage.delete("segments/1.json")

    assert sorted(path.name for path in outside.iterdir()) == [".tmp-1", "1.json"]


def test_a_symbolic_link_at_the_name_of_a_temporary_file_is_not_written_through(
    place: Path, victim: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(open_directory(place)) as storage:
        monkeypatch.setattr("osqueue.storage.publishing.secrets.token_hex", lambda count: "guessed")
        (place / ".tmp-guessed").symlink_to(victim)

        with pytest.raises(WriteFailed) as failed:
            storage.create("marker.json", b"mine")

    assert failed.value.errno == errno.EEXIST


def test_a_pipe_in_the_place_of_the_root_is_damage_and_blocks_nobody(place: Path) -> None:
    make_queue(place)
    (place / ROOT_KEY).unlink()
    os.mkfifo(place / ROOT_KEY)

    with closing(open_directory(place)) as storage, pytest.raises(Corrupt):
        storage.read(ROOT_KEY)
