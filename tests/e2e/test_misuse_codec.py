"""Codecs that misbehave, in each of the four places where they are called, and what is no codec."""

from __future__ import annotations

import pytest

from osqueue import InvalidPayload, JobFailed, LocalPool
from tests.e2e import packed

pytestmark = pytest.mark.usefixtures("nothing_is_left")


@pytest.mark.parametrize(("codec", "payload"), [(packed.picky, ["unsayable"]), (packed.textual, 1)])
def test_a_payload_that_the_codec_cannot_encode_is_refused_and_nothing_is_pushed(tmp_path, codec, payload):
    with LocalPool(packed.echo, workers=1, path=tmp_path / "queue", codec=codec) as pool:
        with pytest.raises(InvalidPayload, match="codec"):
            pool.push(payload)
        with pytest.raises(InvalidPayload, match="codec"):
            pool.submit(payload)
        with pytest.raises(InvalidPayload, match="codec") as refused:
            pool.push_many([payload])
        assert refused.value.pushed == 0
        assert pool.stats().pushed == 0


def test_a_result_that_the_codec_cannot_encode_fails_its_attempt_as_any_other(tmp_path):
    with LocalPool(
        packed.give_unsayable, workers=1, path=tmp_path / "queue", codec=packed.picky, max_attempts=2, retry_backoff=0
    ) as pool:
        future = pool.submit(1)
        with pytest.raises(JobFailed, match="cannot encode the result: OSError: no room to encode"):
            future.result(30)
        assert pool.get(future.job_id).attempts == 2


def test_a_payload_that_the_codec_cannot_decode_is_dead_at_once(tmp_path):
    with LocalPool(packed.echo, workers=1, path=tmp_path / "queue", codec=packed.forgetful) as pool:
        future = pool.submit(["unreadable"])
        with pytest.raises(JobFailed, match="cannot decode the payload: ValueError: these bytes say nothing"):
            future.result(30)
        record = pool.get(future.job_id)
        assert (record.state, record.attempts) == ("dead", 1)
        assert pool.submit(1).result(30) == 1


def test_a_result_that_the_codec_cannot_decode_is_told_with_the_jobs_id(tmp_path):
    with LocalPool(packed.give_unreadable, workers=1, path=tmp_path / "queue", codec=packed.forgetful) as pool:
        future = pool.submit(1)
        error = future.exception(30)
        assert isinstance(error, InvalidPayload)
        assert "these bytes say nothing" in str(error)
        assert f"job_id={future.job_id}" in str(error)
        assert pool.get(future.job_id).state == "succeeded"
        with pytest.raises(InvalidPayload, match="job_id=2"):
            list(pool.map([1]))


def test_an_exit_out_of_a_codec_kills_no_worker_and_leaves_nobody_waiting(tmp_path):
    with LocalPool(
        packed.echo, workers=1, path=tmp_path / "queue", codec=packed.exiting_decode, max_attempts=1
    ) as pool:
        assert pool.submit([0]).result(30) == [0]
        pids = pool_pids(pool)
        with pytest.raises(JobFailed, match="SystemExit"):
            pool.submit(["leave"]).result(30)
        assert pool.submit([1]).result(30) == [1]
        assert pool_pids(pool) == pids


def test_an_exit_out_of_encoding_or_of_reading_a_result_is_told(tmp_path):
    with (
        LocalPool(
            packed.give_leave, workers=1, path=tmp_path / "queue", codec=packed.exiting_encode, max_attempts=1
        ) as pool,
        pytest.raises(JobFailed, match="SystemExit"),
    ):
        pool.submit(1).result(30)
    with LocalPool(packed.give_leave, workers=1, path=tmp_path / "queue", codec=packed.exiting_decode) as pool:
        with pytest.raises(InvalidPayload, match="SystemExit: 3 job_id=2"):
            pool.submit(1).result(30)
        assert pool.stats().workers == 1


def test_an_interrupt_out_of_a_codec_kills_no_worker(tmp_path):
    with LocalPool(packed.echo, workers=1, path=tmp_path / "queue", codec=packed.interrupting) as pool:
        with pytest.raises(JobFailed, match="KeyboardInterrupt"):
            pool.submit(1).result(30)
        assert pool.get(1).attempts == 1


@pytest.mark.parametrize("codec", [packed.Half, packed.Bound, packed.Prefixed(b""), "json", "no.such:thing", 3])
def test_what_is_no_codec_is_refused_before_the_queue_is_opened(tmp_path, codec):
    with pytest.raises(TypeError, match="codec"):
        LocalPool(packed.echo, path=tmp_path / "queue", codec=codec)

    assert not (tmp_path / "queue").exists()


def test_a_codec_beside_a_type_is_refused(tmp_path):
    with pytest.raises(ValueError, match="payload_type"):
        LocalPool(packed.echo, path=tmp_path / "queue", codec=packed.Packed, payload_type=int)


def pool_pids(pool: LocalPool) -> set[int]:
    return {process.pid for process in pool._engine._supervisor._processes.values()}
