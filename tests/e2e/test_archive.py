"""Reading finished jobs: from the root, from objects old and new, and around a damaged one."""

from __future__ import annotations

from pathlib import Path

import pytest

from osqueue import Broker, Corrupt

JOBS = 400


def test_an_archive_that_cannot_even_be_listed_costs_what_is_in_it_only(tmp_path: Path) -> None:
    with Broker.open(tmp_path / "jobs") as broker:
        finish(broker, 2)
    archive = tmp_path / "jobs" / "archive"
    archive.rename(tmp_path / "elsewhere")
    archive.symlink_to(tmp_path / "elsewhere")

    with Broker.open(tmp_path / "jobs") as broker:
        with pytest.raises(Corrupt):
            broker.get(1)
        with pytest.raises(Corrupt):
            list(broker.history())
        assert broker.push(b"1") == 3
        assert broker.stats().succeeded == 2
        archive.unlink()
        (tmp_path / "elsewhere").rename(archive)
        assert broker.get(1).state == "succeeded"


def finish(broker: Broker, count: int) -> list[int]:
    ids = broker.push_many(b'"%0200d"' % n for n in range(count))
    for job in broker.claim_many(count, worker="w"):
        broker.complete(job, b"%d" % job.id)
    return list(ids)


def test_finished_jobs_are_found_whichever_object_they_went_into(tmp_path: Path) -> None:
    with Broker.open(tmp_path / "jobs") as broker:
        first = finish(broker, JOBS)
        assert [broker.get(job_id).result for job_id in first] == [b"%d" % job_id for job_id in first]
        second = finish(broker, JOBS)
        assert broker.get(second[-1]).worker == "w"
        assert broker.get(first[0]).payload == b'"%0200d"' % 0

    with Broker.open(tmp_path / "jobs") as broker:
        third = finish(broker, 3)
        found = [record.id for record in broker.history()]
        assert [broker.get(job_id).state for job_id in (first[7], second[7], third[1])] == ["succeeded"] * 3

    assert sorted(found) == first + second + third
    assert len(list(tmp_path.glob("jobs/archive/*/*.jsonl"))) > 2


def test_a_damaged_archive_object_is_named_and_everything_else_goes_on(tmp_path: Path) -> None:
    with Broker.open(tmp_path / "jobs") as broker:
        finish(broker, JOBS)
    damaged = min(tmp_path.glob("jobs/archive/*/*.jsonl"))
    data = bytearray(damaged.read_bytes())
    data[100] ^= 1
    damaged.chmod(0o600)
    damaged.write_bytes(data)

    with Broker.open(tmp_path / "jobs") as broker:
        with pytest.raises(Corrupt, match=damaged.name):
            broker.get(1)
        later = finish(broker, 2)
        assert broker.get(later[0]).state == "succeeded"
        found: list[int] = []
        with pytest.raises(Corrupt, match=damaged.name) as caught:
            found.extend(record.id for record in broker.history())
    assert found[-2:] == later
    assert caught.value.key == str(damaged.relative_to(tmp_path / "jobs"))
    assert damaged.read_bytes() == data
