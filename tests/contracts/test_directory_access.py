"""Who may open a queue directory, and which are refused."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from osqueue.errors import AccessDenied
from osqueue.storage import (
    open_directory,
)
from osqueue.storage.mount import kind_of_mount
from tests.contracts.failing_files import FailingFiles
from tests.contracts.places import make_queue, mounted, needs_root


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "queue"


NOBODY = 65534


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o702])
def test_a_directory_that_others_can_write_to_is_refused(place: Path, mode: int) -> None:
    place.mkdir()
    place.chmod(mode)

    with pytest.raises(AccessDenied, match="chmod go-w"):
        open_directory(place)

    assert list(place.iterdir()) == []


@needs_root
def test_a_directory_of_another_user_is_refused_even_to_root(place: Path) -> None:
    make_queue(place)
    os.chown(place, NOBODY, NOBODY)

    with pytest.raises(AccessDenied, match="another user"):
        open_directory(place)


@pytest.fixture
def public_place() -> Iterator[Path]:
    """A directory that every user can reach, which pytest's own are not."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name) / "queue"


@needs_root
@pytest.mark.parametrize(
    ("mode", "owner", "reason"),
    [(0o700, 0, "Permission denied"), (0o755, 0, "another user"), (0o500, NOBODY, "not writable")],
)
def test_a_directory_that_this_user_may_not_write_is_refused(
    public_place: Path, mode: int, owner: int, reason: str
) -> None:
    public_place.mkdir()
    os.chown(public_place, owner, owner)
    public_place.chmod(mode)

    assert reason in refusal_to_nobody(public_place)


@needs_root
def test_a_directory_that_may_not_be_made_is_refused(public_place: Path) -> None:
    assert "Permission denied" in refusal_to_nobody(public_place)


@needs_root
def test_a_directory_whose_making_cannot_be_made_to_last_is_refused(public_place: Path) -> None:
    public_place.mkdir()
    os.chown(public_place, NOBODY, NOBODY)
    public_place.chmod(0o300)  # what is made in it can be used, but it cannot be opened to be synced

    assert "cannot be opened or made" in refusal_to_nobody(public_place / "inner")


BECOME_NOBODY = """
import os, sys
from osqueue.errors import AccessDenied
from osqueue.storage import open_directory
os.setgroups([]), os.setgid(int(sys.argv[2])), os.setuid(int(sys.argv[2]))
try:
    open_directory(sys.argv[1])
except AccessDenied as error:
    print(error)
"""


def refusal_to_nobody(place: Path) -> str:
    """What `AccessDenied` says when the user ``nobody`` opens the directory."""
    command = [sys.executable, "-c", BECOME_NOBODY, str(place), str(NOBODY)]
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout


@needs_root
def test_a_file_system_mounted_read_only_is_refused(place: Path) -> None:
    with mounted(place, "-t", "tmpfs", "-o", "ro,mode=700", "tmpfs"), pytest.raises(AccessDenied, match="read-only"):
        open_directory(place)


@needs_root
def test_a_queue_in_memory_is_announced_once_and_works(place: Path, caplog: pytest.LogCaptureFixture) -> None:
    with mounted(place, "-t", "tmpfs", "-o", "mode=700", "tmpfs"), caplog.at_level(logging.WARNING, "osqueue"):
        make_queue(place)

    assert ["in memory" in record.getMessage() for record in caplog.records] == [True]


@needs_root
def test_a_queue_that_is_not_to_last_is_not_announced(place: Path, caplog: pytest.LogCaptureFixture) -> None:
    with mounted(place, "-t", "tmpfs", "-o", "mode=700", "tmpfs"), caplog.at_level(logging.WARNING, "osqueue"):
        open_directory(place, durable=False).close()

    assert caplog.records == []


class OtherKind(FailingFiles):
    """The real files on a file system that says it is another."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = lambda directory: kind


@pytest.mark.parametrize("kind", ["nfs", "nfs4", "cifs", "smb3", "fuse.sshfs", "9p"])
@pytest.mark.parametrize("durable", [True, False])
def test_a_network_file_system_is_refused_by_name(place: Path, kind: str, durable: bool) -> None:
    with pytest.raises(ValueError, match=f"network file system.*{kind}"):
        open_directory(place, durable=durable, files=OtherKind(kind))

    assert list(place.iterdir()) == []


def test_an_unknown_kind_of_file_system_is_announced(place: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "osqueue"):
        open_directory(place, files=OtherKind("fuse.mine")).close()

    assert ["fuse.mine" in record.getMessage() for record in caplog.records] == [True]


@needs_root
def test_the_kind_of_a_file_system_is_that_of_the_mount_it_was_opened_through(place: Path) -> None:
    with mounted(place, "-t", "tmpfs", "tmpfs"):
        directory = os.open(place, os.O_RDONLY)
        try:
            assert kind_of_mount(directory) == "tmpfs"
        finally:
            os.close(directory)
