"""Requeue, discard and cancel, on a queue that nobody has open and on one that somebody serves."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from osqueue import Broker, Client
from tests.cli.command_line import document, documents, osqueue, succeed

DEAD = 300
"""More than one operation may name."""


@pytest.fixture(params=[False, True], ids=["unserved", "served"])
def jobs(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A queue with job 1 dead, 2 succeeded and 3 ready; open during the test, or not."""
    directory = tmp_path / "jobs"
    with contextlib.ExitStack() as stack:
        broker = Broker.open(directory)
        broker.push_many([b"1", b"2", b"3"], max_attempts=1)
        first, second = broker.claim(), broker.claim()
        assert first is not None
        assert second is not None
        broker.fail(first, "why")
        broker.complete(second)
        if request.param:
            stack.callback(broker.close)
        else:
            broker.close()
        yield tmp_path


def states(directory: Path) -> dict[int, str]:
    return {
        record["id"]: record["state"]
        for command in ("list", "history")
        for record in documents(command, "jobs", cwd=directory)
    }


def test_a_dead_job_is_requeued_with_its_errors_and_the_others_are_named(jobs: Path) -> None:
    output = succeed("requeue", "jobs", "1", "2", "3", "1", cwd=jobs)

    assert output.splitlines() == [
        "job 2 is left as it is: succeeded",
        "job 3 is left as it is: ready",
        "1 job requeued",
    ]
    assert states(jobs) == {1: "ready", 2: "succeeded", 3: "ready"}
    assert document("show", "jobs", "1", cwd=jobs)["errors"][0]["message"] == "why"


def test_a_dead_job_whose_key_another_one_has_by_now_is_said_to_be_so_beside_one_that_is_requeued(
    tmp_path: Path,
) -> None:
    with Broker.open(tmp_path / "jobs", max_attempts=1) as broker:
        for payload, key in ((b"1", "k"), (b"2", None)):
            broker.push(payload, key=key)
            job = broker.claim()
            assert job is not None
            broker.fail(job, "why")
        assert broker.push(b"3", key="k") == 3

    output = succeed("requeue", "jobs", "1", "2", cwd=tmp_path)

    assert output.splitlines() == [
        "job 1 is left as it is: dead, and another unfinished job has its key 'k'",
        "1 job requeued",
    ]
    assert states(tmp_path) == {1: "dead", 2: "ready", 3: "ready"}


def test_a_discarded_job_is_archived_as_dead(jobs: Path) -> None:
    assert document("discard", "jobs", "1", "2", cwd=jobs) == {"discarded": 1, "unchanged": [2], "unknown": []}
    assert [(one["id"], one["state"]) for one in documents("history", "jobs", cwd=jobs)] == [
        (2, "succeeded"),
        (1, "dead"),
    ]


def test_jobs_are_cancelled_and_ended_ones_are_named(jobs: Path) -> None:
    output = succeed("cancel", "jobs", "3", "2", cwd=jobs)

    assert output.splitlines() == ["job 2 is left as it is: succeeded", "1 job cancelled"]
    assert states(jobs) == {1: "dead", 2: "succeeded", 3: "cancelled"}


@pytest.mark.parametrize(
    ("command", "done"), [("requeue", "requeued"), ("discard", "discarded"), ("cancel", "cancelled")]
)
def test_an_unknown_id_is_named_and_keeps_nothing_from_the_others(command: str, done: str, jobs: Path) -> None:
    known = 3 if command == "cancel" else 1

    mixed = osqueue(command, "jobs", "77", known, "99", cwd=jobs)
    alone = osqueue(command, "jobs", "77", "--json", cwd=jobs)

    assert (mixed.returncode, mixed.stdout) == (1, f"1 job {done}\n")
    assert mixed.stderr == "osqueue: no job has this id id=77, 99\n"
    assert (alone.returncode, alone.stdout) == (1, f'{{"{done}":0,"unchanged":[],"unknown":[77]}}\n')


@pytest.mark.parametrize(("command", "state"), [("requeue", "ready"), ("discard", "dead")])
def test_all_dead_jobs_are_changed_however_many_they_are(command: str, state: str, jobs: Path) -> None:
    bury(jobs / "jobs", DEAD)

    output = succeed(command, "jobs", "--state", "dead", cwd=jobs)

    assert output == f"{DEAD + 1} jobs {command.rstrip('e')}ed\n"
    assert document("status", "jobs", cwd=jobs)["dead"] == 0
    assert succeed(command, "jobs", "--state", "dead", cwd=jobs) == f"0 jobs {command.rstrip('e')}ed\n"
    assert [state for job_id, state in states(jobs).items() if job_id > 3] == [state] * DEAD


