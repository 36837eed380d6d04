"""Old objects of the archive go, young ones stay, and what is asked afterwards is answered rightly."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from osqueue import Broker
from osqueue.broker.archive import PRUNED_OBJECTS
from tests.cli.command_line import document, documents, osqueue, succeed

OLD = "2020-01-01T00"


def finish(directory: Path, count: int, hour: str | None = None) -> None:
    """Finish so many jobs, in one object of the archive; as if it had been in that hour."""
    before = {*directory.glob("archive/*/*")}
    with Broker.open(directory) as broker:
        broker.push_many([b"1"] * count)
        for job in broker.claim_many(count):
            broker.complete(job)
    [made] = {*directory.glob("archive/*/*")} - before
    if hour is not None:
        target = directory / "archive" / hour
        target.mkdir(mode=0o700, exist_ok=True)
        made.rename(target / made.name)


@pytest.fixture(params=[False, True], ids=["unserved", "served"])
def directory(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """Jobs 1 to 3 ended long ago, 4 and 5 in this hour, 6 waits; the queue is open during the test, or not."""
    finish(tmp_path / "jobs", 3, OLD)
    finish(tmp_path / "jobs", 2)
    succeed("push", "jobs", "1", cwd=tmp_path)
    with contextlib.ExitStack() as stack:
        if request.param:
            stack.enter_context(Broker.open(tmp_path / "jobs"))
        yield tmp_path


def test_what_is_older_goes_and_is_counted_and_the_rest_stays(directory: Path) -> None:
    succeed("history", "jobs", cwd=directory)  # a running broker has listed the archive now

    assert succeed("prune", "jobs", "--older-than", "30d", cwd=directory) == "pruned 1 archive object with 3 jobs\n"

    assert [record["id"] for record in documents("history", "jobs", cwd=directory)] == [4, 5]
    assert document("status", "jobs", cwd=directory)["succeeded"] == 5
    assert succeed("verify", "jobs", cwd=directory).endswith("no problems\n")
    assert not [*directory.glob(f"jobs/archive/{OLD}/*")]


def test_a_pruned_job_is_said_to_be_kept_no_longer(directory: Path) -> None:
    assert document("show", "jobs", 2, cwd=directory)["state"] == "succeeded"
    succeed("prune", "jobs", "--older-than", "1h", cwd=directory)

    done = osqueue("show", "jobs", "2", cwd=directory)

    assert done.returncode == 1
    assert "its record is no longer kept id=2" in done.stderr
    assert document("show", "jobs", 4, cwd=directory)["state"] == "succeeded"


def test_what_is_too_young_is_kept_and_a_second_time_nothing_goes(directory: Path) -> None:
    assert document("prune", "jobs", "--older-than", "5000w", cwd=directory) == {"objects": 0, "jobs": 0, "damaged": 0}
    assert document("prune", "jobs", "--older-than", "0", cwd=directory) == {"objects": 1, "jobs": 3, "damaged": 0}
    assert document("prune", "jobs", "--older-than", "0", cwd=directory) == {"objects": 0, "jobs": 0, "damaged": 0}


def test_more_objects_than_go_at_once_all_go_past_a_damaged_one(tmp_path: Path) -> None:
    objects = 2 * PRUNED_OBJECTS + 3
    for number in range(objects):
        finish(tmp_path / "jobs", 2, f"2020-01-01T{number:02}")
    [damaged] = (tmp_path / "jobs").glob("archive/2020-01-01T04/*")
    damaged.write_bytes(damaged.read_bytes().replace(b"succeeded", b"SUCCEEDED"))

    output = succeed("prune", "jobs", "--older-than", "1d", cwd=tmp_path)

    assert output.splitlines() == [
        "1 archive object left alone, being damaged: see osqueue verify jobs",
        f"pruned {objects - 1} archive objects with {2 * (objects - 1)} jobs",
    ]
    assert [*(tmp_path / "jobs").glob("archive/*/*")] == [damaged]
    done = osqueue("verify", "jobs", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stdout.count("\n") == 2, "nothing is lost but what is damaged"


def test_verify_still_sees_what_is_lost_beside_what_was_pruned(directory: Path) -> None:
    succeed("prune", "jobs", "--older-than", "1d", cwd=directory)
    [young] = directory.glob("jobs/archive/*/*")
    young.unlink()

    done = osqueue("verify", "jobs", cwd=directory)

    assert done.returncode == 1
    assert "5 jobs stand nowhere, and 3 of them were pruned" in done.stdout


@pytest.mark.parametrize("arguments", [[], ["--older-than", "soon"], ["--older-than", "-1d"]], ids=" ".join)
def test_an_age_must_be_stated(arguments: list[str], directory: Path) -> None:
    assert osqueue("prune", "jobs", *arguments, cwd=directory).returncode == 2
    assert [*directory.glob(f"jobs/archive/{OLD}/*")]
