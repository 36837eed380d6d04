"""``osqueue serve`` and ``osqueue work``: brokers and workers that come and go, by order and by SIGKILL."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from osqueue import Client, LocalPool, OsqueueError, QueueLocked
from osqueue.core import codec
from tests.cli.command_line import document, documents, osqueue, succeed
from tests.e2e import handlers
from tests.e2e.program import broker_of
from tests.e2e.running_command import RunningCommand, nothing_runs_in
from tests.e2e.waiting import wait_for

HANDLERS = """
import os, time
from pathlib import Path

def note(number):
    with open("ran.txt", "a") as file:
        file.write(f"{number}\\n")
    time.sleep(0.002)

def wait(number):
    Path(f"started-{number}-{os.getpid()}").touch()
    while not Path(f"go-{number}").exists():
        time.sleep(0.01)
    return number

def fail(number):
    raise ValueError(f"no {number}")
"""
Start = Callable[..., RunningCommand]


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    (tmp_path / "handlers.py").write_text(HANDLERS)
    return tmp_path


@pytest.fixture
def start(directory: Path) -> Iterator[Start]:
    """Starts commands that run on; after the test they are killed, and nothing of them is left."""
    started: list[RunningCommand] = []

    def start_one(*arguments: object) -> RunningCommand:
        started.append(RunningCommand(directory, *arguments))
        return started[-1]

    yield start_one
    for command in started:
        command.__exit__(None, None, None)
    nothing_runs_in(directory)


def push(directory: Path, *numbers: int) -> None:
    lines = "".join(f"{number}\n" for number in numbers)
    succeed("push", "jobs", "--file", "-", cwd=directory, stdin=lines)


def status(directory: Path) -> dict[str, Any]:
    found: dict[str, Any] = document("status", "jobs", cwd=directory)
    return found


def ran(directory: Path) -> Counter[int]:
    """How often each job's handler has begun."""
    text = (directory / "ran.txt").read_text() if (directory / "ran.txt").exists() else ""
    return Counter(map(int, text.split()))


def began(directory: Path, number: int) -> list[Path]:
    return list(directory.glob(f"started-{number}-*"))


def owners(directory: Path) -> list[str]:
    root = codec.decode_root((directory / "jobs" / "queue.json").read_bytes())
    return [takeover.owner for takeover in root.takeovers]


# --------------------------------------------------------------------------------------------------------------- serve


