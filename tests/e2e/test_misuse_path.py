"""Paths that cannot be opened as a queue, and one that looks as if it could not."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from osqueue import AccessDenied, Broker, Client, Corrupt, LocalPool, QueueLocked
from osqueue.client import connection
from tests.cli.command_line import osqueue, succeed
from tests.contracts.places import mounted, needs_root
from tests.e2e import handlers
from tests.e2e.aftermath import Place
from tests.e2e.running_command import RunningCommand

pytestmark = pytest.mark.usefixtures("nothing_is_left")

NOBODY = 65534
Open = Callable[[Path], object]


def open_pool(path: Path) -> object:
    with LocalPool(handlers.double, path=path, workers=1):
        return None


def open_broker(path: Path) -> object:
    with Broker.open(path):
        return None


def new_pool(path: Path) -> LocalPool[int, int]:
    return LocalPool(handlers.double, path=path, workers=1)


each_opener = pytest.mark.parametrize("open_queue", [open_pool, open_broker])


# ------------------------------------------------------------------------------------------------- somebody else's


@each_opener
def test_a_second_opener_is_told_who_has_the_queue_and_how_to_join_and_the_first_goes_on(
    place: Place, open_queue: Open
) -> None:
    with LocalPool(handlers.double, path=place.path, workers=1) as pool:
        holder = os.getpid()

        with pytest.raises(QueueLocked, match=r"join it with Client\.connect") as caught:
            open_queue(place.path)

        assert (caught.value.pid, caught.value.host) == (holder, socket.gethostname())
        assert f"pid={holder} host={socket.gethostname()}" in str(caught.value)
        with Client.connect(place.path) as client:
            job_id = client.push(b"4")
        assert pool.submit(5).result(60) == 10
        pool.join(60)
        assert pool.get(job_id).result == b"8"

    place.is_intact(succeeded=2)


@needs_root
@each_opener
def test_a_path_of_another_user_is_refused_and_nothing_in_it_is_touched(place: Place, open_queue: Open) -> None:
    before = place.files()
    os.chown(place.path, NOBODY, NOBODY)

    with pytest.raises(AccessDenied, match="belongs to another user; run as that user") as caught:
        open_queue(place.path)

    assert f"owner={NOBODY}" in str(caught.value)
    assert place.files() == before
    os.chown(place.path, os.getuid(), os.getgid())
    place.is_intact()


# ------------------------------------------------------------------------------------------------------ a damaged root


def flip_a_bit(root: Path) -> None:
    data = bytearray(root.read_bytes())
    data[len(data) // 2] ^= 1
    root.write_bytes(data)


def truncate(root: Path) -> None:
    root.write_bytes(root.read_bytes()[:-20])


def fill_with_zeros(root: Path) -> None:
    root.write_bytes(bytes(root.stat().st_size))


def empty(root: Path) -> None:
    root.write_bytes(b"")


def replace_by_foreign_json(root: Path) -> None:
    root.write_bytes(b'{"jobs": []}\n')


DAMAGES = [flip_a_bit, truncate, fill_with_zeros, empty, replace_by_foreign_json, Path.unlink]


@each_opener
@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_a_damaged_root_is_refused_by_name_found_by_verify_and_nothing_is_deleted(
    place: Place, open_queue: Open, damage: Callable[[Path], None]
) -> None:
    root = place.path / "queue.json"
    sound = root.read_bytes()
    damage(root)
    before = place.files()

    with pytest.raises(Corrupt, match=r"queue\.json") as caught:
        open_queue(place.path)
    found = osqueue("verify", place.path, cwd=place.path)

    assert caught.value.key == "queue.json"
    assert found.returncode == 1
    assert re.search(r"^(damaged|missing): queue\.json: ", found.stdout, re.MULTILINE)
    assert place.files() == before
    root.write_bytes(sound)
    assert succeed("verify", place.path, cwd=place.path).endswith("no problems\n")
    place.is_intact()


# ------------------------------------------------------------------------------------------------- no place for a queue


@each_opener
def test_a_path_that_is_a_file_or_leads_through_one_is_refused(tmp_path: Path, open_queue: Open) -> None:
    file = tmp_path / "file"
    file.write_text("mine")

    for path in (file, file / "below"):
        with pytest.raises(ValueError, match="a queue is a directory, and this path is a file or leads through one"):
            open_queue(path)

    assert file.read_text() == "mine"


@each_opener
def test_a_path_where_nothing_can_be_made_is_refused_by_name(open_queue: Open) -> None:
    with pytest.raises(FileNotFoundError, match="/proc/nowhere"):
        open_queue(Path("/proc/nowhere/queue"))


def test_a_pool_that_cannot_open_its_queue_waits_for_no_answer_of_the_broker_that_has_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "_GOODBYE_S", 60)
    monkeypatch.setattr("osqueue.pool.engine._END_S", 60)
    file = tmp_path / "file"
    file.write_text("mine")
    started = time.monotonic()

    with pytest.raises(ValueError, match="this path is a file"):
        open_pool(file)

    assert time.monotonic() - started < 30


def test_a_second_pool_of_the_same_program_is_refused_without_waiting_by_whatever_path_until_the_first_closes(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "link").symlink_to(place.path)
    with LocalPool(handlers.double, path=place.path, workers=1):
        monkeypatch.setattr("osqueue.pool.local_pool._started", lambda *_: pytest.fail("it tried to open the queue"))
        with pytest.raises(QueueLocked, match="this program already has the queue open, in another pool"):
            open_pool(tmp_path / "link")
        monkeypatch.undo()

    with LocalPool(handlers.double, path=tmp_path / "link", workers=1) as pool:
        assert pool.submit(4).result(60) == 8
    place.is_intact(succeeded=1)


@pytest.mark.parametrize(("first", "name"), [(Broker.open, "another Broker"), (new_pool, "another pool")])
@each_opener
def test_a_broker_and_a_pool_of_one_program_are_refused_each_other_without_waiting(
    place: Place, monkeypatch: pytest.MonkeyPatch, open_queue: Open, first: Open, name: str
) -> None:
    with first(place.path):
        monkeypatch.setattr("osqueue.pool.local_pool._started", lambda *_: pytest.fail("it tried to open the queue"))
        monkeypatch.setattr("osqueue.embedded.open_directory", lambda *_: pytest.fail("it tried to open the queue"))
        with pytest.raises(QueueLocked, match=f"this program already has the queue open, in {name}") as caught:
            open_queue(place.path)
        monkeypatch.undo()

    assert caught.value.pid == os.getpid()
    place.is_intact()


def test_another_program_that_has_the_queue_is_named_with_the_commands_that_join_it(tmp_path: Path) -> None:
    path = tmp_path / "my queue"
    with RunningCommand(tmp_path, "serve", "my queue") as serving:
        serving.wait_until_it_says("serving")
        with pytest.raises(QueueLocked) as caught:
            open_pool(path)

    assert f"add workers to it with `osqueue work '{path}' …`, join it with Client.connect" in str(caught.value)


@pytest.mark.parametrize("open_queue", [open_pool, open_broker, Client.connect])
def test_an_empty_path_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, open_queue: Callable[[str], object]
) -> None:
    monkeypatch.chdir(tmp_path)

    with pytest.raises(ValueError, match="path is empty"):
        open_queue("")

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "arguments",
    [
        ["status", ""],
        ["push", "", "1"],
        ["serve", ""],
        ["verify", ""],
        ["work", "", "builtins:abs"],
        ["run", "builtins:abs", "--path", ""],
    ],
    ids=lambda arguments: arguments[0],
)
def test_an_empty_path_is_wrong_usage_of_every_command(tmp_path: Path, arguments: list[str]) -> None:
    done = osqueue(*arguments, cwd=tmp_path)

    assert done.returncode == 2
    assert "path is empty" in done.stderr
    assert list(tmp_path.iterdir()) == []


@each_opener
def test_a_directory_that_holds_something_else_is_refused_and_left_as_it_is(tmp_path: Path, open_queue: Open) -> None:
    path = tmp_path / "letters"
    path.mkdir()
    (path / "mother.txt").write_text("dear")

    with pytest.raises(ValueError, match=r"not empty and holds no queue; choose an empty or a new one.*mother\.txt"):
        open_queue(path)

    assert [found.name for found in path.iterdir()] == ["mother.txt"]


@needs_root
@each_opener
def test_a_queue_on_a_read_only_mount_is_refused_and_serves_again_once_it_can_be_written(
    tmp_path: Path, open_queue: Open
) -> None:
    path = tmp_path / "mount"
    with mounted(path, "-t", "tmpfs", "-o", "mode=700", "tmpfs"):
        place = Place(path)
        before = place.files()
        remount(path, "ro")

        with pytest.raises(AccessDenied, match="mounted read-only; mount it for writing"):
            open_queue(path)

        assert place.files() == before
        assert succeed("verify", path, cwd=tmp_path).endswith("no problems\n")
        remount(path, "rw")
        place.is_intact()


@needs_root
@each_opener
def test_a_new_queue_on_a_read_only_mount_is_refused(tmp_path: Path, open_queue: Open) -> None:
    path = tmp_path / "mount"
    with mounted(path, "-t", "tmpfs", "-o", "ro,mode=700", "tmpfs"):
        with pytest.raises(AccessDenied, match="cannot be opened or made"):
            open_queue(path / "queue")
        with pytest.raises(AccessDenied, match="mounted read-only"):
            open_queue(path)

        assert list(path.iterdir()) == []


def remount(path: Path, mode: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{mode}", path], check=True)


# ----------------------------------------------------------------------------------------------------------- long paths


def test_a_path_longer_than_a_sockets_address_works_for_pool_client_and_command_line(tmp_path: Path) -> None:
    place = Place(tmp_path / ("a" * 120) / ("b" * 120))
    assert len(os.fsencode(place.path)) > 107

    with LocalPool(handlers.double, path=place.path, workers=1) as pool:
        with Client.connect(place.path) as client:
            job_id = client.push(b"21")
        command_line = succeed("push", place.path, "22", cwd=tmp_path)
        pool.join(60)
        assert pool.get(job_id).result == b"42"
        assert pool.get(int(command_line)).result == b"44"

    place.is_intact(succeeded=2)


def test_a_path_too_long_for_any_system_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="too long"):
        open_pool(tmp_path / ("a" * 300))

    assert list(tmp_path.iterdir()) == []
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("osqueue")]
