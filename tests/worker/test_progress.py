"""What of a handler's words reaches the supervisor, and when."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator

import msgspec
import pytest

from osqueue.context import CurrentJob, Stage, current_job, enter_worker
from osqueue.core.messages import Handout
from osqueue.transport.frames import read_frame
from osqueue.worker.messages import FromWorker, Progressed
from osqueue.worker.outbox import Outbox
from osqueue.worker.progress import ProgressTeller

JOB = Handout(7, 2, "default", b"1", 0)


class Ear:
    """The supervisor's end."""

    def __init__(self) -> None:
        self.stage = Stage(None)
        self.socket, theirs = socket.socketpair()
        self.theirs = theirs
        self.stage.tell = ProgressTeller(Outbox(theirs), self.stage).tell
        self._decoder = msgspec.msgpack.Decoder(FromWorker)

    def begin(self) -> CurrentJob:
        self.stage.job = JOB
        job = self.stage.current()
        assert job is not None
        return job

    def hear(self, seconds: float = 10) -> Progressed | None:
        self.socket.settimeout(seconds)
        try:
            message = read_frame(self.socket, self._decoder)
        except TimeoutError:
            return None
        assert isinstance(message, Progressed)
        return message


@pytest.fixture
def ear() -> Iterator[Ear]:
    ear = Ear()
    yield ear
    ear.socket.close()
    ear.theirs.close()


def test_a_word_reaches_the_supervisor_with_its_job_and_attempt(ear):
    ear.begin().progress(0.5, "half")

    assert ear.hear() == Progressed(7, 2, 0.5, "half")


def test_of_many_words_some_are_said_and_always_the_last(ear):
    job = ear.begin()
    started = time.monotonic()
    calls = 0
    while time.monotonic() < started + 0.5:
        calls += 1
        job.progress(calls / 10_000_000)
    job.progress(1, "done")

    said = [ear.hear()]
    while said[-1].fraction < 1:
        said.append(ear.hear())
    took = time.monotonic() - started

    assert said[-1] == Progressed(7, 2, 1.0, "done")
    assert len(said) <= 2 + took / 0.1
    assert calls > 100
    assert ear.hear(0.3) is None


def test_after_its_job_has_ended_nothing_is_said(ear):
    job = ear.begin()
    ear.stage.job = None
    job.progress(0.5)
    ear.stage.job = Handout(7, 3, "default", b"1", 0)
    job.progress(0.75)

    ear.stage.current().progress(0.25)

    assert ear.hear() == Progressed(7, 3, 0.25, "")


def test_a_word_that_comes_too_late_for_its_turn_is_dropped(ear):
    job = ear.begin()
    job.progress(0.25)
    assert ear.hear().fraction == 0.25
    job.progress(0.5)
    ear.stage.job = None

    assert ear.hear(0.5) is None


def test_a_stray_word_takes_nobody_elses_place(ear):
    old = ear.begin()
    ear.stage.job = Handout(8, 1, "default", b"1", 0)
    new = ear.stage.current()
    new.progress(0.1)
    assert ear.hear().fraction == 0.1
    new.progress(0.25)
    old.progress(0.9)

    assert ear.hear() == Progressed(8, 1, 0.25, "")


def test_a_forked_child_says_nothing(ear):
    job = ear.begin()
    child = os.fork()
    if child == 0:
        job.progress(0.5)
        time.sleep(0.3)
        os._exit(0)
    os.waitpid(child, 0)

    assert ear.hear(0.1) is None
    job.progress(0.75)
    assert ear.hear().fraction == 0.75


def test_a_supervisor_that_is_gone_is_nothing_to_the_handler(ear):
    job = ear.begin()
    ear.socket.close()

    for _ in range(3):
        job.progress(0.5)
        time.sleep(0.15)


def test_outside_of_a_worker_nothing_is_told():
    stage = Stage(None)
    stage.job = JOB
    enter_worker(stage)
    try:
        current_job().progress(0.5)
    finally:
        enter_worker(Stage(None))


@pytest.mark.parametrize(
    ("message", "told"),
    [("x" * 201, "x" * 200), ("€" * 300, "€" * 200), ("\ud800", "\\ud800"), ("\ud800" * 200, "\\ud800" * 33 + "\\u")],
)
def test_a_message_is_clipped_and_can_always_be_sent(ear, message, told):
    ear.begin().progress(0, message)

    assert ear.hear().message == told
