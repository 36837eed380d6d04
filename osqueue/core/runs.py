"""Sets of slots, as runs: what a lease holds, what came back, what left early.

A run is ``(first, last, attempt, alone)`` within one object. Runs of an object are sorted and disjoint; neighbours of
the same attempt and mark are one run, so a set that was handed out in order is a few numbers however many jobs it has.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator

from osqueue.core.model import RunLine

Run = tuple[int, int, int, bool]
_LAST = float("inf")


class Runs:
    """A set of ``(object, slot)`` addresses, each with an attempt and a mark. Not thread-safe."""

    def __init__(self, lines: list[RunLine] | None = None) -> None:
        self._by_object: dict[int, list[Run]] = {}
        self.slots = 0
        for object_, first, last, attempt, alone in lines or ():
            self.add(object_, first, last, attempt, alone=alone)

    def __bool__(self) -> bool:
        return self.slots > 0

    def __iter__(self) -> Iterator[RunLine]:
        for object_ in sorted(self._by_object):
            for first, last, attempt, alone in self._by_object[object_]:
                yield (object_, first, last, attempt, alone)

    @property
    def count(self) -> int:
        """How many runs the set is."""
        return sum(map(len, self._by_object.values()))

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

    def take(self, limit: int) -> list[RunLine]:
        """Take out the first ``limit`` slots, in order of object and slot."""
        out: list[RunLine] = []
        while limit > 0 and self._by_object:
            object_ = min(self._by_object)
            first, last, attempt, alone = self._by_object[object_][0]
            last = min(last, first + limit - 1)
            self.cut(object_, first, last)
            out.append((object_, first, last, attempt, alone))
            limit -= last - first + 1
        return out

    def pop_object(self, object_: int) -> list[Run]:
        """Take out all of an object's runs."""
        runs = self._by_object.pop(object_, [])
        self.slots -= sum(last - first + 1 for first, last, _, _ in runs)
        return runs

    def move(self, moves: dict[int, dict[int, tuple[int, int]]]) -> None:
        """Follow jobs to their new addresses: old object → old slot → new object and slot."""
        for object_, slots in moves.items():
            for first, last, attempt, alone in self.pop_object(object_):
                for slot in range(first, last + 1):
                    target = slots.get(slot, (object_, slot))
                    self.add(target[0], target[1], target[1], attempt, alone=alone)
