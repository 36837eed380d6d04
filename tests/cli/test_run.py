from __future__ import annotations

import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.cli.command_line import DEADLINE_S, arguments_for, document, documents, environment, osqueue, succeed

HANDLERS = """
import os, time

def double(number):
    return 2 * number

def append(line):
    with open("lines.txt", "a") as file:
        file.write(line + "\\n")

def fail_on_two(number):
    if number == 2:
        raise ValueError("two")

def wait(number):
    open(f"started-{number}", "w").close()
    time.sleep(60)
"""


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    (tmp_path / "handlers.py").write_text(HANDLERS)
    (tmp_path / "items.jsonl").write_text("1\n2\n3\n")
    return tmp_path


def test_a_batch_runs_to_its_end_and_is_counted(directory: Path) -> None:
    output = succeed("run", "handlers:double", "--file", "items.jsonl", "-j", "2", "--path", "jobs", cwd=directory)

    assert output.startswith("3 jobs in ")
    assert output.endswith(": 3 succeeded, 0 dead\n")
    assert sorted(record["result"] for record in documents("history", "jobs", cwd=directory)) == [2, 4, 6]


def test_lines_are_strings_from_standard_input_in_a_private_queue(directory: Path) -> None:
    succeed("run", "handlers:append", "--lines", "--file", "-", "-j", "1", cwd=directory, stdin="b\na\n")

    assert (directory / "lines.txt").read_text() == "b\na\n"


def test_a_job_that_died_gives_status_1_and_its_error(directory: Path) -> None:
    done = osqueue("run", "handlers:fail_on_two", "--file", "items.jsonl", "--path", "jobs", "-j", "1", cwd=directory)

    assert done.returncode == 1
    assert "2 succeeded, 1 dead" in done.stdout
    assert "two" in done.stderr


def test_a_broken_line_lets_what_came_before_finish(directory: Path) -> None:
    (directory / "items.jsonl").write_text("1\n2\n{broken\n4\n")

    done = osqueue("run", "handlers:double", "--file", "items.jsonl", "--path", "jobs", "-j", "1", cwd=directory)

    assert done.returncode == 2
    assert "items.jsonl:3: not JSON" in done.stderr
    assert "2 jobs were pushed before it" in done.stderr
    assert document("status", "jobs", cwd=directory)["succeeded"] == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere:double", "--file", "items.jsonl"], "nowhere"),
        (["handlers", "--file", "items.jsonl"], "module:function"),
        (["handlers:double"], "--file"),
        (["handlers:double", "--lines", "--path", "jobs"], "--file"),
        (["handlers:double", "--file", "items.jsonl", "-j", "0"], "-j"),
        (["handlers:double", "--file", "missing.jsonl"], "missing.jsonl"),
        (["handlers:triple", "--file", "items.jsonl", "-j", "1"], "triple"),
    ],
    ids=lambda value: " ".join(value)[:40],
)
def test_wrong_usage_is_explained(arguments: list[str], message: str, directory: Path) -> None:
    done = osqueue("run", *arguments, cwd=directory)

    assert done.returncode == 2
    assert message in done.stderr


def test_counts_are_printed_as_json(directory: Path) -> None:
    counts = document("run", "handlers:double", "--file", "items.jsonl", "-j", "1", cwd=directory)

    assert counts.pop("seconds") > 0
    assert counts == {"jobs": 3, "succeeded": 3, "dead": 0, "cancelled": 0}