def bury(directory: Path, count: int) -> None:
    """Push and fail so many jobs, with whatever broker there is."""
    with contextlib.ExitStack() as stack:
        served = (directory / "broker.sock").exists()
        queue: Client = stack.enter_context(Client.connect(directory) if served else Broker.open(directory))
        queue.push_many([b"1"] * count, task="bad", max_attempts=1)
        for job in queue.claim_many(count, tasks=["bad"]):
            queue.fail(job, "bad", retry=False)


@pytest.mark.parametrize(
    "arguments",
    [
        ["requeue", "jobs"],
        ["requeue", "jobs", "1", "--state", "dead"],
        ["discard", "jobs", "--state", "ready"],
        ["discard", "jobs", "0"],
        ["requeue", "jobs", "9223372036854775808"],
        ["cancel", "jobs"],
        ["cancel", "jobs", "x"],
        ["cancel", "jobs", "--state", "dead"],
    ],
    ids=" ".join,
)
def test_wrong_usage_changes_nothing(arguments: list[str], tmp_path: Path) -> None:
    with Broker.open(tmp_path / "jobs") as broker:
        broker.push(b"1")

    assert osqueue(*arguments, cwd=tmp_path).returncode == 2
    assert document("status", "jobs", cwd=tmp_path)["ready"] == 1


@pytest.mark.parametrize("command", ["requeue", "discard", "cancel"])
def test_where_there_is_no_queue_none_is_made(command: str, tmp_path: Path) -> None:
    assert osqueue(command, "jobs", "1", cwd=tmp_path).returncode == 3
    assert not (tmp_path / "jobs").exists()


def dead_jobs(directory: Path) -> None:
    """Three segments' worth of dead jobs, so large that each is a segment of its own."""
    with Broker.open(directory, max_attempts=1) as broker:
        for number in range(3):
            broker.push(b'"%b"' % (b"%d" % number * 6_000))
            job = broker.claim()
            assert job is not None
            broker.fail(job, "why")


@pytest.mark.parametrize(("command", "done"), [("requeue", "requeued"), ("discard", "discarded")])
def test_what_can_be_read_of_the_dead_is_changed_beside_damage_and_then_the_damage_is_told(
    tmp_path: Path, command: str, done: str
) -> None:
    dead_jobs(tmp_path / "jobs")
    segment = min((tmp_path / "jobs" / "segments").iterdir())
    segment.write_bytes(segment.read_bytes().replace(b"why", b"who"))

    ended = osqueue(command, "jobs", "--state", "dead", cwd=tmp_path)

    assert ended.returncode == 4
    assert ended.stdout == f"2 jobs {done}\n"
    assert f"key=segments/{segment.name}" in ended.stderr


def test_discarded_jobs_are_counted_so_that_all_states_add_up(jobs: Path) -> None:
    succeed("discard", "jobs", "1", cwd=jobs)

    status = document("status", "jobs", cwd=jobs)

    assert (status["discarded"], status["dead"], status["pushed"]) == (1, 0, 3)
    assert sum(status[name] for name in ("ready", "delayed", "running", "succeeded", "cancelled", "discarded")) == 3
    assert "discarded  1" in succeed("status", "jobs", cwd=jobs)


@pytest.mark.parametrize("by_id", [False, True])
def test_where_no_more_lanes_may_be_there_it_is_said_how_many_were_requeued_before(
    tmp_path: Path, *, by_id: bool
) -> None:
    with Broker.open(tmp_path / "jobs", max_attempts=1) as broker:
        broker.push_many([b"1", b"2"], priority=-1)
        for priorities in (range(200), range(200, 400)):
            for priority in priorities:
                broker.push(b"1", priority=priority)
            for job in broker.claim_many(200):
                broker.fail(job, "why")

    named = range(3, 403) if by_id else ["--state", "dead"]
    ended = osqueue("requeue", "jobs", *named, cwd=tmp_path)

    assert (ended.returncode, ended.stdout) == (4, "")
    assert "too many lanes (pairs of priority and task) have waiting jobs limit=256" in ended.stderr
    assert "; 255 jobs requeued before it\n" in ended.stderr
    assert document("status", "jobs", cwd=tmp_path)["dead"] == 400 - 255
