"""Many job ids as few numbers."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from typing import overload

from osqueue.core.messages import IdRun
from osqueue.core.runs import to_runs


def from_runs(runs: Iterable[IdRun]) -> Iterator[int]:
    """The ids of runs, one by one."""
    for first, last in runs:
        yield from range(first, last + 1)


class Ids(Sequence[int]):
    """Job ids in push order, kept as runs: a million consecutive ones are two numbers."""

    def __init__(self, runs: Iterable[IdRun] = ()) -> None:
        self._runs: list[IdRun] = []
        self._ends: list[int] = []
        self.extend(runs)

    def extend(self, runs: Iterable[IdRun]) -> None:
        """Add ids behind the others."""
        for first, last in runs:
            if self._runs and self._runs[-1][1] + 1 == first:
                self._runs[-1] = (self._runs[-1][0], last)
                self._ends[-1] += last - first + 1
                continue
            self._runs.append((first, last))
            self._ends.append(len(self) + last - first + 1)

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    @overload
    def __getitem__(self, index: int) -> int: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[int]: ...

    def __getitem__(self, index: int | slice) -> int | Sequence[int]:
        if isinstance(index, slice):
            return [self[at] for at in range(*index.indices(len(self)))]
        at = index + len(self) if index < 0 else index
        if not 0 <= at < len(self):
            raise IndexError(f"index out of range index={index} ids={len(self)}")
        run = bisect_right(self._ends, at)
        return self._runs[run][1] - (self._ends[run] - 1 - at)

    def __iter__(self) -> Iterator[int]:
        return from_runs(self._runs)

    def __contains__(self, value: object) -> bool:
        return any(first <= value <= last for first, last in self._runs) if isinstance(value, int) else False

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Ids):
            return self._runs == other._runs
        return list(self) == other if isinstance(other, list) else NotImplemented

    def __hash__(self) -> int:
        return hash(tuple(self._runs))

    def __repr__(self) -> str:
        shown = ", ".join(f"{first}-{last}" if last > first else str(first) for first, last in self._runs[:5])
        return f"<{len(self)} job ids: {shown}{', …' if len(self._runs) > 5 else ''}>"


__all__ = ["Ids", "from_runs", "to_runs"]
