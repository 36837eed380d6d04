"""Heartbeats in the background, without a broker: when they are sent, and what leaving the block says."""

from __future__ import annotations

import threading

import pytest

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


def test_the_first_beat_is_sent_at_once():
    holder = Holder()

    with Heartbeats(holder.beat, 3600, lambda: LONG_MS):
        assert holder.beaten.wait(20)


def test_a_lease_that_ended_between_two_beats_is_told_on_leaving():
    holder = Holder()
    term_ms = LONG_MS
    beats = Heartbeats(holder.beat, 3600, lambda: term_ms)

    beats.__enter__()
    assert holder.beaten.wait(20)
    holder.lost = True
    term_ms = 0  # another broker has the queue, with a shorter lease
    with pytest.raises(LeaseLost):
        beats.__exit__(None, None, None)

    assert beats.lost.is_set()


def test_leaving_within_the_term_of_a_beat_sends_none():
    holder = Holder()

    with Heartbeats(holder.beat, 3600, lambda: LONG_MS):
        assert holder.beaten.wait(20)

    assert holder.beats == 1


def test_an_error_of_the_block_is_not_hidden_by_a_lost_lease():
    holder = Holder()
    holder.lost = True

    beats = Heartbeats(holder.beat, 3600, lambda: LONG_MS)

    beats.__enter__()
    assert beats.lost.wait(20)

    beats.__exit__(ZeroDivisionError, ZeroDivisionError(), None)  # raises nothing of its own


def test_when_no_beat_gets_through_for_a_term_the_lease_is_lost():
    def beat() -> None:
        raise Unavailable("no broker")

    beats = Heartbeats(beat, 3600, lambda: 10)

    beats.__enter__()
    assert beats.lost.wait(20)
    with pytest.raises(LeaseLost, match="no broker"):
        beats.__exit__(None, None, None)
