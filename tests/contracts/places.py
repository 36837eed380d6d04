"""Places for queues, as the tests of the directory need them."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from osqueue.storage import ROOT_KEY, mark, open_directory

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


def make_queue(place: Path) -> None:
    with closing(open_directory(place)) as storage:
        storage.compare_and_swap(ROOT_KEY, b"{}", None)
        mark(storage)


@contextmanager
def mounted(place: Path, *options: str) -> Iterator[None]:
    """Something mounted at a new directory, or the test skipped where that is not allowed."""
    place.mkdir()
    done = subprocess.run(["mount", *options, place], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"cannot mount here: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", place], check=True)
