"""Where a signal may find a worker's main thread."""

from __future__ import annotations

import sys
from types import FrameType

from osqueue.worker.coroutine import Coroutines
from osqueue.worker.soft_timeout import SoftTimeouts, _runs_handler, _Steps


class Watching:
    """A coroutine that notes its own frame and that of whoever has it take a step."""

    def send(self, value: object) -> list[FrameType]:
        return [sys._getframe(), sys._getframe(1)]


def test_only_the_code_below_a_coroutines_step_is_the_handlers():
    steps = _Steps(Watching(), SoftTimeouts(1, Coroutines()))  # type: ignore[arg-type]

    coroutine, step = steps.send(None)

    assert _runs_handler(coroutine)
    assert not _runs_handler(step)  # just before the coroutine gets its turn, or just after
    assert not _runs_handler(sys._getframe())
    assert not _runs_handler(None)
