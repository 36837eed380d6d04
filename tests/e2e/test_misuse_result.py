"""Handlers whose end is no result: nothing that JSON can say, or no return at all."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

from osqueue import JobFailed, LocalPool
from tests.e2e import misused_handlers as misused
from tests.e2e.aftermath import Place

pytestmark = pytest.mark.usefixtures("nothing_is_left")


@pytest.mark.parametrize(
    ("handler", "error_type", "way_out"),
    [
        (misused.give_object, "InvalidPayload", "use JSON values, or a msgspec Struct"),
        (misused.give_nan, "InvalidPayload", "the result holds nan, which JSON cannot say: send None or text"),
        (misused.give_surrogate, "InvalidPayload", "the result holds a lone surrogate"),
        (misused.give_cycle, "InvalidPayload", "contains itself"),
        (misused.give_text_for_int, "InvalidPayload", "the result is not of the declared type int: Expected `int`"),
        (misused.give_something_for_none, "InvalidPayload", "the result is not of the declared type NoneType"),
        (misused.give_5_mib, "PayloadTooLarge", "store it elsewhere and return a reference"),
        (misused.exit_politely, "SystemExit", "7"),
        (misused.interrupt_itself, "KeyboardInterrupt", "not by a person"),
    ],
)
def test_an_end_that_is_no_result_fails_its_attempt_by_name_and_the_worker_goes_on(
    place: Place, handler: Callable[[Any], Any], error_type: str, way_out: str
) -> None:
    tasks = {"default": handler, "pid": misused.give_pid}
    with LocalPool(tasks, path=place.path, workers=1, max_attempts=2, retry_backoff=0.01) as pool:
        before = pool.submit(None, task="pid").result(60)
        failed = pool.submit(None)
        with pytest.raises(JobFailed, match=re.escape(way_out)) as caught:
            failed.result(60)
        after = pool.submit(None, task="pid").result(60)

        assert (caught.value.error_type, caught.value.attempts) == (error_type, 2)
        assert [error.error_type for error in pool.get(failed.job_id or 0).errors] == [error_type] * 2
        assert before == after
        assert pool.stats().dead == 1

    place.is_intact(succeeded=2)
