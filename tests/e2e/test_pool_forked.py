"""Pools in processes that a program has forked or started: each works, or is refused with the way out."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.program import Program

PROGRAM = """
import multiprocessing, os
from osqueue import LocalPool

def double(number: int) -> int:
    return 2 * number

def use(method):
    try:
        with LocalPool(double, workers=1, mp_context=method) as pool:
            print("child:", pool.submit(4).result(50), flush=True)
    except RuntimeError as error:
        print("child:", error, flush=True)

def start(context, **options):
    child = multiprocessing.get_context(context).Process(target=use, args=(METHOD,), **options)
    child.start()
    child.join()

def fork():
    child = os.fork()
    if child == 0:
        use(METHOD)
        os._exit(0)
    os.waitpid(child, 0)

if __name__ == "__main__":
    with LocalPool(double, workers=1) as pool:
        print("parent:", pool.submit(3).result(50), flush=True)
        START
        print("parent:", pool.submit(5).result(50), flush=True)
"""


def outcome(directory: Path, start: str, method: str | None) -> str:
    """What the child says, in a program whose own pool works before and after."""
    ended = Program(directory, PROGRAM.replace("START", start).replace("METHOD", repr(method))).end(120)
    assert (ended.status, ended.err) == (0, "")
    before, child, after = ended.out.splitlines()
    assert (before, after) == ("parent: 6", "parent: 10")
    return child


@pytest.mark.parametrize("method", [None, "spawn"])
@pytest.mark.parametrize("start", ["fork()", "start('fork')", "start('forkserver')"])
def test_a_child_can_have_a_pool_of_its_own(tmp_path: Path, start: str, method: str | None) -> None:
    assert outcome(tmp_path, start, method) == "child: 8"


def test_the_parents_fork_server_is_refused_with_the_way_out(tmp_path: Path) -> None:
    child = outcome(tmp_path, "fork()", "forkserver")

    assert child == (
        "child: mp_context: the fork server belongs to the process that this one was forked from; use 'spawn' here"
    )


@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_a_daemonic_process_is_refused_with_the_way_out(tmp_path: Path, context: str) -> None:
    child = outcome(tmp_path, f"start({context!r}, daemon=True)", None)

    assert "daemonic process, which multiprocessing allows no children" in child
    assert "daemon=False" in child
