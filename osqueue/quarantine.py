"""Setting damaged objects aside, so that a queue that nobody has open goes on without them.

    verify ─▶ move aside ─▶ take over ─▶ commit without their jobs ─▶ verify ─▶ count what stands nowhere ─▶ close

Rules:
* A damaged file is moved into ``quarantine/``, its bytes unchanged, before anything is committed. A crash in between
  leaves a missing object in place of a damaged one: the queue opens as before, and the same command goes on.
* The jobs of a dropped segment count as discarded, without a record; so do the records of a dropped archive object.
* With an object of keys all keys are forgotten: which of them are held cannot be told any more.
* A damaged root is not mended, nor one that is older than objects beside it: what it should say is not known.
"""

from __future__ import annotations

from msgspec import Struct

from osqueue.broker.takeover import Taken, nonce, take_over
from osqueue.core import codec
from osqueue.core.commit import Commit
from osqueue.core.model import Root
from osqueue.core.objects import parse, segment_key
from osqueue.core.segment import NeedsObjectsError
from osqueue.core.settings import QueueSettings
from osqueue.errors import Corrupt
from osqueue.storage import ROOT_KEY, DirectoryStorage, NotFound
from osqueue.verify import Findings, Problem, verify

_SET_ASIDE = ("damaged", "missing", "foreign")
_BEYOND_MENDING = ("newer",)


class SetAside(Struct, frozen=True, omit_defaults=True):
    """One object that the queue goes on without, and where it is now; the ids that it may have held."""

    problem: Problem
    place: str | None = None
    first_id: int | None = None
    last_id: int | None = None
    keys: bool = False
    """Whether it was one of keys, so that no unfinished job has a key any more."""


class Quarantined(Struct, frozen=True):
    """``aside``: what was set aside. ``dropped``: jobs that had not ended and were in it. ``unrecorded``: finished jobs
    whose records are gone. ``findings``: what is there now. ``mended``: whether anything could be done.
    """

    aside: list[SetAside]
    dropped: int
    unrecorded: int
    findings: Findings
    mended: bool = True


def quarantine(storage: DirectoryStorage) -> Quarantined:
    """Set aside what `verify` finds damaged.

    Raises:
        StorageError: something cannot be read, moved or written now; the same call again goes on.
    """
    findings = verify(storage)
    if not findings.problems:
        return Quarantined([], 0, 0, findings)
    if any(problem.key == ROOT_KEY and problem.name in _SET_ASIDE for problem in findings.problems) or any(
        problem.name in _BEYOND_MENDING for problem in findings.problems
    ):
        return Quarantined([], 0, 0, findings, mended=False)
    problems = {problem.key: problem for problem in findings.problems if problem.name in _SET_ASIDE}
    root = codec.decode_root(storage.read(ROOT_KEY)[0])
    aside = [_set_aside(storage, problem, root) for problem in problems.values()]
    return _go_on_without(storage, aside)


def _set_aside(storage: DirectoryStorage, problem: Problem, root: Root) -> SetAside:
    place = storage.set_aside(problem.key.rstrip("/"))
    ids = {segment_key(line.number, line.epoch): (line.first_id, line.last_id) for line in root.segments}
    first_id, last_id = ids.get(problem.key, (None, None))
    name = parse(problem.key)
    if name is not None and name.digest:
        first_id, last_id = name.first_id, name.last_id
    of_keys = problem.key in {segment_key(one.number, one.epoch) for one in root.key_objects}
    return SetAside(problem, place, first_id, last_id, of_keys)


def _go_on_without(storage: DirectoryStorage, aside: list[SetAside]) -> Quarantined:
    taken = take_over(storage, QueueSettings())
    # Keys first: while an object of them is damaged nobody can say which keys go with a segment.
    by_kind = sorted(aside, key=lambda one: not one.keys)
    dropped = sum(_drop(storage, taken, one.problem.key) for one in by_kind)
    _land(storage, taken, taken.machine.plan(now_ms=taken.clock.now_ms(), nonce=nonce()))
    unrecorded = _unrecorded(taken, verify(storage))
    taken.machine.prune([], unrecorded)
    _land(storage, taken, taken.machine.close(now_ms=taken.clock.now_ms(), nonce=nonce()))
    return Quarantined(aside, dropped, unrecorded, verify(storage))


def _drop(storage: DirectoryStorage, taken: Taken, key: str) -> int:
    """Go on without one object; how many unfinished jobs were in it."""
    while True:
        try:
            return taken.machine.objects.drop(key)
        except NeedsObjectsError as error:
            for needed in error.keys:
                try:
                    taken.machine.objects.load(needed, storage.read(needed)[0])
                except (NotFound, Corrupt):
                    taken.machine.objects.missing(needed)  # set aside itself, and dropped in its turn


def _unrecorded(taken: Taken, findings: Findings) -> int:
    """How many finished jobs have lost their records: what stands nowhere, if the counts say just that."""
    state = taken.machine.state
    counted = sum(of.succeeded + of.discarded + of.cancelled for _, of in state.counts.items())
    missing = counted - findings.finished - (state.frame.pruned or 0)
    return findings.lost if findings.lost == missing else 0


def _land(storage: DirectoryStorage, taken: Taken, commit: Commit) -> None:
    taken.writer.create(commit)
    taken.writer.swap(commit)
    taken.machine.landed(commit, taken.clock.now_ms())
    for key in commit.trash:
        storage.delete(key)
    taken.machine.deleted(commit.trash)
