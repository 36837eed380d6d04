"""How a program with a pool begins and ends: guards, Ctrl-C, kills, and what is left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from osqueue import LocalPool
from tests.e2e import handlers
from tests.e2e.program import Program, environment, processes_of
from tests.e2e.waiting import wait_for

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")

HEAD = """
import os, pathlib, sys, time
from osqueue import LocalPool

def job(name):
    pathlib.Path(name).touch()
    while not pathlib.Path("go").exists():
        time.sleep(0.01)
    return os.getpid()

def quick(value):
    return value

"""


def left_alone(directory: Path) -> None:
    """Nothing of the program runs any more."""
    wait_for(lambda: not processes_of(directory), 10)


def private_directories(directory: Path) -> list[Path]:
    """The directories of pools without a path that the program has left behind."""
    return [path for path in directory.glob("osqueue-*") if path.is_dir()]


def test_a_script_without_a_main_guard_is_told_what_to_write(tmp_path):
    program = Program(
        tmp_path,
        HEAD + "with LocalPool(quick, workers=2) as pool:\n    print(pool.submit(1).result(30))\n",
    )

    ended = program.end()

    assert ended.status != 0
    assert "PoolBroken" in ended.err
    assert 'if __name__ == "__main__":' in ended.err
    left_alone(tmp_path)


def test_a_program_typed_into_python_c_is_told_what_to_do(tmp_path):
    code = "from osqueue import LocalPool\ndef f(x): return x\nLocalPool(f)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert done.returncode == 1
    assert "TypeError" in done.stderr
    assert "put it into a file" in done.stderr


@pytest.mark.parametrize("method", ["forkserver", "spawn"])
def test_a_script_with_a_guard_runs_under_every_start_method(tmp_path, method):
    program = Program(
        tmp_path,
        HEAD
        + f"""
if __name__ == "__main__":
    with LocalPool(quick, workers=2, mp_context={method!r}) as pool:
        print(list(pool.map(range(3))))
""",
    )

    assert program.end() == (0, "[0, 1, 2]\n", "")
    left_alone(tmp_path)


NEVER_CLOSED = (
    HEAD
    + """
if __name__ == "__main__":
    pool = LocalPool(job, workers=2, path="queue")
    pool.push("started")
    pool.submit("later", delay=3600)
    while not pathlib.Path("started").exists():
        time.sleep(0.01)
    print("end", flush=True)
"""
)


def test_a_pool_that_is_never_closed_does_not_keep_the_program_from_ending(tmp_path):
    program = Program(tmp_path, NEVER_CLOSED)

    ended = program.end(30)

    assert (ended.status, ended.out) == (0, "end\n")
    [warning] = ended.err.splitlines()
    assert warning.startswith("the pool was never closed; 2 unfinished jobs wait (1 ready, 1 delayed); ")
    assert f"open the same path={tmp_path / 'queue'} again to go on" in warning
    left_alone(tmp_path)
    with LocalPool(handlers.nothing, path=tmp_path / "queue", workers=1) as pool:
        wait_for(lambda: pool.get(1).state == "succeeded")
        assert pool.stats().delayed == 1
        pool.stop()


def test_a_private_pool_that_is_never_closed_is_kept_and_named_when_jobs_are_unfinished(tmp_path):
    ended = Program(tmp_path, NEVER_CLOSED.replace(', path="queue"', "")).end(30)

    assert (ended.status, ended.out) == (0, "end\n")
    [warning] = ended.err.splitlines()
    [kept] = private_directories(tmp_path)
    assert "2 unfinished jobs wait" in warning
    assert f"the private directory is kept: open path={kept} again to go on" in warning
    with LocalPool(handlers.nothing, path=kept, workers=1) as pool:
        wait_for(lambda: pool.get(1).state == "succeeded")
        assert pool.stats().delayed == 1
        pool.stop()


def test_a_private_pool_that_is_never_closed_is_removed_without_a_word_when_all_is_done(tmp_path):
    program = Program(
        tmp_path,
        HEAD + "if __name__ == '__main__':\n    pool = LocalPool(quick, workers=1)\n    pool.submit(1).result(30)",
    )

    assert program.end(30) == (0, "", "")
    assert private_directories(tmp_path) == []


WAITING = (
    HEAD
    + """
if __name__ == "__main__":
    with LocalPool(job, workers=2, path="queue", grace=GRACE) as pool:
        pool.push_many(["started", "started too", *map(str, range(10))])
        pathlib.Path("pushed").touch()
