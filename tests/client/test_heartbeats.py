"""Heartbeats in the background, without a broker: when they are sent, and what leaving the block says."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from osqueue import clock
from osqueue.client.claims import Heartbeats
from osqueue.errors import LeaseLost, Unavailable

LONG_MS = 3_600_000


class Holder:
    """Holds a lease until it is taken away."""

    def __init__(self) -> None:
        self.lost = False
        self.beats = 0
        self.beaten = threading.Event()

    def beat(self) -> None:
        self.beats += 1
        self.beaten.set()
        if self.lost:
            raise LeaseLost("somebody else has it")


def heartbeats(beat: Callable[[], None], term_ms: Callable[[], int], *, age_ms: int = 0) -> Heartbeats:
    """For a job that was claimed so long ago."""
    return Heartbeats(beat, 3600, term_ms, since_ms=clock.boot_ms() - age_ms)


def test_a_claim_older_than_a_third_of_the_term_is_beaten_for_at_once():
    holder = Holder()

    with heartbeats(holder.beat, lambda: LONG_MS, age_ms=LONG_MS // 2):
        assert holder.beaten.wait(20)


def test_a_lease_that_ended_between_two_beats_is_told_on_leaving():
    holder = Holder()
    term_ms = LONG_MS
    beats = heartbeats(holder.beat, lambda: term_ms, age_ms=LONG_MS // 2)

    beats.__enter__()
    assert holder.beaten.wait(20)
    holder.lost = True
    term_ms = 0  # another broker has the queue, with a shorter lease
    with pytest.raises(LeaseLost):
        beats.__exit__(None, None, None)

    assert beats.lost.is_set()


def test_leaving_within_the_term_of_the_claim_sends_none():
    holder = Holder()

    with heartbeats(holder.beat, lambda: LONG_MS):
        pass

    assert holder.beats == 0


def test_an_error_of_the_block_is_not_hidden_by_a_lost_lease():
    holder = Holder()
    holder.lost = True
    beats = heartbeats(holder.beat, lambda: LONG_MS, age_ms=LONG_MS)

    beats.__enter__()
    assert beats.lost.wait(20)

    beats.__exit__(ZeroDivisionError, ZeroDivisionError(), None)  # raises nothing of its own


def test_an_error_of_the_block_does_not_wait_for_a_beat_that_is_on_its_way():
    began, go_on = threading.Event(), threading.Event()

    def beat() -> None:
        began.set()
        assert go_on.wait(60)

    beats = heartbeats(beat, lambda: LONG_MS, age_ms=LONG_MS)
    beats.__enter__()
    assert began.wait(20)

    beats.__exit__(ZeroDivisionError, ZeroDivisionError(), None)  # returns, though nobody answers
    go_on.set()


def test_a_job_that_was_finished_inside_the_block_is_not_lost():
    holder = Holder()
    holder.lost = True
    beats = heartbeats(holder.beat, lambda: LONG_MS, age_ms=LONG_MS)

    beats.__enter__()
    assert beats.lost.wait(20)
    beats.job_ended()

    beats.__exit__(None, None, None)


def test_when_no_beat_gets_through_for_a_term_the_lease_is_lost():
    def beat() -> None:
        raise Unavailable("no broker")

    beats = heartbeats(beat, lambda: 10)

    beats.__enter__()
    assert beats.lost.wait(20)
    with pytest.raises(LeaseLost, match="no broker"):
        beats.__exit__(None, None, None)
