"""Ctrl-C in a program with a pool: at its start, once, twice, in the middle of a push, on the command line."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from osqueue import Broker, Client, LocalPool
from tests.cli.command_line import arguments_for, environment
from tests.e2e import handlers
from tests.e2e.aftermath import Place
from tests.e2e.program import Ended, Program, processes_of
from tests.e2e.waiting import wait_for

pytestmark = pytest.mark.usefixtures("nothing_is_left")

SOURCE = """
import pathlib, sys, time
from osqueue import LocalPool
import osqueue.pool

class Pool(LocalPool):
    def __exit__(self, *error):
        if error[0] is not None:
            pathlib.Path("stopping").touch()
        super().__exit__(*error)

def job(payload):
    pathlib.Path("began").touch()
    time.sleep(600)

if __name__ == "__main__":
    pathlib.Path("started").touch()
    with Pool({"default": job}, path="queue", workers=4, grace=GRACE, mp_context=METHOD) as pool:
        pathlib.Path("open").touch()
        pool.push_many(range(20))
        pathlib.Path("pushed").touch()
        LAST
"""


def source(*, grace: float = 0.3, method: str = "forkserver", last: str = "pass") -> str:
    return SOURCE.replace("GRACE", str(grace)).replace("METHOD", repr(method)).replace("LAST", last)


def start(place: Place, *, grace: float = 0.3, method: str = "forkserver", last: str = "pass") -> Program:
    return Program(place.path.parent, source(grace=grace, method=method, last=last))


def ends_quietly(program: Program, place: Place) -> Ended:
    """It ends soon, by SIGINT, with at most its own traceback, and takes everything with it."""
    ended = program.end(20)
    assert ended.status == -signal.SIGINT, ended.err
    # Ctrl-C may have come while some library handled an error of its own, which is then told first.
    assert ended.err.count("Traceback") <= 1 + ended.err.count("During handling of the above exception"), ended.err
    assert ended.err.rstrip().endswith("KeyboardInterrupt"), ended.err
    wait_for(lambda: not processes_of(place.path.parent), 5)
    return ended


def everything_runs(place: Place, *, at_least: int = 0, charged: int = 0) -> None:
    """What the program pushed is there, and was charged that often at most before it runs now."""
    with LocalPool(handlers.nothing, path=place.path, workers=2) as pool:
        stats = pool.join(60)
        ids = range(place.ids[-1] + 1, stats.pushed + 1)
        assert max((pool.get(job_id).attempts for job_id in ids), default=1) <= 1 + charged
        assert stats.succeeded == len(ids) >= at_least
    place.is_intact(succeeded=len(ids))


@pytest.mark.parametrize("method", ["forkserver", "spawn"])
@pytest.mark.parametrize("after_ms", [0, 20, 50, 100, 200, 350])
def test_ctrl_c_soon_after_the_start_ends_everything_quietly_and_keeps_the_jobs(
    place: Place, after_ms: int, method: str
) -> None:
    program = start(place, method=method)
    program.wait_for("started")
    time.sleep(after_ms / 1000)  # the moment is the point, not a condition
    program.interrupt()

    ends_quietly(program, place)

    everything_runs(place, at_least=20 if (place.path.parent / "pushed").exists() else 0)


def test_ctrl_c_while_jobs_run_gives_them_back_uncharged(place: Place) -> None:
    program = start(place)
    program.wait_for("pushed")
    program.wait_for("began")
    program.interrupt()

    ends_quietly(program, place)

    with Broker.open(place.path) as broker:
        assert {record.attempts for record in broker.list()} == {0}
    everything_runs(place, at_least=20)


def test_a_second_ctrl_c_stops_at_once_whatever_the_grace_and_keeps_the_jobs(place: Place) -> None:
    program = start(place, grace=600, last="time.sleep(600)")
    program.wait_for("pushed")
    program.wait_for("began")
    program.interrupt()
    program.wait_for("stopping")
    assert program.process.poll() is None
    program.interrupt()

    ended = program.end(20)

    assert ended.status == -signal.SIGINT, ended.err
    assert "osqueue-worker" not in ended.err
    wait_for(lambda: not processes_of(place.path.parent), 5)
    everything_runs(place, at_least=20)


@pytest.mark.parametrize("after", ["started", "open", "began"])
def test_ctrl_c_pressed_until_it_ends_ends_everything_and_keeps_the_jobs(place: Place, after: str) -> None:
    program = start(place, grace=600)
    program.wait_for(after)
    wait_for(lambda: pressed(program), 20)

    ended = program.end(1)

    assert ended.status in (-signal.SIGINT, 1), ended.err
    wait_for(lambda: not processes_of(place.path.parent), 5)
    # The later ones may end the clean-up itself, which is as good as a kill: what ran then is charged once.
    everything_runs(place, charged=1)


def pressed(program: Program) -> bool:
    """Press it once more; whether the program has ended."""
    if program.process.poll() is None:
        program.interrupt()
        time.sleep(0.05)
    return program.process.poll() is not None


@pytest.mark.parametrize("after_ms", [20, 50, 150])
def test_ctrl_c_twice_soon_after_the_start_ends_everything_and_keeps_the_jobs(place: Place, after_ms: int) -> None:
    program = start(place, grace=600)
    program.wait_for("started")
    time.sleep(after_ms / 1000)
    program.interrupt()
    time.sleep(0.05)
    program.interrupt()

    ended = program.end(20)

    assert ended.status == -signal.SIGINT, ended.err
    wait_for(lambda: not processes_of(place.path.parent), 5)
    everything_runs(place)


HANDLER = """
import pathlib, time

