"""The blame file."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from osqueue import blame, host
from osqueue.blame import Blame, Blamed, Slot

ROOT = Path(__file__).parents[2]
OWNER = host.this_process()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "blame"


def test_a_new_file_blames_nobody_and_is_the_owners_alone(path):
    whole = Blame.create(path, 3, owner=OWNER)

    assert blame.read(path) == []
    assert whole.current(0) is None
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_file_names_the_supervisor_that_made_it(path):
    Blame.create(path, 2, owner=OWNER)

    owner = blame.owner(path)

    assert (owner.pid, owner.started, owner.pid_namespace) == (OWNER.pid, OWNER.started, OWNER.pid_namespace)
    assert host.is_running(owner) is True


def test_a_job_is_blamed_from_begin_to_end(path):
    whole = Blame.create(path, 2, owner=OWNER)
    slot = Slot(path, 1, pid=77, process_started=5)

    slot.begin(2**40, 3, 123_456_789_012)
    expected = Blamed(slot=1, pid=77, process_started=5, job_id=2**40, attempt=3, started_ns=123_456_789_012)
    assert blame.read(path) == [expected]
    assert whole.current(1) == expected
    assert whole.current(0) is None
    slot.end()

    assert blame.read(path) == []


def test_a_file_grows_while_workers_write_and_readers_read(path):
    whole = Blame.create(path, 1, owner=OWNER)
    old = Slot(path, 0, pid=77, process_started=5)
    old.begin(9, 1, 1)

    whole.grow(3)
    new = Slot(path, 2, pid=78, process_started=6)
    new.begin(10, 2, 3)
    whole.grow(2)

    assert whole.slots == 3
    assert [blamed.job_id for blamed in blame.read(path)] == [9, 10]
    assert [process.pid for process in blame.processes(path)] == [77, 78]
    assert whole.current(2) == Blamed(slot=2, pid=78, process_started=6, job_id=10, attempt=2, started_ns=3)
    assert whole.current(1) is None
    old.begin(11, 1, 4)
    assert blame.owner(path).pid == OWNER.pid
    assert [blamed.job_id for blamed in blame.read(path)] == [11, 10]


def test_room_that_was_written_and_not_counted_yet_is_no_slot(path):
    Blame.create(path, 1, owner=OWNER)
    with path.open("ab") as file:
        file.write(bytes(100))

    assert blame.read(path) == []
    with pytest.raises(ValueError, match="slot=1"):
        Slot(path, 1, pid=77, process_started=5)


def test_a_file_that_is_gone_or_anothers_does_not_grow(path):
    whole = Blame.create(path, 1, owner=OWNER)
    path.unlink()
    with pytest.raises(FileNotFoundError):
        whole.grow(2)
    Blame.create(path, 5, owner=OWNER)
    with pytest.raises(ValueError, match="not this supervisor's"):
        whole.grow(2)

    assert whole.slots == 1


def test_the_next_worker_of_a_slot_clears_it(path):
    Blame.create(path, 1, owner=OWNER)
    Slot(path, 0, pid=77, process_started=5).begin(9, 1, 1)

    Slot(path, 0, pid=78, process_started=6)

    assert blame.read(path) == []


def test_a_detached_slot_writes_nothing_any_more(path):
    Blame.create(path, 1, owner=OWNER)
    slot = Slot(path, 0, pid=77, process_started=5)
    slot.begin(9, 1, 1)

    slot.detach()
    slot.end()

    assert [blamed.job_id for blamed in blame.read(path)] == [9]


def test_an_existing_file_is_never_taken_for_a_new_one(path):
    Blame.create(path, 1, owner=OWNER)

    with pytest.raises(FileExistsError):
        Blame.create(path, 1, owner=OWNER)


def test_a_link_is_not_followed(path, tmp_path):
    Blame.create(tmp_path / "real", 1, owner=OWNER)
    path.symlink_to(tmp_path / "real")

    with pytest.raises(OSError, match="symbolic links"):
        blame.read(path)


@pytest.mark.parametrize("content", [b"x", b"osqueue blame 1\n", b"\0" * 128, b"y" * 4096])
def test_something_else_is_refused(path, content):
    path.write_bytes(content)

    with pytest.raises(ValueError, match="blame file"):
        blame.read(path)


def test_a_cut_file_is_refused(path):
    Blame.create(path, 4, owner=OWNER)
    os.truncate(path, 128)

    with pytest.raises(ValueError, match="blame file"):
        blame.read(path)


@pytest.mark.parametrize("index", [-1, 2, 10**6])
def test_a_slot_that_is_not_there_is_refused(path, index):
    Blame.create(path, 2, owner=OWNER)

    with pytest.raises(ValueError, match="no such slot"):
        Slot(path, index, pid=1, process_started=1)


WRITER = """
import sys
sys.path.insert(0, {root!r})
from osqueue.blame import Slot
slot = Slot({path!r}, 0, pid=1, process_started=1)
print("ready", flush=True)
number = 1
while True:
    slot.begin(number, number + 1, number + 2)
    for _ in range(number % 50):  # a handler, of sorts
        pass
    slot.end()
    number += 1
"""


def test_a_reader_never_sees_a_mixture_while_the_writer_runs_and_is_killed(path):
    whole = Blame.create(path, 1, owner=OWNER)
    text = WRITER.format(root=str(ROOT), path=str(path))
    writer = subprocess.Popen([sys.executable, "-c", text], stdout=subprocess.PIPE)
    try:
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"ready\n"
        seen = set()
        deadline = time.monotonic() + 60
        while len(seen) < 500:
            assert time.monotonic() < deadline
            blamed = whole.current(0)
            if blamed is not None:
                assert (blamed.attempt, blamed.started_ns) == (blamed.job_id + 1, blamed.job_id + 2)
                seen.add(blamed.job_id)
    finally:
        writer.kill()
        writer.communicate()

    for blamed in blame.read(path):
        assert blamed.attempt == blamed.job_id + 1


def test_a_file_that_is_cut_while_it_is_open_blames_nobody(path):
    blame = Blame.create(path, 2, owner=OWNER)
    Slot(path, 1, pid=7, process_started=8).begin(11, 1, 12)
    assert blame.current(1) is not None

    os.truncate(path, 64)

    assert blame.current(1) is None
