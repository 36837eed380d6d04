"""Every state in which a power cut can leave a queue directory, and what the next opener finds there.

The storage under test is the production one, over `AbstractDisk`. Before each of its calls every disk that a power cut
could leave is opened anew. A commit is: create objects, swap the root, tell the caller, delete what the root dropped.
The first commit, a takeover, creates no objects: before a root stands, there must be none.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import pytest

from osqueue.errors import OsqueueError
from osqueue.storage import ROOT_KEY, Standing, Storage, Version, find_queue, mark, open_directory, open_reader
from osqueue.storage.files import Files
from osqueue.storage.publishing import TEMPORARY_PREFIX
from tests.contracts.abstract_files import AbstractDisk, Node

WHERE = "/new/parents/jobs"
COMMITS = 4


@dataclass
class History:
    """What the outside world was told, and what was ever handed to the storage."""

    issued: list[bytes] = field(default_factory=list)
    objects: dict[str, bytes] = field(default_factory=dict)
    deleted: set[str] = field(default_factory=set)
    acked: int = 0
    early: bool = False
    """Tell the caller before the swap instead of after it: a mutant."""

    def key(self) -> tuple[int, int, int]:
        return (len(self.issued), self.acked, len(self.deleted))


def commit(storage: Storage, history: History, version: Version | None, number: int) -> Version:
    """One commit, in the order in which the broker makes it."""
    dropped = [key for key in history.objects if key not in history.deleted and key.startswith("segments/")]
    segment, archive = f"segments/{number}.json", f"archive/2026-01-01T0{number}/{number}.jsonl"
    objects = {segment: b"segment" * number, archive: b"done"} if number > 1 else {}
    for key, data in objects.items():
        storage.create(key, data)
    history.objects.update(objects)
    live = [key for key in history.objects if key not in history.deleted and key not in dropped]
    root = json.dumps({"number": number, "objects": live}).encode()
    history.issued.append(root)
    if history.early:
        history.acked = number
    version = storage.compare_and_swap(ROOT_KEY, root, version)
    history.acked = number
    for key in dropped:
        storage.delete(key)
        history.deleted.add(key)
    return version


def run(files: Files, history: History) -> None:
    """Make a queue and commit to it."""
    with closing(open_directory(WHERE, files=files)) as storage:
        version = None
        for number in range(1, COMMITS + 1):
            version = commit(storage, history, version, number)
            if number == 1:
                mark(storage)


def problem_of(disk: AbstractDisk, history: History) -> str | None:
    """What is wrong with what the next opener finds; None if all that was promised is there."""
    try:
        return _problem_of(disk, history)
    except OsqueueError as error:
        return f"corrupt: {type(error).__name__}: {error}"


def _problem_of(disk: AbstractDisk, history: History) -> str | None:
    with closing(open_directory(WHERE, files=disk)) as storage:
        standing = find_queue(storage)
        if standing is Standing.EMPTY:
            return f"lost: {history.acked} commits" if history.acked else None
        root, version = storage.read(ROOT_KEY)
        if root not in history.issued:
            return f"corrupt: root {root!r}"
        number = json.loads(root)["number"]
        if number < history.acked:
            return f"lost: commit {history.acked}, found {number}"
        for key in json.loads(root)["objects"]:
            if storage.read(key)[0] != history.objects[key]:
                return f"corrupt: {key}"
        if back := history.deleted.intersection(storage.list("")):
            return f"came back: {back}"
        storage.compare_and_swap(ROOT_KEY, b"{}", version)
        left = [name for name in all_names(disk.top) if name.startswith(TEMPORARY_PREFIX)]
        return f"left over: {left}" if left else None


def all_names(node: Node) -> list[str]:
    return [name for inner, child in node.names.items() for name in (inner, *all_names(child))]


class BrokenPromise(Exception):
    """A power cut was found that breaks what the caller was told."""


class Torture:
    """Opens, before each call of a run, every disk that a power cut could leave then; the first bad one ends it."""

    def __init__(self, history: History) -> None:
        self.disk = AbstractDisk()
        self.disk.on_call = self._power_cuts
        self.history = history
        self.calls = 0
        self._seen: set[object] = set()

    def _power_cuts(self, call: str) -> None:
        self.calls += 1
        for left in self.disk.after_a_power_cut():
            state = (left.top.tree(), self.history.key())
            if state in self._seen:
                continue
            self._seen.add(state)
            problem = problem_of(left, self.history)
            if problem is not None:
                self.disk.on_call = lambda call: None
                raise BrokenPromise(f"before call {self.calls}, {call}: {problem}")

    @property
    def states(self) -> int:
        return len(self._seen)


def test_no_power_cut_at_any_call_loses_or_damages_what_was_acked() -> None:
    torture = Torture(History())

    run(torture.disk, torture.history)

    assert torture.history.acked == COMMITS
    assert torture.calls > 50
    assert torture.states > 500


def test_a_directory_that_the_user_made_just_before_survives_with_the_queue_in_it() -> None:
    torture = Torture(History())
    for path in ("/new", "/new/parents", WHERE):
        torture.disk.make_path(path)

    run(torture.disk, torture.history)

    assert torture.history.acked == COMMITS


class Mutant:
    """The disk with one rule broken; everything else goes through."""

    def __init__(self, disk: AbstractDisk) -> None:
        self._disk = disk

    def __getattr__(self, name: str) -> Any:
        return getattr(self._disk, name)


class NoFsync(Mutant):
    def sync(self, file: int) -> None:
        pass


class NoDirectoryFsync(Mutant):
    def sync_directory(self, directory: int) -> None:
        pass


class DirectoryFsyncBeforeRename(Mutant):
    def rename(self, name: str, new_name: str, at: int) -> None:
        self._disk.sync_directory(at)
        self._disk.rename(name, new_name, at)

    def link(self, name: str, new_name: str, at: int) -> None:
        self._disk.sync_directory(at)
        self._disk.link(name, new_name, at)

    def sync_directory(self, directory: int) -> None:
        pass


class ParentNotFsynced(Mutant):
    made = False

    def make_directory(self, name: str, at: int) -> None:
        self.made = True
        self._disk.make_directory(name, at)

    def sync_directory(self, directory: int) -> None:
        if not self.made:
            self._disk.sync_directory(directory)
        self.made = False


class DeletionNotFsynced(Mutant):
    deleted = False

    def unlink(self, name: str, at: int) -> None:
        self.deleted = not name.startswith(TEMPORARY_PREFIX)
        self._disk.unlink(name, at)

    def sync_directory(self, directory: int) -> None:
        if not self.deleted:
            self._disk.sync_directory(directory)
        self.deleted = False


@pytest.mark.parametrize(
    ("mutant", "caught_as"),
    [
        (NoFsync, "corrupt"),
        (NoDirectoryFsync, "lost"),
        (DirectoryFsyncBeforeRename, "lost"),
        (ParentNotFsynced, "corrupt"),
        (DeletionNotFsynced, "came back"),
    ],
)
def test_a_broken_rule_of_writing_is_caught(mutant: Callable[[AbstractDisk], Files], caught_as: str) -> None:
    torture = Torture(History())

    with pytest.raises(BrokenPromise, match=caught_as):
        run(mutant(torture.disk), torture.history)


def test_telling_the_caller_before_the_swap_is_caught() -> None:
    torture = Torture(History(early=True))

    with pytest.raises(BrokenPromise, match="lost"):
        run(torture.disk, torture.history)


def test_a_creation_said_again_after_a_crash_survives_a_power_cut() -> None:
    """The first maker died between the link and the directory's fsync: the name is there, but not yet for good."""
    disk = AbstractDisk()
    with closing(open_directory(WHERE, files=disk)) as storage:
        storage.create("segments/1.json", b"first")
        disk.on_call = lambda call: kill(disk) if call == "link" else None
        with pytest.raises(Killed):
            storage.create("segments/2.json", b"second")
    disk.on_call = lambda call: None
    assert any(lost(left, "segments/2.json") for left in disk.after_a_power_cut())

    with closing(open_directory(WHERE, files=disk)) as storage:
        storage.create("segments/2.json", b"second")

    assert not any(lost(left, "segments/2.json") for left in disk.after_a_power_cut())