@pytest.mark.parametrize(("number", "ended"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_broker_serves_until_a_signal_and_closes_the_queue(
    number: signal.Signals, ended: int, directory: Path, start: Start
) -> None:
    server = start("serve", "jobs", "--identity", "alpha")
    server.wait_until_it_says("serving")
    push(directory, 1, 2)
    assert status(directory)["ready"] == 2

    server.send(number)

    assert server.ended()[::2] == (ended, "")
    assert not (directory / "jobs" / "broker.sock").exists()
    assert owners(directory) == ["alpha"]
    assert codec.decode_root((directory / "jobs" / "queue.json").read_bytes()).owner is None
    assert status(directory)["ready"] == 2


def test_a_second_broker_is_refused_and_told_who_has_the_queue(directory: Path, start: Start) -> None:
    server = start("serve", "jobs")
    server.wait_until_it_says("serving")

    done = osqueue("serve", "jobs", cwd=directory)

    assert (done.returncode, done.stdout) == (3, "")
    assert f"pid={server.pid} host={os.uname().nodename}" in done.stderr
    with pytest.raises(QueueLocked):
        LocalPool(handlers.double, path=directory / "jobs")


def test_a_brokers_settings_are_the_queues(directory: Path, start: Start) -> None:
    start("serve", "jobs", "--heartbeat-timeout", "0.5", "--max-attempts", "1").wait_until_it_says("serving")
    with Client.connect(directory / "jobs") as client:
        job_id = client.push(b"1")
        assert client.claim() is not None

        # Nobody beats for it: its lease ends, and with one attempt allowed the job is dead.
        wait_for(lambda: client.get(job_id).state == "dead")


@pytest.mark.parametrize(
    "options",
    [["--identity", "x" * 65], ["--identity", ""], ["--identity", "a\nb"], ["--heartbeat-timeout", "0"]],
    ids=["long", "empty", "control character", "lease"],
)
def test_refused_settings_make_no_queue(options: list[str], directory: Path) -> None:
    done = osqueue("serve", "jobs", *options, cwd=directory)

    assert done.returncode == 2
    assert not (directory / "jobs").exists()


def test_a_broker_that_cannot_end_in_order_ends_within_its_grace(directory: Path, start: Start) -> None:
    server = start("serve", "jobs", "--grace", "0.2")
    server.wait_until_it_says("serving")
    with Client.connect(directory / "jobs") as client:
        client.stats()
        shutil.rmtree(directory / "jobs")  # a commit is then tried again for five seconds
        push = threading.Thread(target=push_until_closed, args=(client,))
        push.start()
        wait_for(lambda: client._face.connection.session.busy)

        server.send(signal.SIGTERM)

        assert server.ended() == (143, server.out(), "osqueue: the broker did not end within --grace\n")
        client.close()
        push.join(60)


def push_until_closed(client: Client) -> None:
    with contextlib.suppress(OsqueueError):
        client.push(b"1")


# ---------------------------------------------------------------------------------------------------------------- work


def test_on_a_queue_that_nobody_has_open_work_is_the_whole_pool(directory: Path) -> None:
    push(directory, *range(20))

    output = succeed("work", "jobs", "handlers:note", "-j", "2", "--burst", cwd=directory)

    assert output.startswith("20 jobs in ")
    assert ran(directory) == Counter(range(20))
    assert status(directory)["succeeded"] == 20
    nothing_runs_in(directory)


def test_each_task_has_its_own_handler_and_jobs_of_others_stay(directory: Path) -> None:
    succeed("push", "jobs", "1", "--task", "a", cwd=directory)
    succeed("push", "jobs", "2", "--task", "b", "--max-attempts", "1", cwd=directory)
    succeed("push", "jobs", "3", "--task", "c", cwd=directory)

    done = osqueue("work", "jobs", "a=handlers:note", "b=handlers:fail", "-j", "1", "--burst", cwd=directory)

    assert done.returncode == 1
    assert "1 succeeded, 1 dead" in done.stdout
    assert "c: 1" in done.stderr
    assert [record["state"] for record in documents("list", "jobs", cwd=directory)] == ["dead", "ready"]


def test_burst_waits_for_a_delayed_job(directory: Path) -> None:
    succeed("push", "jobs", "1", "--delay", "1s", cwd=directory)

    output = succeed("work", "jobs", "handlers:note", "-j", "1", "--burst", cwd=directory)

    assert output.startswith("1 job in ")


def test_without_burst_it_makes_the_queue_and_runs_what_comes(directory: Path, start: Start) -> None:
    worker = start("work", "jobs", "handlers:note", "-j", "1")
    worker.wait_until_it_says("working on default with 1 worker")

    push(directory, 1, 2, 3)

    wait_for(lambda: status(directory)["succeeded"] == 3)
    worker.send(signal.SIGTERM)
    ended = worker.ended()
    assert ended.status == 143
    assert "Traceback" not in ended.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["handlers:nte"], "module handlers has no nte"),
        (["nowhere:note"], "no module 'nowhere'"),
        (["handlers"], "module:function"),
        (["handlers:note", "handlers:wait"], "TASK=module:function"),
        (["=handlers:note"], "TASK=module:function"),
        ([f"{'t' * 65}=handlers:note"], "1 to 64 bytes"),
        (["handlers:note", "-j", "0"], "-j"),
        ([], "MODULE:FUNCTION"),
    ],
    ids=lambda value: " ".join(value)[:30],
)
def test_a_wrong_handler_is_refused_before_anything_starts(arguments: list[str], message: str, directory: Path) -> None:
    done = osqueue("work", "jobs", *arguments, cwd=directory)

    assert done.returncode == 2
    assert message in done.stderr
    assert not (directory / "jobs").exists()


