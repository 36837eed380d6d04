"""Pages of unfinished jobs whose segments overlap: by id, each job once, and few segments in memory at once."""

from __future__ import annotations

from typing import Any

import pytest

from osqueue.core import listing, sealing
from osqueue.core.messages import Ask, ListJobs
from osqueue.core.segment import NeedsObjectsError
from tests.core.queue import Queue
from tests.core.scattered import DAY_S, SLOTS, SPILLED, scattered_queue

NEEDED_AT_ONCE = 8


@pytest.fixture
def queue(monkeypatch: pytest.MonkeyPatch) -> Queue:
    monkeypatch.setattr(sealing, "MAX_JOBS", SLOTS)
    return scattered_queue()


class Asker:
    """Asks for pages, one round at a time."""

    def __init__(
        self, queue: Queue, state: str | None, session: str = "a", *, after: int = 0, limit: int = 200
    ) -> None:
        self.queue = queue
        self.session = queue.session(session)
        self.query = ListJobs(state, after, limit)  # type: ignore[arg-type]
        self.ids: list[int] = []
        self.pages = 0
        self.read = 0
        self.done = False

    def round(self) -> set[str]:
        """One try; the keys that it lacks."""
        try:
            self.queue.machine.ask(self.session.name, Ask(1, self.query), self.queue.now_ms)
        except NeedsObjectsError as error:
            lacking = error
        else:
            self._answered()
            return set()
        assert len(lacking.keys) <= NEEDED_AT_ONCE
        assert not lacking.together
        return set(lacking.keys)

    def _answered(self) -> None:
        [(_, reply)] = self.queue.machine.take_outbox()
        page = reply.body
        self.ids += [job.id for job in page.jobs]
        self.pages += 1
        self.done = not page.cursor
        if page.cursor:
            self.query = ListJobs(self.query.state, int(page.cursor), self.query.limit)

    def rounds(self, count: int) -> None:
        """So many tries, each with nothing in memory but what the one before lacked."""
        for _ in range(count):
            keys = self.round()
            self.read += len(keys)
            self.queue.unload()
            self.queue.load(keys)

    def gather(self, count: int) -> list[int]:
        """Ask until so many jobs of a page in the making are known; their ids."""
        while True:
            self.rounds(1)
            page = gathered(self.queue).get(self.session.name)
            if page is not None and len(page.places) >= count:
                return [place.job.id for place in page.places]

    def finish(self) -> list[int]:
        while not self.done:
            self.rounds(1)
        return self.ids


def gathered(queue: Queue) -> dict[str, Any]:
    return queue.machine._queries._listings._gathered


def test_segments_of_a_scattered_queue_overlap(queue: Queue) -> None:
    for kind in ("deferred", "dead"):
        lines = [s.line for s in queue.machine.state.backlog.located.spilled() if s.line.kind == kind]
        around = [sum(line.first_id <= job_id <= line.last_id for line in lines) for job_id in range(2000, 4000)]
        assert max(around) > NEEDED_AT_ONCE, kind


@pytest.mark.parametrize(("state", "first"), [("dead", 1), ("delayed", SPILLED + 1)])
def test_all_pages_give_each_job_once_by_id_though_only_what_was_asked_for_last_is_in_memory(
    queue: Queue, state: str, first: int
) -> None:
    asker = Asker(queue, state)

    ids = asker.finish()

    assert ids == list(range(first, first + SPILLED))
    assert asker.pages < 2 * SPILLED / asker.query.limit, "pages do not end where some segment begins"
    assert gathered(queue) == {}


def test_a_page_in_the_making_holds_no_more_than_a_page(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "PAGE_BYTES", 20_000)
    asker = Asker(queue, None, limit=150)
    most = 0

    while not asker.done:
        asker.rounds(1)
        held = [place.job for page in gathered(queue).values() for place in page.places]
        most = max(most, len(held))
        assert sum(job.payload_size() for job in held) <= 20_000 + 200
        assert all(job.payload.copy() is job.payload for job in held), "no views of what was read"  # type: ignore[union-attr]

    assert 50 < most < 150
    assert asker.ids == list(range(1, 2 * SPILLED + 1))


def test_a_page_says_how_its_jobs_are_when_it_is_answered(queue: Queue) -> None:
    asker, other = Asker(queue, "dead"), queue.session("other")
    known = asker.gather(20)

    other.discard(*known[:5])
    other.requeue(*known[5:10])
    ids = asker.finish()

    assert ids == [job_id for job_id in range(1, SPILLED + 1) if job_id not in known[:10]]


def test_a_job_that_moves_while_a_page_is_made_is_found_where_it_went(queue: Queue) -> None:
    asker, other = Asker(queue, None, limit=31), queue.session("other")
    known = asker.gather(20)

    other.requeue(*known)
    queue.wait(70)
    for _ in range(30):
        other.push(*[b'"%0100d"' % n for n in range(100)], delay_s=5 * DAY_S)
    ids = asker.finish()

    assert ids == list(range(1, 2 * SPILLED + 3001))


def test_two_who_ask_at_once_do_not_hinder_each_other(queue: Queue) -> None:
    one, two = Asker(queue, "delayed"), Asker(queue, None, "b", limit=77)
    rounds = 0

    while not (one.done and two.done):
        keys: set[str] = set().union(*(asker.round() for asker in (one, two) if not asker.done))
        queue.unload()
        queue.load(keys)
        rounds += 1

    assert one.ids == list(range(SPILLED + 1, 2 * SPILLED + 1))
    assert two.ids == list(range(1, 2 * SPILLED + 1))


def test_what_is_known_of_a_segment_spares_reading_it(queue: Queue) -> None:
    Asker(queue, "dead").finish()
    queue.unload()
    asker = Asker(queue, "dead", after=SPILLED // 2, limit=1)

    while not asker.pages:
        asker.rounds(1)

    assert asker.ids == [SPILLED // 2 + 1]
    assert asker.read <= NEEDED_AT_ONCE, "of some 30 that it may stand in"


@pytest.mark.parametrize("comes_back", [False, True])
def test_a_page_whose_asker_is_gone_is_forgotten(queue: Queue, *, comes_back: bool) -> None:
    asker = Asker(queue, "dead")
    asker.gather(20)

    if comes_back:
        asker.session.hello()
    else:
        queue.machine.disconnected("a")

    assert gathered(queue) == {}


def test_a_page_that_is_no_longer_asked_for_is_not_the_next_ones(queue: Queue) -> None:
    Asker(queue, "dead").gather(20)

    assert Asker(queue, "delayed").finish() == list(range(SPILLED + 1, 2 * SPILLED + 1))
