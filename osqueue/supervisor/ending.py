"""An orderly stop: the idle end, the others when they are done or grace has run out, and at last it is said."""

from __future__ import annotations

from collections.abc import Iterator

from osqueue.supervisor.crew import Crew, Member
from osqueue.supervisor.effects import Effect, KillWorker, SendWorker, Stopped
from osqueue.supervisor.retirement import LEAST_END_NS
from osqueue.worker.messages import End

_ANSWERS_NS = 10_000_000_000
"""How long after grace to wait for a broker that does not answer."""


class Ending:
    """The stop of one crew, once it has been asked for."""

    def __init__(self) -> None:
        self._until_ns: int | None = None
        self._said = False

    @property
    def asked(self) -> bool:
        """Whether a stop is under way, or done."""
        return self._until_ns is not None

    def ask(self, crew: Crew, until_ns: int, now_ns: int) -> None:
        """Stop until then; asking again sets a new time. Workers that end already do not get more than that."""
        self._until_ns = until_ns
        for member in crew.present():
            if member.state == "ending" and member.end_by_ns is not None:
                member.end_by_ns = min(member.end_by_ns, max(until_ns, now_ns + LEAST_END_NS))

    def advance(self, crew: Crew, now_ns: int, *, all_durable: bool) -> Iterator[Effect]:
        """What is to be done now.

        Args:
            all_durable: no outcome waits for the broker.
        """
        if self._until_ns is None or self._said:
            return
        for member in crew.present():
            if member.state == "up" and not member.sent:
                member.end(max(self._until_ns, now_ns + LEAST_END_NS))
                yield SendWorker(member.slot, End())
            elif self._is_over(member, self._until_ns, now_ns):
                member.condemn("stop")
                yield KillWorker(member.slot)
        if not crew.present() and (all_durable or now_ns >= self._until_ns + _ANSWERS_NS):
            self._said = True
            yield Stopped()

    def next_ns(self, crew: Crew) -> int | None:
        """When `advance` must look again, if nothing happens before."""
        if self._until_ns is None or self._said:
            return None
        times = []
        if any(member.state == "up" for member in crew.members):
            times.append(self._until_ns)
        if not crew.present():
            times.append(self._until_ns + _ANSWERS_NS)
        return min(times, default=None)

    @staticmethod
    def _is_over(member: Member, until_ns: int, now_ns: int) -> bool:
        """Whether the worker has had all its time for jobs; one that does not stand yet has nothing to lose."""
        return member.state == "starting" or (member.state == "up" and now_ns >= until_ns)