@pytest.mark.parametrize(
    ("module", "handler"),
    [
        ("def double(number): return 2 * number", "mine:triple"),
        ("import tools", "mine:triple"),
        ("raise RuntimeError('no licence')", "mine:triple"),
        ("def triple(number): return 3 * number\nraise RuntimeError('no licence')", "mine:triple"),
        ("triple = 3", "mine:triple"),
    ],
    ids=["no such function", "module missing", "module fails", "function and failure", "no function"],
)
def test_a_handler_that_cannot_be_imported_pushes_nothing_and_leaves_nothing(
    module: str, handler: str, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (directory / "mine.py").write_text(module)
    (directory / "tmp").mkdir()
    monkeypatch.setenv("TMPDIR", str(directory / "tmp"))

    named = osqueue("run", handler, "--file", "items.jsonl", "--path", "jobs", "-j", "1", cwd=directory)
    private = osqueue("run", handler, "--file", "items.jsonl", "-j", "1", cwd=directory)

    assert (named.returncode, private.returncode) == (2, 2)
    assert "another exception" not in named.stderr + private.stderr
    assert [*(directory / "tmp").glob("osqueue-*")] == []
    if (directory / "jobs").exists():
        assert document("status", "jobs", cwd=directory)["pushed"] == 0


def test_functions_that_the_source_does_not_name_are_found_by_an_import(directory: Path) -> None:
    (directory / "mine.py").write_text("from handlers import *\nprint('imported')\n")
    (directory / "package").mkdir()
    (directory / "package" / "__init__.py").write_text("from handlers import double as dou\n")
    (directory / "package" / "inner.py").write_text("from handlers import double\n")

    for handler in ("mine:double", "package:dou", "package.inner:double"):
        done = osqueue("run", handler, "--file", "items.jsonl", "-j", "1", "--json", cwd=directory)
        assert done.returncode == 0, done.stderr


def test_a_pool_that_breaks_says_how_to_go_on_with_what_waits(directory: Path) -> None:
    succeed("push", "jobs", "1", cwd=directory)
    (directory / "mine.py").write_text("def triple(number): return 3 * number\nraise RuntimeError('no licence')\n")

    done = osqueue("run", "mine:triple", "--path", "jobs", "-j", "1", cwd=directory)

    assert done.returncode == 2
    assert "RuntimeError: no licence" in done.stderr
    assert done.stderr.endswith("to finish it: osqueue run mine:triple --path jobs\n")


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_stops_within_the_grace_and_nothing_is_lost(
    number: signal.Signals, status: int, directory: Path
) -> None:
    arguments = ["run", "handlers:wait", "--file", "items.jsonl", "--path", "jobs", "-j", "1", "--grace", "0.5"]
    running = subprocess.Popen(
        arguments_for(*arguments), cwd=directory, env=environment(), stderr=subprocess.PIPE, stdout=subprocess.PIPE
    )
    wait_for(directory / "started-1")

    running.send_signal(number)

    _, errors = running.communicate(timeout=DEADLINE_S)
    assert running.returncode == status
    assert b"Traceback" not in errors
    assert b"to finish it: osqueue run handlers:wait --path jobs\n" in errors
    assert document("status", "jobs", cwd=directory)["ready"] == 3


@pytest.mark.parametrize("file", [[], ["--file", "/dev/null"]])
def test_a_second_run_goes_on_with_what_was_left(file: list[str], directory: Path) -> None:
    succeed("push", "jobs", "--file", "items.jsonl", cwd=directory)

    output = succeed("run", "handlers:double", "--path", "jobs", *file, "-j", "1", cwd=directory)

    assert "3 succeeded" in output
    assert document("status", "jobs", cwd=directory)["pushed"] == 3


def test_a_run_without_a_file_makes_no_queue(directory: Path) -> None:
    done = osqueue("run", "handlers:double", "--path", "jobs", cwd=directory)

    assert done.returncode == 3
    assert "no queue at jobs" in done.stderr
    assert not (directory / "jobs").exists()


def test_a_handler_that_is_not_there_is_told_though_nothing_waits_for_it(directory: Path) -> None:
    succeed("push", "jobs", "1", "--task", "other", cwd=directory)

    done = osqueue("run", "handlers:triple", "--path", "jobs", "-j", "1", cwd=directory)

    assert done.returncode == 2
    assert "module handlers has no triple" in done.stderr


def test_nothing_to_do_is_done_and_jobs_of_other_tasks_are_named_once(directory: Path) -> None:
    succeed("push", "jobs", "1", "--task", "other", cwd=directory)

    done = osqueue("run", "handlers:double", "--path", "jobs", "-j", "1", cwd=directory)

    assert (done.returncode, done.stdout[:10]) == (0, "0 jobs in ")
    assert done.stderr.count("jobs of tasks without a handler in this pool stay in the queue: other: 1") == 1
    assert len(done.stderr.splitlines()) == 1


def test_other_commands_join_a_running_batch(directory: Path) -> None:
    arguments = ["run", "handlers:wait", "--file", "items.jsonl", "--path", "jobs", "-j", "1", "--grace", "0"]
    running = subprocess.Popen(arguments_for(*arguments), cwd=directory, env=environment(), stderr=subprocess.DEVNULL)
    try:
        wait_for(directory / "started-1")

        assert succeed("push", "jobs", "4", cwd=directory) == "4\n"
        status = document("status", "jobs", cwd=directory)

        assert status["pushed"] == 4
        assert status["running"] + status["ready"] == 4
        assert document("show", "jobs", "4", cwd=directory)["state"] == "ready"
        assert succeed("verify", "jobs", cwd=directory).endswith("no problems\n")
    finally:
        running.send_signal(signal.SIGINT)
        running.wait(DEADLINE_S)


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not path.exists():
        assert time.monotonic() < deadline, f"{path.name} did not appear"
        time.sleep(0.02)


def test_a_module_that_ends_the_process_that_imports_it_is_refused_before_anything_is_pushed(tmp_path: Path) -> None:
    tmp_path.joinpath("leaving.py").write_text("import os\nos._exit(7)\n")
    tmp_path.joinpath("items.jsonl").write_text("1\n")

    ended = osqueue("run", "leaving:anything", "--file", "items.jsonl", "--path", "jobs", cwd=tmp_path)

    assert ended.returncode == 2
    assert "ended with status 7" in ended.stderr
    assert not (tmp_path / "jobs").exists()


@pytest.mark.parametrize("command", ["run", "work"])
def test_a_handler_that_is_no_function_is_refused_before_anything_starts(command: str, directory: Path) -> None:
    (directory / "constants.py").write_text("LIMIT = 10\n")
    arguments = {"run": ["--file", "items.jsonl", "--path", "jobs"], "work": []}[command]
    operands = {"run": ["constants:LIMIT"], "work": ["jobs", "constants:LIMIT"]}[command]

    done = osqueue(command, *operands, *arguments, "-j", "1", cwd=directory)

    assert done.returncode == 2
    assert done.stderr.startswith("osqueue: workers could not import the handler: ")
    assert "constants:LIMIT is no function, it is of type int" in done.stderr
    assert not (directory / "jobs").exists()


def test_a_handler_that_its_module_imports_or_makes_is_found(directory: Path) -> None:
    (directory / "more.py").write_text("from handlers import double\ntwice = double\n")

    for name in ("more:double", "more:twice"):
        counts = document("run", name, "--file", "items.jsonl", "-j", "1", cwd=directory)
        assert counts["succeeded"] == 3
