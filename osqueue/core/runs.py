"""Sets of slots, as runs: what a lease holds, what came back, what left early.

A run is ``(first, last, attempt, alone)`` within one object. Runs of an object are sorted and disjoint; neighbours of
the same attempt and mark are one run, so a set that was handed out in order is a few numbers however many jobs it has.

Rules:
* On disk, runs that lie close together are one line with a bitmap, so that no order of leaving makes a set large: an
  object takes a sixth of a byte for each of its slots at most (`potential_bytes`).
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from itertools import groupby
from operator import itemgetter

from osqueue.core.messages import IdRun
from osqueue.core.model import RunLine

Run = tuple[int, int, int, bool]
"""First and last slot, attempt, alone."""
SlotRun = tuple[int, int, int, int, bool]
"""The object, and a run in it."""
_LAST = float("inf")
_kind = itemgetter(2, 3)
"""A run's attempt and mark."""
_LINE_BYTES = 32
_BITS_PER_BYTE = 6
"""Slots that a byte of base64 tells of."""


class Runs:
    """A set of ``(object, slot)`` addresses, each with an attempt and a mark. Not thread-safe."""

    def __init__(self, runs: Iterable[SlotRun] = ()) -> None:
        self._by_object: dict[int, list[Run]] = {}
        self.slots = 0
        for object_, first, last, attempt, alone in runs:
            self.add(object_, first, last, attempt, alone=alone)

    def __bool__(self) -> bool:
        return self.slots > 0

    def __iter__(self) -> Iterator[SlotRun]:
        for object_ in sorted(self._by_object):
            for first, last, attempt, alone in self._by_object[object_]:
                yield (object_, first, last, attempt, alone)

    def potential_bytes(self) -> int:
        """How much the set may take on disk, whichever of its slots leave it."""
        return sum(_potential_bytes(runs) for runs in self._by_object.values())

    def lines(self) -> list[RunLine]:
        """The set as it stands on disk."""
        return [line for object_ in sorted(self._by_object) for line in _lines(object_, self._by_object[object_])]

    def objects(self) -> list[int]:
        """Numbers of the objects that have slots in the set."""
        return list(self._by_object)

    def of(self, object_: int) -> list[Run]:
        """An object's runs; not to be changed."""
        return self._by_object.get(object_, [])

    def find(self, object_: int, slot: int) -> Run | None:
        """The run that holds a slot."""
        runs = self._by_object.get(object_)
        if runs is None:
            return None
        at = bisect_right(runs, (slot, _LAST)) - 1
        return runs[at] if at >= 0 and runs[at][1] >= slot else None

    def add(self, object_: int, first: int, last: int, attempt: int, *, alone: bool = False) -> None:
        """Add a run that does not overlap the set."""
        runs = self._by_object.setdefault(object_, [])
        self.slots += last - first + 1
        at = bisect_right(runs, (first, _LAST))
        if at and runs[at - 1][1] == first - 1 and runs[at - 1][2:] == (attempt, alone):
            at -= 1
            first = runs.pop(at)[0]
        if at < len(runs) and runs[at][0] == last + 1 and runs[at][2:] == (attempt, alone):
            last = runs.pop(at)[1]
        runs.insert(at, (first, last, attempt, alone))

    def cut(self, object_: int, first: int, last: int) -> list[Run]:
        """Take out whatever of the set lies in ``first`` … ``last``, and return it as runs."""
        runs = self._by_object.get(object_)
        if runs is None:
            return []
        start = bisect_right(runs, (first, _LAST))
        if start and runs[start - 1][1] >= first:
            start -= 1
        end = start
        kept: list[Run] = []
        out: list[Run] = []
        while end < len(runs) and runs[end][0] <= last:
            a, b, attempt, alone = runs[end]
            if a < first:
                kept.append((a, first - 1, attempt, alone))
            out.append((max(a, first), min(b, last), attempt, alone))
            if b > last:
                kept.append((last + 1, b, attempt, alone))
            end += 1
        runs[start:end] = kept
        if not runs:
            del self._by_object[object_]
        self.slots -= sum(b - a + 1 for a, b, _, _ in out)
        return out

    def remove(self, object_: int, slot: int, attempt: int) -> Run | None:
        """Take out one slot if the set has it with this attempt; returns the run that it stood in, else None."""
        runs = self._by_object.get(object_)
        if runs is None:
            return None
        # Mostly it is in the first run, since jobs end roughly in the order in which they began.
        at = 0 if slot <= runs[0][1] else bisect_right(runs, (slot, _LAST)) - 1
        run = first, last, its_attempt, alone = runs[at]
        if not first <= slot <= last or its_attempt != attempt:
            return None
        self.slots -= 1
        if slot == first < last:
            runs[at] = (slot + 1, last, attempt, alone)
        elif first < slot == last:
            runs[at] = (first, slot - 1, attempt, alone)
        elif first < slot:
            runs[at : at + 1] = [(first, slot - 1, attempt, alone), (slot + 1, last, attempt, alone)]
        elif len(runs) > 1:
            del runs[at]
        else:
            del self._by_object[object_]
        return run

    def pop_object(self, object_: int) -> list[Run]:
        """Take out all of an object's runs."""
        runs = self._by_object.pop(object_, [])
        self.slots -= sum(last - first + 1 for first, last, _, _ in runs)
        return runs

    def move(self, moves: dict[int, dict[int, tuple[int, int]]]) -> None:
        """Follow jobs to their new addresses: old object → old slot → new object and slot."""
        for object_, slots in moves.items():
            for first, last, attempt, alone in self.pop_object(object_):
                targets = [slots.get(slot, (object_, slot)) for slot in range(first, last + 1)]
                for target, a, b in _stretches(targets):
                    self.add(target, a, b, attempt, alone=alone)