class Killed(BaseException):
    """The process ends here."""


def kill(disk: AbstractDisk) -> None:
    def die(call: str) -> None:
        raise Killed

    disk.on_call = die


def lost(disk: AbstractDisk, key: str) -> bool:
    with closing(open_reader(WHERE, files=disk)) as reader:
        return key not in list(reader.list(""))


def test_without_fsync_a_crash_of_the_process_alone_damages_nothing() -> None:
    """What the kernel has been told stays when a process dies: the disk as it is, at every call."""
    disk = AbstractDisk()
    history = History()
    problems: list[str] = []

    def crash(call: str) -> None:
        assert call not in ("sync", "sync_directory")
        left = next(iter(AbstractDisk(everything_of(disk.top)).after_a_power_cut()))
        problem = problem_of(left, history)
        if problem is not None:
            problems.append(f"before {call}: {problem}")

    disk.on_call = crash
    with closing(open_directory(WHERE, files=disk, durable=False)) as storage:
        version = None
        for number in range(1, COMMITS + 1):
            version = commit(storage, history, version, number)

    assert problems == []
    assert history.acked == COMMITS


def everything_of(node: Node) -> Node:
    """The node as every process sees it, taken as synced."""
    copy = Node(node.number, node.is_directory, data=node.data, synced_data=node.data)
    copy.names = {name: everything_of(child) for name, child in node.names.items()}
    copy.synced_names = dict(copy.names)
    return copy
