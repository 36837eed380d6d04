"""Handlers that leave children running."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from osqueue import JobTimeout, LocalPool
from tests.e2e import handlers
from tests.e2e import misused_handlers as misused
from tests.e2e.aftermath import Place, runs, wait_until_gone
from tests.e2e.waiting import wait_for

pytestmark = pytest.mark.usefixtures("nothing_is_left")


@pytest.mark.parametrize("handler", [misused.leave_child, misused.leave_forked_child, misused.leave_multiprocess_child])
def test_the_children_of_a_job_that_reaches_its_timeout_die_with_its_worker(
    place: Place, tmp_path: Path, handler: Callable[[Any], Any]
) -> None:
    note = tmp_path / "pids"
    tasks = {"default": handler, "double": handlers.double}
    with LocalPool(tasks, path=place.path, workers=1, max_attempts=1) as pool:
        future = pool.submit(str(note), timeout=2)
        wait_for(note.exists)
        pids = {int(pid) for pid in note.read_text().split()}
        assert len(pids) == 2
        assert all(map(runs, pids))

        with pytest.raises(JobTimeout, match="ran longer than its timeout") as caught:
            future.result(60)
        wait_until_gone(pids, 5)

        assert caught.value.attempts == 1
        assert pool.submit(3, task="double").result(60) == 6

    place.is_intact(succeeded=1)


def test_a_child_that_a_finished_job_left_dies_with_the_pool(place: Place, tmp_path: Path) -> None:
    note = tmp_path / "pids"
    with LocalPool(misused.leave_child_and_return, path=place.path, workers=1) as pool:
        pool.submit(str(note)).result(60)
        pids = {int(pid) for pid in note.read_text().split()}
        assert all(map(runs, pids))

    wait_until_gone(pids, 5)
    place.is_intact(succeeded=1)