def _stretches(addresses: list[tuple[int, int]]) -> Iterator[tuple[int, int, int]]:
    """Object, first and last slot of each stretch of neighbours, in the order given."""
    object_, first = addresses[0]
    last = first
    for target, slot in addresses[1:]:
        if target != object_ or slot != last + 1:
            yield object_, first, last
            object_, first = target, slot
        last = slot
    yield object_, first, last


def expand(lines: Iterable[RunLine]) -> Iterator[SlotRun]:
    """The runs of some lines."""
    for line in lines:
        if not line.mask:
            yield (line.object, line.first, line.last, line.attempt, line.alone)
            continue
        for first, last in _bit_runs(int.from_bytes(b64decode(line.mask), "little")):
            yield (line.object, line.first + first, line.first + last, line.attempt, line.alone)


def _potential_bytes(runs: list[Run]) -> int:
    slots = sum(last - first + 1 for first, last, _, _ in runs)
    kinds = len(set(map(_kind, runs)))
    span = runs[-1][1] - runs[0][0] + 1
    return min(_LINE_BYTES * max(len(runs), slots // 2), kinds * (_LINE_BYTES + span // _BITS_PER_BYTE))


def _lines(object_: int, runs: list[Run]) -> Iterator[RunLine]:
    # In C, since this is done for every commit, and runs may be thousands; sorting keeps the order of their slots.
    for (attempt, alone), members in groupby(sorted(runs, key=_kind), key=_kind):
        alike = list(members)
        first, last = alike[0][0], alike[-1][1]
        if len(alike) > 1 and _LINE_BYTES * len(alike) > _LINE_BYTES + (last - first) // _BITS_PER_BYTE:
            yield RunLine(object_, first, last, attempt, alone, _mask(alike, first, last))
        else:
            yield from (RunLine(object_, run[0], run[1], attempt, alone) for run in alike)


def _mask(runs: list[Run], first: int, last: int) -> str:
    bits = 0
    for a, b, _, _ in runs:
        bits |= ((1 << (b - a + 1)) - 1) << (a - first)
    return b64encode(bits.to_bytes((last - first) // 8 + 1, "little")).decode()


def _bit_runs(bits: int) -> Iterator[tuple[int, int]]:
    """First and last of each run of set bits."""
    at = 0
    while bits:
        zeros = (bits & -bits).bit_length() - 1
        bits >>= zeros
        ones = (~bits & (bits + 1)).bit_length() - 1
        yield (at + zeros, at + zeros + ones - 1)
        bits >>= ones
        at += zeros + ones


def to_runs(ids: Iterable[int]) -> list[IdRun]:
    """Ids as runs, in the order given."""
    runs: list[IdRun] = []
    first = last = None
    for one in ids:
        if last is not None and first is not None and one == last + 1:
            last = one
            continue
        if first is not None and last is not None:
            runs.append((first, last))
        first = last = one
    if first is not None and last is not None:
        runs.append((first, last))
    return runs
