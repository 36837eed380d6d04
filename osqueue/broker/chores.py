"""What is to be done though no connection asks for it: leases whose holders have gone, prunes that were looked up."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from osqueue.core.segment import NeedsObjectsError


class _Chore:
    def __init__(self, do: Callable[[int], None]) -> None:
        self.do = do
        self.needs: set[str] = set()
        """Objects that it has asked for and that must be in memory when it is tried again."""


class Chores:
    """In the order in which they came; one that needs an object that is not in memory lets the others go first."""

    def __init__(self) -> None:
        self._waiting: deque[_Chore] = deque()

    def add(self, do: Callable[[int], None]) -> None:
        """One more; it is called with the time."""
        self._waiting.append(_Chore(do))

    def apply(self, now_ms: int) -> set[str]:
        """Do what can be done; keys of the objects that the rest wants read."""
        wanted: set[str] = set()
        for _ in range(len(self._waiting)):
            chore = self._waiting.popleft()
            try:
                chore.do(now_ms)
            except NeedsObjectsError as error:
                chore.needs = chore.needs.union(error.keys) if error.together else set(error.keys)
                wanted.update(error.keys)
                self._waiting.append(chore)
        return wanted

    def needed(self) -> set[str]:
        """Keys of what must stay in memory."""
        return set[str]().union(*(chore.needs for chore in self._waiting))