def wait(number):
    pathlib.Path("began").touch()
    time.sleep(600)
"""


@pytest.mark.parametrize("times", [1, 2])
def test_ctrl_c_on_the_command_line_ends_it_with_130_one_line_and_the_jobs_kept(place: Place, times: int) -> None:
    directory = place.path.parent
    (directory / "handlers.py").write_text(HANDLER)
    (directory / "items.jsonl").write_text("".join(f"{number}\n" for number in range(20)))
    grace = "0.3" if times == 1 else "600"
    command = ["run", "handlers:wait", "--file", "items.jsonl", "--path", "queue", "-j", "2", "--grace", grace]
    running = subprocess.Popen(
        arguments_for(*command),
        cwd=directory,
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        process_group=0,
    )
    wait_for((directory / "began").exists)
    with_all_pushed(place.path)

    for _ in range(times):
        os.killpg(running.pid, signal.SIGINT)
        time.sleep(0.3)
    _, said = running.communicate(timeout=20)

    assert running.returncode == 130
    assert "Traceback" not in said
    assert "what has not finished waits in queue" in said
    wait_for(lambda: not processes_of(directory), 5)
    everything_runs(place, at_least=20)


def with_all_pushed(path: Path) -> None:
    with Client.connect(path) as client:
        wait_for(lambda: client.stats().pushed == 23)


SLOW_CHILDREN = """
import pathlib, sys, time
if "multiprocessing" in " ".join(sys.orig_argv) and "resource_tracker" not in " ".join(sys.orig_argv):
    pathlib.Path("child").touch()
    time.sleep(1)
"""


@pytest.mark.parametrize("method", ["forkserver", "spawn"])
def test_ctrl_c_while_the_first_child_is_still_being_imported_is_not_its_business(place: Place, method: str) -> None:
    directory = place.path.parent
    (directory / "slow").mkdir()
    (directory / "slow" / "sitecustomize.py").write_text(SLOW_CHILDREN)
    set_path = 'import os\nos.environ["PYTHONPATH"] = os.path.abspath("slow") + ":" + os.environ["PYTHONPATH"]\n'
    program = Program(directory, set_path + source(grace=5, method=method))
    program.wait_for("child")
    program.interrupt()

    ended = ends_quietly(program, place)

    assert "worker could not be started" not in ended.err
    assert "sitecustomize" not in ended.err
    everything_runs(place)
