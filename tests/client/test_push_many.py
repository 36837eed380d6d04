"""What ``push_many`` offers a queue that has a bound, in what order."""

from __future__ import annotations

from typing import Any

import pytest

from osqueue.client.push_many import IN_FLIGHT, PushMany
from osqueue.core.messages import IdRun
from osqueue.errors import Corrupt, QueueFull


class Bounded:
    """A queue with so much room, and so much more at each wait for it."""

    def __init__(self, room: int, *more: int) -> None:
        self.room = room
        self.more = list(more)
        self.pushed: list[bytes] = []
        self.offered: list[int] = []
        self.waits = 0
        self.in_flight = self.most_in_flight = 0
        self.ids = 0

    def start(self, batch: list[bytes]) -> Any:
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        self.offered.append(len(batch))
        fitting = batch[: self.room]
        self.room -= len(fitting)
        self.pushed += fitting
        first = self.ids + 1
        self.ids += len(fitting)
        return Answer(self, [(first, self.ids)] if fitting else [])

    def wait_room(self) -> None:
        self.waits += 1
        if not self.more:
            raise Corrupt("nothing makes room")
        self.room += self.more.pop(0)

    def push_many(self, count: int, *, many_in_flight: bool = False) -> list[int]:
        pushing = PushMany(self.start, wait_room=self.wait_room, many_in_flight=lambda: many_in_flight)  # type: ignore[arg-type]
        return list(pushing.run(b"%d" % n for n in range(count)))


class Answer:
    def __init__(self, queue: Bounded, runs: list[IdRun]) -> None:
        self.queue = queue
        self.runs = runs

    def result(self) -> list[IdRun]:
        self.queue.in_flight -= 1
        return self.runs


def test_what_does_not_fit_is_offered_again_once_there_is_room():
    queue = Bounded(3, 2, 1, 10)

    assert queue.push_many(12) == list(range(1, 13))

    assert queue.pushed == [b"%d" % n for n in range(12)]
    assert queue.waits == 3


def test_a_batch_shrinks_to_about_what_fits_and_grows_again():
    queue = Bounded(4_040, *[5] * 20, 100_000)

    queue.push_many(20_000)

    cut = queue.offered.index(4096) + 1
    assert max(queue.offered[cut : cut + 18]) <= 16, "and not thousands, of which five fit"
    assert max(queue.offered[cut + 20 :]) > 1_000
    assert len(queue.offered) < 60


def test_in_a_bounded_queue_no_batch_overtakes_the_rest_of_the_one_before():
    queue = Bounded(100, *[50] * 200)

    queue.push_many(2_000)

    assert queue.most_in_flight == 1
    assert queue.pushed == [b"%d" % n for n in range(2_000)]


def test_a_queue_that_gets_a_bound_meanwhile_still_gets_everything():
    queue = Bounded(1_000, *[200] * 20)

    ids = queue.push_many(3_000, many_in_flight=True)

    assert queue.most_in_flight == IN_FLIGHT
    assert sorted(queue.pushed, key=int) == [b"%d" % n for n in range(3_000)]
    assert [queue.pushed[job_id - 1] for job_id in ids] == [b"%d" % n for n in range(3_000)], "ids in payload order"


def test_a_wait_that_ends_in_an_error_says_how_many_are_pushed():
    queue = Bounded(3, 4)

    with pytest.raises(Corrupt, match="nothing makes room") as raised:
        queue.push_many(10)

    assert raised.value.pushed == 7  # type: ignore[attr-defined]


def test_an_error_of_the_iterable_lets_what_came_before_wait_for_room_first():
    queue = Bounded(1, 1, 1, 1)

    def payloads() -> Any:
        yield from (b"1", b"2", b"3")
        raise QueueFull("of another kind")

    pushing = PushMany(queue.start, wait_room=queue.wait_room, many_in_flight=lambda: False)
    with pytest.raises(QueueFull) as raised:
        pushing.run(payloads())

    assert raised.value.pushed == 3
    assert queue.pushed == [b"1", b"2", b"3"]
