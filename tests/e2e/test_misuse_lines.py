"""A file of payloads whose third line is broken."""

from __future__ import annotations

from pathlib import Path

import pytest

from osqueue import Broker
from tests.cli.command_line import osqueue
from tests.e2e.aftermath import Place

pytestmark = pytest.mark.usefixtures("nothing_is_left")

BROKEN = {
    "cut": b'{"a": ',
    "two values": b"1},{2",
    "NaN": b"NaN",
    "surrogate": b'"\\ud800"',
    "not UTF-8": b'"\xff"',
    "nested": b"[" * 50_000 + b"]" * 50_000,
}


@pytest.fixture(params=BROKEN.values(), ids=BROKEN.keys())
def directory(request: pytest.FixtureRequest, place: Place) -> Path:
    """A directory with the queue and a file of five lines."""
    (place.path.parent / "items.jsonl").write_bytes(b"-1\n-2\n" + request.param + b"\n-4\n-5\n")
    return place.path.parent


def test_a_batch_with_a_broken_line_says_which_and_what_came_before_has_run(place: Place, directory: Path) -> None:
    done = osqueue("run", "builtins:abs", "--file", "items.jsonl", "--path", place.path, "-j", "1", cwd=directory)

    assert done.returncode == 2
    assert "items.jsonl:3: not " in done.stderr
    assert "2 jobs were pushed before it, and have run" in done.stderr
    assert "Traceback" not in done.stderr
    with Broker.open(place.path) as broker:
        assert [record.result for record in broker.history()] == [b"1", b"2"]
    place.is_intact(succeeded=2)


def test_pushing_a_file_with_a_broken_line_says_which_and_what_came_before_is_pushed(
    place: Place, directory: Path
) -> None:
    done = osqueue("push", place.path, "--file", "items.jsonl", cwd=directory)

    assert done.returncode == 2
    assert "items.jsonl:3: not " in done.stderr
    assert "2 jobs were pushed before it" in done.stderr
    assert "Traceback" not in done.stderr
    with Broker.open(place.path) as broker:
        waiting = [record for record in broker.list("ready") if record.task == "default"]
        assert [record.payload for record in waiting] == [b"-1", b"-2"]
        for _ in waiting:
            job = broker.claim()
            assert job is not None
            broker.complete(job)
    place.is_intact(succeeded=2)
