"""Numbers of workers that are none."""

from __future__ import annotations

from typing import Any

import pytest

from osqueue import LocalPool
from tests.cli.command_line import osqueue
from tests.e2e import handlers
from tests.e2e.aftermath import Place

pytestmark = pytest.mark.usefixtures("nothing_is_left")


@pytest.mark.parametrize(("workers", "error"), [(0, ValueError), (-1, ValueError), (1.5, TypeError), ("2", TypeError)])
def test_a_number_of_workers_that_is_none_is_refused_by_name_before_the_queue_is_opened(
    place: Place, workers: Any, error: type[Exception]
) -> None:
    before = place.files()

    with pytest.raises(error, match="workers"):
        LocalPool(handlers.double, path=place.path, workers=workers)

    assert place.files() == before
    place.is_intact()


def test_no_workers_on_the_command_line_is_wrong_usage(place: Place) -> None:
    before = place.files()
    (place.path.parent / "items.jsonl").write_text("1\n")

    done = osqueue(
        "run", "builtins:abs", "--file", "items.jsonl", "--path", place.path, "-j", "0", cwd=place.path.parent
    )

    assert done.returncode == 2
    assert "-j" in done.stderr
    assert place.files() == before
    place.is_intact()