"""
)


def test_ctrl_c_stops_within_the_grace_and_nothing_is_lost_or_charged(tmp_path):
    program = Program(tmp_path, WAITING.replace("GRACE", "0.3"))
    program.wait_for("started")
    program.wait_for("pushed")
    program.interrupt()

    ended = program.end(30)

    assert ended.status == -signal.SIGINT
    assert ended.err.count("KeyboardInterrupt") == 1
    left_alone(tmp_path)
    with LocalPool(handlers.nothing, path=tmp_path / "queue", workers=1) as pool:
        stats = pool.join(30)
        assert (stats.pushed, stats.succeeded) == (12, 12)
        assert pool.get(1).attempts == 1


def test_a_second_ctrl_c_stops_at_once(tmp_path):
    program = Program(tmp_path, WAITING.replace("GRACE", "600"))
    program.wait_for("started")
    program.wait_for("pushed")
    program.interrupt()
    time.sleep(0.5)
    assert program.process.poll() is None
    program.interrupt()

    ended = program.end(30)

    assert ended.status == -signal.SIGINT
    assert ended.err.count("KeyboardInterrupt") == ended.err.count("Traceback") == 1
    [warning] = [line for line in ended.err.splitlines() if line.startswith("the pool was stopped; ")]
    assert "12 unfinished jobs wait" in warning
    assert f"open the same path={tmp_path / 'queue'} again to go on" in warning
    left_alone(tmp_path)
    with LocalPool(handlers.nothing, path=tmp_path / "queue", workers=1) as pool:
        assert pool.join(30).succeeded == 12


WRONG = (
    HEAD
    + """
if __name__ == "__main__":
    with LocalPool(job, workers=2, grace=600) as pool:
        pool.push_many(["started", "started too", *map(str, range(10))])
        while not (pathlib.Path("started").exists() and pathlib.Path("started too").exists()):
            time.sleep(0.01)
        pathlib.Path("wrong").touch()
        raise ZeroDivisionError
"""
)


def test_ctrl_c_while_an_error_stops_a_private_pool_leaves_its_directory_named(tmp_path):
    program = Program(tmp_path, WRONG)
    program.wait_for("wrong")
    time.sleep(0.5)
    assert program.process.poll() is None
    program.interrupt()

    ended = program.end(30)

    assert ended.status == -signal.SIGINT
    [warning] = [line for line in ended.err.splitlines() if line.startswith("the pool was stopped; ")]
    [kept] = private_directories(tmp_path)
    assert "12 unfinished jobs wait" in warning
    assert f"the private directory is kept: open path={kept} again to go on" in warning


@pytest.mark.parametrize("after_s", [0.05, 0.15, 0.25, 0.4])
def test_ctrl_c_soon_after_the_start_ends_the_program_quietly(tmp_path, after_s):
    program = Program(
        tmp_path,
        HEAD
        + """
if __name__ == "__main__":
    pathlib.Path("begun").touch()
    with LocalPool(job, workers=4) as pool:
        pool.push("started")
""",
    )
    program.wait_for("begun")
    time.sleep(after_s)
    program.interrupt()

    ended = program.end(30)

    assert ended.status == -signal.SIGINT
    assert ended.err.count("Traceback") <= ended.err.count("KeyboardInterrupt")
    left_alone(tmp_path)


def test_a_killed_program_leaves_no_process_and_its_queue_goes_on_at_once(tmp_path):
    program = Program(tmp_path, WAITING.replace("GRACE", "600"))
    program.wait_for("started")
    program.wait_for("pushed")
    program.process.kill()
    program.end()

    wait_for(lambda: not processes_of(tmp_path), 5)
    with LocalPool(handlers.nothing, path=tmp_path / "queue", workers=2) as pool:
        stats = pool.join(20)
        assert stats.succeeded == 12
        assert pool.get(1).attempts == 2


def test_a_forked_child_of_the_program_cannot_use_the_pool_and_does_not_disturb_it(tmp_path):
    program = Program(
        tmp_path,
        HEAD
        + """
if __name__ == "__main__":
    with LocalPool(quick, workers=1) as pool:
        assert pool.submit(1).result(30) == 1
        child = os.fork()
        if child == 0:
            try:
                pool.push(2)
            except RuntimeError as error:
                print("child:", "fork" in str(error), flush=True)
            sys.exit(0)
        os.waitpid(child, 0)
        print("parent:", pool.submit(3).result(30), flush=True)
""",
    )

    ended = program.end()

    assert ended.out == "child: True\nparent: 3\n"
    assert ended.status == 0


def test_the_broker_finds_the_same_package_and_none_of_the_programs_modules(tmp_path):
    (tmp_path / "msgspec.py").write_text("raise ImportError('shadowed')")
    program = Program(
        tmp_path,
        "import sys\nsys.path.remove(sys.path[0])\n"
        + HEAD
        + """
if __name__ == "__main__":
    with LocalPool("builtins:abs", workers=1) as pool:
        pool.push(1)
        broker = pool._engine._broker.pid
        print(open(f"/proc/{broker}/cmdline").read().count("osqueue") > 0, os.getpgid(broker) != os.getpgid(0))
        pool.stop()
""",
    )

    ended = program.end()

    assert ended.out == "True True\n", ended.err


def test_output_of_the_program_can_be_read_to_its_end_though_it_is_killed(tmp_path):
    read, write = os.pipe()
    source = WAITING.replace("GRACE", "600")
    (tmp_path / "program.py").write_text(source)
    process = subprocess.Popen([sys.executable, "program.py"], cwd=tmp_path, stdout=write, env=environment())
    os.close(write)
    wait_for((tmp_path / "started").exists)
    process.kill()
    process.wait()
    with os.fdopen(read) as out:
        assert out.read() == ""
