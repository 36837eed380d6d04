"""The loop in a thread: work gets there in order, in few wake-ups, and never silently not at all."""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest

import osqueue.reactor
from osqueue.reactor import LoopThread


@pytest.fixture
def reactor():
    reactor = LoopThread()
    yield reactor
    reactor.stop()


def test_calls_run_in_order_and_a_burst_wakes_the_loop_once(reactor, monkeypatch):
    wakes: list[object] = []
    real = reactor.loop.call_soon_threadsafe
    monkeypatch.setattr(reactor.loop, "call_soon_threadsafe", lambda *args: (wakes.append(args), real(*args)))
    ran: list[int] = []
    gate, done = threading.Event(), threading.Event()
    reactor.call(gate.wait)

    for number in range(1000):
        reactor.call(ran.append, number)
    reactor.call(done.set)
    gate.set()

    assert done.wait(10)
    assert ran == list(range(1000))
    assert len(wakes) <= 2


def test_a_call_that_raises_does_not_take_the_others_along(reactor, caplog):
    done = threading.Event()

    reactor.call(lambda: 1 / 0)
    reactor.call(done.set)

    assert done.wait(10)
    assert "callback failed" in caplog.text


def test_a_coroutine_gives_its_result_or_its_error(reactor):
    async def give(value: int) -> int:
        await asyncio.sleep(0)
        return 10 // value

    assert reactor.run(give, 5).result(10) == 2
    with pytest.raises(ZeroDivisionError):
        reactor.run(give, 0).result(10)


def test_ctrl_c_while_a_coroutine_is_handed_in_leaves_none_behind_and_the_loop_awake(reactor):
    async def give() -> int:
        return 1

    line = 0
    while interrupted_at(line, lambda: reactor.run(give).result(10)):
        gc.collect()  # a coroutine that nobody awaits warns when it is freed, and warnings are errors here

        assert reactor.run(give).result(10) == 1
        line += 1

    assert line > 10


def interrupted_at(line: int, function: Callable[[], object]) -> bool:
    """Call it, with Ctrl-C before the so-manieth line that it runs in the module under test; False if it has fewer."""
    left = line

    def trace(frame: FrameType, event: str, _: object) -> Any:
        nonlocal left
        if frame.f_code.co_filename != osqueue.reactor.__file__:
            return None
        if event == "line":
            left -= 1
            if left < 0:
                sys.settrace(None)
                raise KeyboardInterrupt
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        function()
    except KeyboardInterrupt:
        return True
    finally:
        sys.settrace(before)
    return False


def test_whoever_waits_when_the_loop_ends_is_told(reactor):
    waiting = reactor.run(asyncio.sleep, 3600)

    reactor.stop()

    with pytest.raises(RuntimeError, match="closed"):
        waiting.result(10)
    with pytest.raises(RuntimeError, match="closed"):
        reactor.call(print)
    with pytest.raises(RuntimeError, match="closed"):
        reactor.run(asyncio.sleep, 0)


def test_every_call_beside_the_end_either_runs_or_raises():
    for _ in range(50):
        reactor = LoopThread()
        ran, refused = [], []

        def call(reactor=reactor, ran=ran, refused=refused) -> None:
            for number in range(200):
                try:
                    reactor.call(ran.append, number)
                except RuntimeError:
                    refused.append(number)

        thread = threading.Thread(target=call)
        thread.start()
        reactor.stop()
        thread.join()

        assert set(ran) | set(refused) == set(range(200))
