"""Who has asked to prune the archive: one after the other, since what is pruned stands in the root until it is deleted.

ask ──▶ waiting ──the one before is applied, the trash is short──▶ Lookup ──▶ CommitLoop.prune
            └── what is in the trash cannot be deleted ──▶ refused, and its deletion is tried again
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from osqueue.broker.effects import Delete, Leaving, Lookup, Send
from osqueue.core.messages import Refused, Reply

MAX_TRASH = 64
"""Keys that may wait in the root for their deletion while more of the archive is pruned."""
_STUCK = Refused("unavailable", "what was pruned before cannot be deleted; see the broker's log")


class Prunes:
    """The questions that wait for their turn. Not thread-safe."""

    def __init__(self) -> None:
        self._waiting: deque[Lookup] = deque()
        self._under_way = False
        self._stuck: set[str] = set()
        """Keys of the trash whose deletion has failed."""

    def __len__(self) -> int:
        return len(self._waiting)

    def ask(self, lookup: Lookup) -> None:
        """One more."""
        self._waiting.append(lookup)

    def forget(self, connection: int) -> None:
        """A connection has ended: nobody waits for the answer."""
        self._waiting = deque(lookup for lookup in self._waiting if lookup.connection != connection)

    def ended(self) -> None:
        """The one that was looked up is applied, or could not be looked up."""
        self._under_way = False

    def deleted(self, keys: Iterable[str]) -> None:
        """Objects of the trash are gone."""
        self._stuck.difference_update(keys)

    def not_deleted(self, keys: Iterable[str]) -> None:
        """Objects of the trash could not be deleted; that is tried again later."""
        self._stuck.update(keys)

    def next(self, trash_keys: int) -> list[Leaving]:
        """What is to be done now, with so many keys in the trash: look up the next one, or refuse them all."""
        if not self._waiting or self._under_way:
            return []
        if trash_keys <= MAX_TRASH:
            self._under_way = True
            return [self._waiting.popleft()]
        if len(self._stuck) <= MAX_TRASH:
            return []  # the others are being deleted
        refusals = [Send(lookup.connection, Reply(lookup.ticket, _STUCK)) for lookup in self._waiting]
        self._waiting.clear()
        return [*refusals, Delete([])]
