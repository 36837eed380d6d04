"""What is damaged is set aside, the rest goes on, and a crash at any call leaves a queue that opens."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from osqueue import Broker, Client
from osqueue.core import codec
from osqueue.core.model import Root
from osqueue.core.objects import segment_key
from osqueue.quarantine import Quarantined, quarantine
from osqueue.storage import ROOT_KEY, open_directory, open_reader
from osqueue.storage.files import OsFiles
from osqueue.verify import verify
from tests.cli.command_line import osqueue

JOBS = 60
"""So many in each segment: too large for the root, and few enough for one commit."""
MUTATING = frozenset({"rename", "move", "link", "unlink", "make_directory", "open_new", "write", "sync"})


class Queue:
    """Three archive objects, and three segments of two tasks, of which some jobs are leased, returned, or cancelled."""

    def __init__(self, path: Path) -> None:
        self.path = path
        for first in (1, 3, 5):
            with Broker.open(path) as broker:
                broker.push_many([b"%d" % job for job in (first, first + 1)], task="early")
                for job in broker.claim_many(2, tasks=["early"]):
                    broker.complete(job)
        with Broker.open(path, lease=3600) as broker:
            for task in ("a", "b", "a"):
                broker.push_many([b'"%01000d"' % number for number in range(JOBS)], task=task)
            broker.push(b"1", task="tail")

    def segments(self) -> list[Path]:
        return sorted((self.path / "segments").iterdir())

    def objects(self) -> list[Path]:
        return sorted((self.path / "archive").glob("*/*"))

    def root(self) -> Root:
        return codec.decode_root((self.path / ROOT_KEY).read_bytes())

    def lines(self) -> list[tuple[int, int]]:
        """First and last id of each segment."""
        return [(line.first_id, line.last_id) for line in self.root().segments]

    def quarantine(self, files: Any = None) -> Quarantined:
        with closing(open_directory(self.path, durable=False, files=files)) as storage:
            return quarantine(storage)

    def is_sound(self) -> bool:
        with closing(open_reader(self.path)) as reader:
            return verify(reader).problems == []


@pytest.fixture
def queue(tmp_path: Path) -> Queue:
    return Queue(tmp_path / "queue")


def damage(path: Path) -> bytes:
    """Damage a file; its bytes now."""
    path.write_bytes(path.read_bytes()[:-7])
    return path.read_bytes()


def test_a_sound_queue_stays_as_it_is(queue: Queue) -> None:
    before = (queue.path / ROOT_KEY).read_bytes()

    assert queue.quarantine().aside == []

    assert (queue.path / ROOT_KEY).read_bytes() == before
    assert not (queue.path / "quarantine").exists()


@pytest.mark.parametrize("at", [0, 1, 2])
@pytest.mark.parametrize("hurt", [damage, Path.unlink], ids=["damaged", "missing"])
def test_a_segment_goes_with_its_own_jobs_and_the_others_run(
    at: int, hurt: Callable[[Path], Any], queue: Queue
) -> None:
    segment = queue.segments()[at]
    line = queue.lines()[at]
    with Broker.open(queue.path) as broker:
        before = broker.stats()
    left = hurt(segment)

    done = queue.quarantine()

    [aside] = done.aside
    assert (aside.problem.key, aside.first_id, aside.last_id) == (f"segments/{segment.name}", *line)
    if left is not None:
        assert aside.place == f"quarantine/segments/{segment.name}"
        assert (queue.path / aside.place).read_bytes() == left
    assert done.findings.problems == []
    assert queue.is_sound()
    with Broker.open(queue.path) as broker:
        after = broker.stats()
        assert after.ready == before.ready - done.dropped
        assert (after.pushed, after.succeeded, after.dead) == (before.pushed, before.succeeded, before.dead)
        ran = finish_all(broker)
        idle = broker.wait_idle(["a", "b", "tail"], timeout=30)
    assert done.dropped == line[1] - line[0] + 1
    assert sorted([*ran, *range(line[0], line[1] + 1)]) == list(range(7, 7 + 3 * JOBS + 1))
    assert (idle.ready, idle.running) == (0, 0)
    assert queue.is_sound()


def finish_all(queue: Client) -> list[int]:
    """Claim and complete everything; the ids."""
    ran = []
    while jobs := queue.claim_many(1000, tasks=["a", "b", "tail"]):
        ran += [job.id for job in jobs]
        for job in jobs:
            queue.complete(job)
    return ran


def test_jobs_that_left_the_segment_before_stay_what_they_are(queue: Queue) -> None:
    with Broker.open(queue.path, retry_jitter=False, retry_backoff=600) as broker:
        held = broker.claim_many(40, tasks=["a"])
        broker.complete(held[0])
        broker.fail(held[1], "why")
        broker.fail(held[2], "why", retry=False)
        broker.cancel(held[30].id)
        broker.cancel(50)
    # By leaving, the holder is charged for the 36 that it still had: with job 2 they wait for their next attempt.
    with Broker.open(queue.path) as broker:
        before = broker.stats()
    damage(queue.segments()[0])

    done = queue.quarantine()

    assert done.dropped == JOBS - 5 - 36
    assert done.findings.problems == []
    with Broker.open(queue.path) as broker:
        after = broker.stats()
    assert (after.delayed, after.dead, after.cancelled, after.succeeded) == (37, 1, 2, 7)
    assert after.ready == before.ready - done.dropped


@pytest.mark.parametrize("hurt", [damage, Path.unlink], ids=["damaged", "deleted by hand"])
def test_an_archive_object_goes_with_its_records_and_the_counts_stay(hurt: Callable[[Path], Any], queue: Queue) -> None:
    target = queue.objects()[1]
    left = hurt(target)

    done = queue.quarantine()

    assert (done.dropped, done.unrecorded) == (0, 2)
    assert [(one.first_id, one.last_id) for one in done.aside] == ([] if left is None else [(3, 4)])
    assert done.findings.problems == []
    with Broker.open(queue.path) as broker:
        assert broker.stats().succeeded == 6
        assert [record.id for record in broker.history()] == [1, 2, 5, 6]


def test_everything_damaged_at_once_is_set_aside_and_again_later(queue: Queue) -> None:
    objects = [*queue.segments(), *queue.objects()]
    for path in objects:
        damage(path)
    (queue.path / "archive" / "notes.txt").write_text("mine")

    done = queue.quarantine()

    assert len(done.aside) == len(objects) + 1
    assert (done.dropped, done.unrecorded) == (3 * JOBS, 6)
    assert queue.is_sound()
    assert queue.quarantine().aside == []
    assert (queue.path / "quarantine" / "archive" / "notes.txt").read_text() == "mine"


def test_what_is_put_back_and_damaged_again_gets_another_name(queue: Queue) -> None:
    [first, *_] = queue.objects()
    damage(first)
    queue.quarantine()
    shutil.copy(queue.path / "quarantine" / first.relative_to(queue.path), first)

    [aside] = queue.quarantine().aside

    assert aside.place == f"quarantine/{first.relative_to(queue.path)}.1"


def test_a_file_in_the_place_of_the_archive_is_set_aside(queue: Queue) -> None:
    shutil.rmtree(queue.path / "archive")
    (queue.path / "archive").write_text("")

    done = queue.quarantine()

    assert (done.unrecorded, done.findings.problems) == (6, [])
    assert queue.is_sound()


@pytest.mark.parametrize("how", ["damaged", "missing", "old"])
def test_a_root_is_not_mended(how: str, queue: Queue) -> None:
    root = queue.path / ROOT_KEY
    damage(queue.segments()[0])
    if how == "damaged":
        damage(root)
    elif how == "missing":
        root.unlink()
    else:
        old = root.read_bytes()
        with Broker.open(queue.path) as broker:
            broker.push_many([b'"%01000d"' % number for number in range(JOBS)])
        root.write_bytes(old)
    before = {path: path.read_bytes() for path in queue.path.rglob("*.json*")}

    done = osqueue("verify", queue.path, "--quarantine", cwd=queue.path.parent)

    assert done.returncode == 1
    assert "cannot be mended" in done.stdout
    assert {path: path.read_bytes() for path in queue.path.rglob("*.json*")} == before


def test_the_command_says_what_was_what(queue: Queue) -> None:
    segment, archived = queue.segments()[1], queue.objects()[0]
    damage(segment)
    archived.write_bytes(b"")
    (first, last) = queue.lines()[1]
    key = archived.relative_to(queue.path)

    done = osqueue("verify", queue.path, "--quarantine", cwd=queue.path.parent)

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[:-1] == [
        f"set aside segments/{segment.name}: damaged: jobs {first} to {last}; now quarantine/segments/{segment.name}",
        f"set aside {key}: damaged: jobs 1 to 2; now quarantine/{key}",
        f"{JOBS} jobs are not in the queue any more",
        "2 jobs have no record any more",
    ]
    assert done.stdout.endswith("no problems\n")


def test_while_somebody_has_the_queue_open_nothing_is_set_aside(queue: Queue) -> None:
    damage(queue.segments()[0])
    with Broker.open(queue.path):
        done = osqueue("verify", queue.path, "--quarantine", cwd=queue.path.parent)

    assert done.returncode == 3
    assert f"pid={os.getpid()}" in done.stderr
    assert not (queue.path / "quarantine").exists()


# -------------------------------------------------------------------------------------------------------------- crashes


class Crash(BaseException):
    """The process ends here."""


class CrashingFiles:
    """The operating system's files, up to the n-th call that changes anything."""

    def __init__(self, calls: int) -> None:
        self._real = OsFiles()
        self.left = calls

    def __getattr__(self, name: str) -> Any:
        real = getattr(self._real, name)
        if name not in MUTATING:
            return real

        def call(*arguments: Any, **named: Any) -> Any:
            if self.left <= 0:
                raise Crash
            self.left -= 1
            return real(*arguments, **named)

        return call


