"""Listing a queue whose segments overlap: the loop reads few of them at a time, and lets them go between."""

from __future__ import annotations

import pytest

from osqueue.broker.effects import Load
from osqueue.core import sealing, segment
from osqueue.core.messages import Ask, ListJobs, Page, Reply
from osqueue.core.model import LeaseLine
from tests.broker.bed import Bed
from tests.core.scattered import SLOTS, SPILLED, scattered_queue

CACHE_BYTES = 40_000
READ_AT_ONCE = 8


@pytest.fixture
def bed(monkeypatch: pytest.MonkeyPatch) -> Bed:
    monkeypatch.setattr(sealing, "MAX_JOBS", SLOTS)
    monkeypatch.setattr(segment, "CACHE_BYTES", CACHE_BYTES)
    queue = scattered_queue()
    return Bed(queue.root, queue.store, queue.now_ms)


class Lister:
    """A connection that asks for page after page."""

    def __init__(self, bed: Bed, connection: int, state: str | None) -> None:
        self.bed = bed
        self.connection = connection
        self.state = state
        self.ids: list[int] = []
        self.done = False
        bed.connect(connection, f"lister-{connection}")
        bed.settle()
        self.ask(0)

    def ask(self, after: int) -> None:
        self.bed.say(self.connection, Ask(1, ListJobs(self.state, after, 250)))  # type: ignore[arg-type]

    def look(self) -> None:
        """Take a page that has come, and ask for the next."""
        for reply in self.bed.to(self.connection, Reply):
            assert isinstance(reply.body, Page)
            self.ids += [job.id for job in reply.body.jobs]
            self.done = not reply.body.cursor
            self.bed.sent = [sent for sent in self.bed.sent if sent[0] != self.connection]
            if not self.done:
                self.ask(int(reply.body.cursor))


def in_memory(bed: Bed) -> int:
    segments = bed.loop.machine.state.backlog.segments.values()
    return sum(segment.line.length for segment in segments if segment.jobs is not None)


def largest(bed: Bed) -> int:
    return max(segment.line.length for segment in bed.loop.machine.state.backlog.segments.values())


def test_a_listing_gives_all_jobs_by_id_within_the_memory_that_segments_have(bed: Bed) -> None:
    lister = Lister(bed, 1, None)
    bound = CACHE_BYTES + READ_AT_ONCE * largest(bed)

    while not lister.done:
        assert len(bed.load()) <= READ_AT_ONCE
        assert in_memory(bed) <= bound
        lister.look()

    assert lister.ids == list(range(1, 2 * SPILLED + 1))
    bed.turn()
    assert in_memory(bed) <= CACHE_BYTES + largest(bed)


def test_listings_at_the_same_time_all_come_to_their_end(bed: Bed) -> None:
    listers = [Lister(bed, 1, None), Lister(bed, 2, "dead"), Lister(bed, 3, "delayed")]

    while not all(lister.done for lister in listers):
        assert bed.waiting(Load) or any(bed.to(lister.connection, Reply) for lister in listers), "nobody goes on"
        bed.load()
        for lister in listers:
            lister.look()

    assert [len(lister.ids) for lister in listers] == [2 * SPILLED, SPILLED, SPILLED]
    assert all(lister.ids == sorted(set(lister.ids)) for lister in listers)


def test_a_listing_that_is_left_pins_nothing(bed: Bed) -> None:
    Lister(bed, 1, "dead")
    for _ in range(4):
        bed.load()

    bed.loop.disconnected(1)
    bed.load()

    assert in_memory(bed) <= CACHE_BYTES + largest(bed)


def test_a_dead_holders_jobs_are_looked_for_within_the_memory_that_segments_have(bed: Bed) -> None:
    machine = bed.loop.machine
    machine.state.leases.add(LeaseLine(999, "gone", [], "worker", standing=True))
    bound = CACHE_BYTES + READ_AT_ONCE * largest(bed)

    bed.loop.lease_ended(999, [(job_id, 2) for job_id in range(1, 2 * SPILLED, 150)], marks=False)
    bed.turn()
    while bed.waiting(Load):
        bed.load()
        assert in_memory(bed) <= bound

    assert machine.state.leases.get(999) is None
