"""What a handler raised, as text."""

from __future__ import annotations

import os

import pytest

from osqueue.context import Stage, current_job, enter_worker
from osqueue.core.messages import Handout
from osqueue.errors import Discard, Retry
from osqueue.worker import failure
from osqueue.worker.attempt import Judgement
from osqueue.worker.failure import cut_end, describe, handler_frames, keep_end


class Mute(Exception):
    def __str__(self) -> str:
        raise SystemExit(3)


def raised(error: BaseException) -> BaseException:
    try:
        raise error
    except BaseException as caught:  # noqa: BLE001
        return caught


def test_an_error_becomes_type_message_and_traceback():
    told = describe(raised(KeyError("x")), attempt=2)

    assert (told.error_type, told.message, told.attempt) == ("KeyError", "'x'", 2)
    assert "raise error\nKeyError: 'x'\n" in told.traceback


def test_causes_are_told_too():
    try:
        try:
            raise KeyError("first")
        except KeyError as first:
            raise ValueError("second") from first
    except ValueError as error:
        told = describe(error, attempt=1)

    assert told.traceback.index("KeyError: 'first'") < told.traceback.index("ValueError: second")


def test_an_error_that_cannot_say_what_it_is_is_told_all_the_same():
    told = describe(raised(Mute()), attempt=1)

    assert told.error_type == "Mute"
    assert told.message == "(its message cannot be read: SystemExit)"


@pytest.mark.parametrize("text", ["x" * 5_000, "é" * 5_000, "x" + "€" * 5_000, "\ud800" * 5_000])
def test_texts_are_cut_to_2_kib_of_clean_utf8(text):
    for cut in (cut_end(text), keep_end(text)):
        assert len(cut.encode()) <= 2_048
        assert "…" in cut


def test_the_beginning_of_a_message_and_the_end_of_a_traceback_are_kept():
    text = "begin" + "x" * 5_000 + "end"

    assert cut_end(text).startswith("begin")
    assert keep_end(text).endswith("end")


def test_short_texts_stay_as_they_are():
    assert cut_end("kurz und gut") == keep_end("kurz und gut") == "kurz und gut"


def test_of_a_fault_report_the_frames_above_the_handler_are_left_out():
    own = os.path.dirname(failure.__file__)
    report = (
        f'Fatal Python error: Segmentation fault\n\n  File "/app/shop.py", line 3 in f\n  File "{own}/loop.py", line 9'
    )

    assert handler_frames(report).endswith('File "/app/shop.py", line 3 in f')


@pytest.mark.parametrize(
    ("error", "judgement", "verdict"),
    [
        (ValueError(), Judgement(), "failed"),
        (SystemExit(), Judgement(), "failed"),
        (KeyboardInterrupt(), Judgement(), "failed"),
        (SystemExit(), Judgement(no_retry_on=(SystemExit,)), "dead"),
        (SystemExit(), Judgement(retry_on=(OSError,)), "dead"),
        (OSError(), Judgement(retry_on=(OSError,)), "failed"),
        (ValueError(), Judgement(retry_on=(OSError,)), "dead"),
        (FileNotFoundError(), Judgement(retry_on=(OSError,), no_retry_on=(FileNotFoundError,)), "dead"),
        (Retry(), Judgement(retry_on=(OSError,)), "failed"),
        (Retry(), Judgement(no_retry_on=(Exception,)), "failed"),
        (Discard(), Judgement(retry_on=(Discard,)), "dead"),
    ],
)
def test_what_is_worth_another_attempt(error, judgement, verdict):
    assert judgement.verdict(error) == verdict


def test_current_job_outside_a_handler_says_where_it_works():

    with pytest.raises(RuntimeError, match="only inside a handler"):
        current_job()
    stage = Stage(None)
    enter_worker(stage)
    try:
        with pytest.raises(RuntimeError, match="only inside a handler"):
            current_job()
        stage.job = Handout(5, 2, "task", b"", 0)
        stage.cancelled_ids.add(5)
        job = current_job()
        assert (job.id, job.attempt, job.task, job.cancelled, job.time_remaining) == (5, 2, "task", True, None)
    finally:
        enter_worker(None)  # type: ignore[arg-type]