def crashes(queue: Queue) -> Iterator[Queue]:
    """The queue after a crash at each call of a quarantine, the last one after none."""
    for calls in range(10_000):
        copy = Queue.__new__(Queue)
        copy.path = queue.path.with_name(f"crash-{calls}")
        shutil.copytree(queue.path, copy.path)
        files = CrashingFiles(calls)
        with suppress(Crash):
            copy.quarantine(files)
        yield copy
        shutil.rmtree(copy.path)
        if files.left > 0:
            return


def test_a_crash_at_any_call_leaves_a_queue_that_opens_and_the_same_command_goes_on(queue: Queue) -> None:
    (first, last) = queue.lines()[1]
    damage(queue.segments()[1])
    damage(queue.objects()[1])
    moments = 0

    for crashed in crashes(queue):
        moments += 1
        with Broker.open(crashed.path) as broker:
            assert broker.get(first - 1).state == "ready"
            assert broker.get(last + 1).state == "ready"
            assert broker.get(5).state == "succeeded"
        crashed.quarantine()
        assert crashed.is_sound(), moments
        with Broker.open(crashed.path) as broker:
            stats = broker.stats()
        assert (stats.ready, stats.succeeded, stats.pushed) == (2 * JOBS + 1, 6, 6 + 3 * JOBS + 1)
        assert crashed.root().pruned == JOBS + 2
    assert moments > 15