def test_a_module_that_fails_to_import_ends_it_with_its_traceback(directory: Path) -> None:
    (directory / "broken.py").write_text("def note(number): pass\nraise RuntimeError('no licence')\n")
    push(directory, 1)

    done = osqueue("work", "jobs", "broken:note", "-j", "1", cwd=directory)

    assert done.returncode == 2
    assert "RuntimeError: no licence" in done.stderr
    assert [record["attempts"] for record in documents("list", "jobs", cwd=directory)] == [0]


@pytest.mark.parametrize(("number", "ended"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("served", [False, True], ids=["alone", "served"])
def test_a_signal_gives_running_jobs_their_grace_and_charges_nobody(
    number: signal.Signals, ended: int, served: bool, directory: Path, start: Start
) -> None:
    if served:
        start("serve", "jobs").wait_until_it_says("serving")
    push(directory, 1, 2, 3)
    worker = start("work", "jobs", "handlers:wait", "-j", "2", "--grace", "2")
    wait_for(lambda: began(directory, 1) and began(directory, 2))
    (directory / "go-1").touch()
    worker.send(number)

    said = worker.ended()

    assert said.status == ended
    assert "what has not finished waits in jobs" in said.err
    assert {record["id"]: record["attempts"] for record in documents("list", "jobs", cwd=directory)} == {2: 0, 3: 0}
    assert status(directory)["succeeded"] == 1


def test_a_second_interrupt_stops_at_once(directory: Path, start: Start) -> None:
    push(directory, 1)
    worker = start("work", "jobs", "handlers:wait", "-j", "1", "--grace", "600")
    wait_for(lambda: began(directory, 1))
    worker.send(signal.SIGINT)
    wait_for(lambda: "stopping" in worker.err())
    worker.send(signal.SIGTERM)

    assert worker.ended().status in (130, 143)
    assert [record["attempts"] for record in documents("list", "jobs", cwd=directory)] == [0]


# ------------------------------------------------------------------------------------------------ together, and death


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_when_the_first_of_two_ends_the_second_carries_on(
    number: signal.Signals, directory: Path, start: Start
) -> None:
    push(directory, 1, 2, 3)
    first = start("work", "jobs", "handlers:wait", "-j", "1", "--grace", "0")
    wait_for(lambda: began(directory, 1))
    second = start("work", "jobs", "handlers:wait", "-j", "1", "--grace", "0")
    wait_for(lambda: began(directory, 3))  # the first one holds job 2 in reserve

    first.send(number)

    first.ended()
    for waiting in (3, 2, 1):
        (directory / f"go-{waiting}").touch()
    wait_for(lambda: status(directory)["succeeded"] == 3)
    records = {record["id"]: record for record in documents("history", "jobs", cwd=directory)}
    charged = 1 if number == signal.SIGKILL else 0
    assert {job_id: len(record["errors"]) for job_id, record in records.items()} == {1: charged, 2: 0, 3: 0}
    assert len(began(directory, 3)) == 1, "the job that ran on was not run twice"
    second.send(signal.SIGTERM)
    assert second.ended().status == 143


def test_one_of_two_workers_is_killed_amid_many_jobs_and_each_is_done_once(directory: Path, start: Start) -> None:
    jobs = 2000
    start("serve", "jobs", "--retry-backoff", "0").wait_until_it_says("serving")
    victim = start("work", "jobs", "handlers:note", "-j", "2")
    push(directory, *range(jobs))
    wait_for(lambda: sum(ran(directory).values()) > 50)
    other = start("work", "jobs", "handlers:note", "-j", "2", "--burst")
    wait_for(lambda: sum(ran(directory).values()) > 300)

    victim.send(signal.SIGKILL)

    assert other.ended().status == 0
    records = documents("history", "jobs", cwd=directory)
    assert [record["id"] for record in sorted(records, key=lambda record: record["id"])] == list(range(1, jobs + 1))
    charged = [record for record in records if record["errors"]]
    assert len(charged) <= 2, "only what ran in the two killed workers"
    assert all(error["error_type"] == "HostLost" for record in charged for error in record["errors"])
    assert set(ran(directory)) == set(range(jobs))


def test_work_beside_a_pool_outlives_it(directory: Path, start: Start) -> None:
    tasks = {"default": handlers.sleep, "mine": handlers.double}
    with LocalPool(tasks, workers=1, path=directory / "jobs") as pool:
        worker = start("work", "jobs", "other=handlers:note", "-j", "1")
        worker.wait_until_it_says("working")
        assert pool.submit(2, task="mine").result(60) == 4
        push_other(directory, 5)
        wait_for(lambda: pool.stats().tasks["other"].succeeded == 1)

    push_other(directory, 6)

    wait_for(lambda: ran(directory) == Counter([5, 6]))


def push_other(directory: Path, number: int) -> None:
    succeed("push", "jobs", number, "--task", "other", cwd=directory)


def test_a_broker_that_is_killed_and_started_again_gets_its_workers_back(directory: Path, start: Start) -> None:
    first = start("serve", "jobs", "--identity", "first")
    first.wait_until_it_says("serving")
    worker = start("work", "jobs", "handlers:wait", "-j", "1", "--grace", "0")
    push(directory, 1, 2)
    wait_for(lambda: began(directory, 1))

    first.send(signal.SIGKILL)
    second = start("serve", "jobs", "--identity", "second")
    second.wait_until_it_says("serving")
    (directory / "go-1").touch()
    (directory / "go-2").touch()

    wait_for(lambda: status(directory)["succeeded"] == 2)
    assert owners(directory) == ["first", "second"]
    assert len(began(directory, 1)) == 1, "the job that ran meanwhile was not run twice"
    assert [record["attempts"] for record in documents("history", "jobs", cwd=directory)] == [1, 1]
    worker.send(signal.SIGTERM)
    assert worker.ended().status == 143


def test_when_nobody_serves_any_more_work_opens_the_queue_itself(directory: Path, start: Start) -> None:
    server = start("serve", "jobs")
    server.wait_until_it_says("serving")
    start("work", "jobs", "handlers:note", "-j", "1").wait_until_it_says("working")
    server.send(signal.SIGTERM)
    server.ended()

    push(directory, 1)

    wait_for(lambda: ran(directory) == Counter([1]))


def test_a_workers_own_broker_is_replaced_when_it_dies(directory: Path, start: Start) -> None:
    push(directory, 1, 2)
    worker = start("work", "jobs", "handlers:wait", "-j", "1")
    wait_for(lambda: began(directory, 1))

    os.kill(broker_of(directory), signal.SIGKILL)

    (directory / "go-1").touch()
    (directory / "go-2").touch()
    wait_for(lambda: status(directory)["succeeded"] == 2)
    assert worker.process.poll() is None
    assert len(began(directory, 1)) == 1


def test_a_queue_that_is_removed_under_its_workers_is_not_made_anew(directory: Path, start: Start) -> None:
    server = start("serve", "jobs")
    server.wait_until_it_says("serving")
    worker = start("work", "jobs", "handlers:note", "-j", "1")
    push(directory, 1)
    wait_for(lambda: ran(directory) == Counter([1]))
    server.send(signal.SIGTERM)
    server.ended()
    for path in sorted((directory / "jobs").rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()

    ended = worker.ended()

    assert ended.status == 3
    assert "removed" in ended.err
    assert not (directory / "jobs" / "queue.json").exists()
