"""Answers to whoever had jobs taken back: given once every report that says what became of those jobs is durable.

So they wait for a broker that is silent or being replaced. One that is given up answers every report, with nothing:
whoever asks has to know that it is gone.
"""

from __future__ import annotations

import asyncio

from osqueue.supervisor.effects import Dropped

Answer = asyncio.Future[list[int]]


class DropAnswers:
    """Who waits, and for which reports. On the loop's thread.

    Args:
        loop: makes the futures.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiting: dict[int, Answer] = {}
        self._last_number = 0
        self._undurable: set[int] = set()
        self._dropped: list[Dropped] = []
        self._behind: list[tuple[frozenset[int], Dropped]] = []
        """What was dropped, each with the reports that must be durable first."""

    def new(self) -> tuple[int, Answer]:
        """A request's number, and its answer: the ids of the jobs that were taken back."""
        self._last_number += 1
        answer = self._waiting[self._last_number] = self._loop.create_future()
        return self._last_number, answer

    def reported(self, number: int) -> None:
        """A report is on its way."""
        self._undurable.add(number)

    def dropped(self, dropped: Dropped) -> None:
        """A request is complete; the reports of it leave in the same turn."""
        self._dropped.append(dropped)

    def settled(self) -> None:
        """All reports of this turn are on their way."""
        for dropped in self._dropped:
            self._behind.append((frozenset(self._undurable), dropped))
        self._dropped.clear()
        self._answer()

    def durable(self, number: int) -> None:
        """A report has been answered, or never will be."""
        self._undurable.discard(number)
        self._answer()

    def end(self) -> None:
        """Nobody will know any more: the answer is that nothing was taken back."""
        for answer in self._waiting.values():
            _set(answer, [])
        self._waiting.clear()

    def _answer(self) -> None:
        still_behind = []
        for reports, dropped in self._behind:
            if reports & self._undurable:
                still_behind.append((reports, dropped))
            elif (answer := self._waiting.pop(dropped.number, None)) is not None:
                _set(answer, dropped.ids)
        self._behind = still_behind


def _set(answer: Answer, ids: list[int]) -> None:
    if not answer.done():
        answer.set_result(ids)