def keyed(path: Path) -> list[Path]:
    """Jobs with keys in a segment, and an object of keys; those two."""
    with Broker.open(path) as broker:
        for number in range(100):
            broker.push(b'"%0300d"' % number, key=f"order-{number}")
    root = codec.decode_root((path / ROOT_KEY).read_bytes())
    return [
        path / "segments" / f"{one.number:012}-{one.epoch:06}.jsonl" for one in (root.segments[0], *root.key_objects)
    ]


def test_keys_of_jobs_in_a_segment_that_is_set_aside_are_free_and_the_others_are_not(tmp_path: Path) -> None:
    segment, _ = keyed(tmp_path / "queue")
    damage(segment)
    told = osqueue("verify", "queue", "--quarantine", cwd=tmp_path)

    assert "keys are forgotten" not in told.stdout
    with Broker.open(tmp_path / "queue") as broker:
        assert broker.push(b"1", key="order-0") == 101
        assert broker.push(b"1", key="order-99") == 100


def test_with_an_object_of_keys_all_keys_are_forgotten_and_that_is_said(tmp_path: Path) -> None:
    _, keys = keyed(tmp_path / "queue")
    damage(keys)
    told = osqueue("verify", "queue", "--quarantine", cwd=tmp_path)

    assert told.returncode == 0
    assert "all keys are forgotten" in told.stdout
    with Broker.open(tmp_path / "queue") as broker:
        assert broker.push(b"1", key="order-99") == 101
        broker.cancel(100)
        assert broker.push(b"1", key="order-99") == 101
        assert broker.stats().ready == 100


KINDS = ("ready", "deferred", "dead", "keys", "archive")


@pytest.fixture(scope="module")
def every_kind(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A queue with an object of each kind; jobs with keys stand in the segments of all three."""
    path = tmp_path_factory.mktemp("kinds") / "queue"
    payloads = [b'"%0300d"' % number for number in range(30)]
    with Broker.open(path) as broker:
        broker.push(b"1", task="early")
        broker.complete(broker.claim_many(1, tasks=["early"])[0])
        for number, payload in enumerate(payloads):
            broker.push(payload, key=f"dead-{number}", task="dies")
        for job in broker.claim_many(len(payloads), tasks=["dies"]):
            broker.fail(job, "why", retry=False)
        for number, payload in enumerate(payloads):
            broker.push(payload, key=f"late-{number}", delay=86_400)
        for number in range(100):
            broker.push(b'"%0300d"' % number, key=f"order-{number}")
    return path


def object_of(kind: str, path: Path) -> Path:
    if kind == "archive":
        return min((path / "archive").glob("*/*"))
    root = codec.decode_root((path / ROOT_KEY).read_bytes())
    lines = root.key_objects if kind == "keys" else [line for line in root.segments if line.kind == kind]
    return path / segment_key(lines[0].number, lines[0].epoch)


@pytest.mark.parametrize("kinds", list(combinations(KINDS, 2)), ids="-".join)
def test_objects_of_two_kinds_are_set_aside_at_once(kinds: tuple[str, str], every_kind: Path, tmp_path: Path) -> None:
    queue = Queue.__new__(Queue)
    queue.path = tmp_path / "queue"
    shutil.copytree(every_kind, queue.path)
    for path in [object_of(kind, queue.path) for kind in kinds]:
        damage(path)

    done = queue.quarantine()

    assert len(done.aside) == 2
    assert done.findings.problems == []
    assert queue.is_sound()
