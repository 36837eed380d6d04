"""Handlers that no worker could find, or that keep a worker from starting."""

from __future__ import annotations

import functools
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from osqueue import LocalPool, PoolBroken
from tests.e2e import broken_in_workers, handlers
from tests.e2e.aftermath import Place
from tests.e2e.program import REPOSITORY, Program, processes_of
from tests.e2e.waiting import wait_for

pytestmark = pytest.mark.usefixtures("nothing_is_left")

WAY_OUT = "write it as a function with def, at the top level of a module that can be imported"


def local(value: object) -> object:
    def inner(value: object) -> object:
        return value

    return inner


class Doer:
    def do(self, value: object) -> object:
        return value


@pytest.mark.parametrize(
    ("handler", "named"),
    [
        (lambda value: value, "a lambda"),
        (local(1), "nested function"),
        (functools.partial(handlers.double), "a partial of 'double'"),
        (Doer().do, "the method Doer.do"),
        (abs, "the builtin abs"),
    ],
)
def test_what_a_worker_could_not_find_is_refused_with_the_way_out_before_the_queue_is_opened(
    place: Place, handler: Callable[[Any], Any], named: str
) -> None:
    before = place.files()

    with pytest.raises(TypeError, match=f"{named}.*{WAY_OUT}"):
        LocalPool(handler, path=place.path, workers=1)

    assert place.files() == before
    place.is_intact()


@pytest.mark.parametrize("run", [["-c"], ["-"]], ids=["python -c", "standard input"])
def test_a_function_that_was_typed_in_is_refused_with_the_way_out(place: Place, run: list[str]) -> None:
    code = f"from osqueue import LocalPool\ndef f(x): return x\nLocalPool(f, path={str(place.path)!r}).push(1)"
    before = place.files()

    done = subprocess.run(
        [sys.executable, *run, *([code] if run == ["-c"] else [])],
        input=code,
        cwd=place.path.parent,
        env={"PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert done.returncode == 1
    assert done.stderr.count("Traceback") == 1
    assert "TypeError: handler: f was typed in, workers cannot import it: put it into a file" in done.stderr
    assert place.files() == before
    wait_for(lambda: not processes_of(place.path.parent), 10)
    place.is_intact()


NO_GUARD = """
import os
from osqueue import LocalPool

with open("imports", "a") as imports:
    imports.write(f"{os.getpid()}\\n")

def double(number):
    return number * 2

with LocalPool(double, path="queue", workers=4, mp_context=METHOD) as pool:
    print(pool.push(1), flush=True)
"""


@pytest.mark.parametrize("method", ["forkserver", "spawn"])
def test_a_program_without_a_main_guard_gets_one_clear_error_and_starts_no_crowd(place: Place, method: str) -> None:
    directory = place.path.parent
    program = Program(directory, NO_GUARD.replace("METHOD", repr(method)))

    ended = program.end(30)

    assert ended.status == 1
    assert ended.err.count("Traceback") == 1
    assert "PoolBroken: the pool is made while its own workers import the program's main module" in ended.err
    assert 'if __name__ == "__main__":\n        with LocalPool(...) as pool:' in ended.err
    assert len((directory / "imports").read_text().split()) <= 3
    wait_for(lambda: not processes_of(directory), 10)
    with LocalPool(handlers.double, path=place.path, workers=1) as pool:
        succeeded = pool.join(60).succeeded
        pushed = [pool.get(int(line)) for line in ended.out.split()]
    assert {(record.state, record.attempts) for record in pushed} <= {("succeeded", 1)}
    place.is_intact(succeeded=succeeded)


def test_a_module_that_fails_to_import_in_workers_alone_breaks_the_pool_by_name_with_the_workers_traceback(
    place: Place,
) -> None:
    with (  # noqa: PT012
        pytest.raises(PoolBroken, match="missing_only_in_a_worker") as caught,
        LocalPool(broken_in_workers.double, path=place.path, workers=2) as pool,
    ):
        job_id = pool.push(4)
        told = pool.submit(5).exception(60)
        pool.join(60)

    assert isinstance(told, PoolBroken)
    text = str(caught.value)
    assert "workers cannot start, 5 in a row died before their first job" in text
    assert "ModuleNotFoundError: No module named 'missing_only_in_a_worker'" in text
    assert "broken_in_workers.py" in text
    with LocalPool(handlers.double, path=place.path, workers=1) as pool:
        succeeded = pool.join(60).succeeded
        record = pool.get(job_id)
    assert (record.result, record.attempts) == (b"8", 1)
    place.is_intact(succeeded=succeeded)
