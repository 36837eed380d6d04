"""What fails once and then works again: it costs time, and nothing else."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from osqueue import Broker, Corrupt, broker_server
from osqueue.core.messages import JobRecord
from osqueue.storage import DirectoryStorage, ReadFailed
from tests.e2e.waiting import wait_for


def test_a_segment_that_cannot_be_read_once_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Broker.open(tmp_path / "queue") as broker:
        broker.push_many(b'"%d"' % n for n in range(5000))
    fails = iter([True])
    read = DirectoryStorage.read

    def read_or_fail(self: DirectoryStorage, key: str) -> tuple[bytes, str]:
        if key.startswith("segments/") and next(fails, False):
            raise ReadFailed("Too many open files")
        return read(self, key)

    monkeypatch.setattr(DirectoryStorage, "read", read_or_fail)
    with Broker.open(tmp_path / "queue") as broker:
        claimed = 0
        while jobs := broker.claim_many(10_000, wait=5 if claimed < 5000 else 0):
            claimed += len(jobs)

        assert claimed == 5000
    assert not next(fails, False)


def test_an_archive_that_cannot_be_listed_once_is_listed_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Broker.open(tmp_path / "queue") as broker:
        job = broker.claim() if broker.push(b"1") else None
        assert job is not None
        broker.complete(job)
    listing = DirectoryStorage.list
    failed: list[str] = []

    def list_or_fail(self: DirectoryStorage, prefix: str) -> Iterator[str]:
        if prefix == "archive/" and len(failed) < 3:
            failed.append(prefix)
            raise ReadFailed("EIO")
        return listing(self, prefix)

    with Broker.open(tmp_path / "queue") as broker:
        monkeypatch.setattr(DirectoryStorage, "list", list_or_fail)

        def found() -> JobRecord | None:
            try:
                return broker.get(1)
            except Exception:  # noqa: BLE001 - while the disk fails, whatever error says so
                return None

        wait_for(lambda: found() is not None)
        assert len(failed) == 3


def test_a_segment_that_cannot_be_read_for_long_is_passed_over_and_comes_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Broker.open(tmp_path / "queue") as broker:
        broker.push_many(b'"%d"' % n for n in range(5000))
    read = DirectoryStorage.read
    failing = threading.Event()
    failing.set()

    def read_or_fail(self: DirectoryStorage, key: str) -> tuple[bytes, str]:
        if key.startswith("segments/") and failing.is_set():
            raise ReadFailed("EIO")
        return read(self, key)

    monkeypatch.setattr(DirectoryStorage, "read", read_or_fail)
    monkeypatch.setattr(broker_server, "READ_PATIENCE_MS", 500)
    with Broker.open(tmp_path / "queue") as broker:
        with pytest.raises(Corrupt, match="segments/"):
            broker.get(1)
        assert broker.push(b"1", task="other") == 5001
        held = broker.claim_many(10_000)
        for job in held:
            broker.complete(job)
        with pytest.raises(Corrupt):
            broker.wait_idle(timeout=60)
        failing.clear()

        claimed = len(held)
        while jobs := broker.claim_many(10_000, wait=5 if claimed < 5000 else 0):
            claimed += len(jobs)

    assert claimed == 5000
