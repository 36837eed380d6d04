from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from types import ModuleType

import pytest

CHECKOUT = Path(__file__).parents[2]
EXAMPLES = CHECKOUT / "examples"
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
DEADLINE_S = 110


def start(example: str, *arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, EXAMPLES / example, *map(str, arguments)]
    return subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def output_of(process: subprocess.Popen[str]) -> list[str]:
    """What an example prints, if it ends well and says nothing on standard error."""
    output, errors = process.communicate(timeout=DEADLINE_S)
    assert (process.returncode, errors) == (0, "")
    return output.splitlines()


def load(example: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(example.removesuffix(".py"), EXAMPLES / example)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def totals_in(lines: list[str]) -> dict[str, int]:
    """The table that the batch prints before its last line."""
    return {name.strip(): int(total.replace(",", "")) for name, total in ((x[:14], x[14:]) for x in lines[:-1])}


def serial_totals(files: list[str], batch: ModuleType) -> tuple[Counter[str], int]:
    """The same work in a plain loop: totals, and how many files failed."""
    totals: Counter[str] = Counter()
    failed = 0
    for file in files:
        try:
            totals.update(batch.count_tokens(file))
        except batch.BROKEN:
            failed += 1
    return totals, failed


def wait_for_successes(directory: Path, wanted: int, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while successes(directory) < wanted:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)


def successes(directory: Path) -> int:
    command = [sys.executable, "-m", "osqueue", "status", directory, "--json"]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=False, timeout=DEADLINE_S)
    return int(json.loads(done.stdout)["succeeded"]) if done.returncode == 0 else 0


@pytest.mark.timeout(300)
def test_a_batch_killed_in_the_middle_and_started_again_adds_up_to_a_serial_loop(tmp_path: Path) -> None:
    batch = load("local_batch.py")
    files = batch.source_files()
    first = start("local_batch.py", "--path", tmp_path / "jobs", "--workers", 2)
    wait_for_successes(tmp_path / "jobs", 100, first)

    first.send_signal(signal.SIGKILL)
    first.communicate()
    second = start("local_batch.py", "--path", tmp_path / "jobs", "--workers", 2)
    expected, failed = serial_totals(files, batch)
    lines = output_of(second)

    assert totals_in(lines) == expected
    assert expected["files"] > 500
    assert lines[-1].endswith(f"; {failed} failed (files that are broken on purpose)")
    assert int(lines[-1].split()[0]) < len(files) - 50
    again = output_of(start("local_batch.py", "--path", tmp_path / "jobs", "--workers", 1))
    assert again[:-1] == lines[:-1]
    assert again[-1].startswith("0 jobs ")


def test_the_embedded_queue_completes_two_jobs_and_buries_one(tmp_path: Path) -> None:
    lines = output_of(start("embedded.py", tmp_path / "jobs"))

    assert lines[-1] == "2 succeeded, 1 dead"
    assert "job 3, attempt 1: dead" in lines
    assert output_of(start("embedded.py"))[-1] == "2 succeeded, 1 dead"


def test_the_first_program_of_the_readme_runs_as_it_stands(tmp_path: Path) -> None:
    program = (CHECKOUT / "README.md").read_text().split("```python\n")[1].split("```")[0]
    (tmp_path / "program.py").write_text(program)
    for name, text in (("a.txt", "one"), ("b.txt", "two words"), ("c.txt", "")):
        (tmp_path / name).write_text(text)

    done = subprocess.run(
        [sys.executable, "program.py"],
        cwd=tmp_path,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
        timeout=DEADLINE_S,
    )

    assert (done.returncode, done.stdout, done.stderr) == (0, "3\n", "")


def test_a_batch_of_the_readme_that_is_started_again_pushes_nothing_again(tmp_path: Path) -> None:
    first, second = [block.split("```")[0] for block in (CHECKOUT / "README.md").read_text().split("```python\n")[1:3]]
    head, _, _ = first.partition("    with LocalPool(")
    (tmp_path / "program.py").write_text(head + '    files = ["a.txt", "b.txt"]\n' + second)
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_text("word")

    for _ in range(2):
        command = [sys.executable, "program.py"]
        done = subprocess.run(
            command, cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, check=False, timeout=DEADLINE_S
        )

        assert (done.returncode, done.stderr) == (0, "")
        assert "pushed=2" in done.stdout
        assert "succeeded=2" in done.stdout


def test_each_example_fits_on_a_page() -> None:
    lengths = {path.name: len(path.read_text().splitlines()) for path in EXAMPLES.glob("*.py")}

    assert {name: length for name, length in lengths.items() if length > 60} == {}
