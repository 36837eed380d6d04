"""What format 1 looked like when it was published, and that it is read, opened, and described."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest

from osqueue import Broker, Corrupt
from osqueue.core import codec
from osqueue.core.messages import Holder, JobError
from osqueue.core.model import FORMAT, Counts, Job, KeyLine, LeaseLine, Record, Root, SegmentHead, SegmentKind
from osqueue.storage import ROOT_KEY, open_reader
from osqueue.verify import verify
from tests.format.make_golden import EXPECTED, summary

GOLDEN = Path(__file__).with_name("golden") / "1"
PAGE = Path(__file__).parents[2] / "docs" / "format.md"


@pytest.fixture
def queue(tmp_path: Path) -> Path:
    """A copy of the golden queue that may be opened."""
    target = tmp_path / "queue"
    shutil.copytree(GOLDEN, target, ignore=shutil.ignore_patterns(EXPECTED))
    for path in (target, *target.rglob("*")):
        path.chmod(0o700 if path.is_dir() else 0o600)
    return target


def expected() -> list[dict[str, Any]]:
    return [json.loads(line) for line in (GOLDEN / EXPECTED).read_text().splitlines()]


def test_every_job_of_the_golden_queue_is_read_as_it_was(queue: Path) -> None:
    with Broker.open(queue) as broker:
        records = sorted([*broker.list(), *broker.history()], key=lambda record: record.id)

    assert [summary(record) for record in records] == expected()


def test_the_golden_queue_has_a_job_in_every_state() -> None:
    states = {record["state"] for record in expected()}

    assert states == {"ready", "delayed", "running", "succeeded", "dead", "cancelled"}


def test_the_golden_queue_is_sound(queue: Path) -> None:
    findings = verify(open_reader(queue))

    assert findings.problems == []
    archive_objects = list(GOLDEN.glob("archive/*/*"))
    root = codec.decode_root((GOLDEN / ROOT_KEY).read_bytes())
    assert (findings.segments, findings.archive_objects) == (len(root.segments), len(archive_objects))
    assert findings.dead == sum(record["state"] == "dead" and "finished_at" not in record for record in expected())


def test_the_golden_queue_has_every_kind_of_object() -> None:
    root = codec.decode_root((GOLDEN / ROOT_KEY).read_bytes())

    assert {line.kind for line in root.segments} == set(get_args(SegmentKind))
    assert root.keys
    assert root.key_objects


def test_the_golden_queue_goes_on_where_it_stopped(queue: Path) -> None:
    with Broker.open(queue) as broker:
        job = broker.claim()
        pushed = broker.push(b"1")

    assert job is not None
    assert job.id == 34
    assert pushed == len(expected()) + 1
    assert verify(open_reader(queue)).problems == []


def test_the_golden_root_is_encoded_as_it_was() -> None:
    data = (GOLDEN / ROOT_KEY).read_bytes()
    root = codec.decode_root(data)
    fields = msgspec.json.decode(data)
    frame_fields = [name for name in fields if name in codec.Frame.__struct_fields__]

    frame = codec.Frame(**{name: getattr(root, name) for name in frame_fields})
    sections = [(n, msgspec.json.encode(getattr(root, n))) for n in fields if n not in (*frame_fields, "digest")]

    assert codec.encode_root(frame, sections) == data


@pytest.mark.parametrize("number", [0, FORMAT + 1, 99])
def test_another_format_number_is_refused_by_name(queue: Path, number: int) -> None:
    data = (queue / ROOT_KEY).read_bytes().replace(b'"format":1', b'"format":%d' % number, 1)
    body = data[: data.rindex(b',"digest"')]
    (queue / ROOT_KEY).write_bytes(b'%b,"digest":"%b"}\n' % (body, codec.digest(body).encode()))

    with pytest.raises(Corrupt, match=f"its format is {number}"):
        Broker.open(queue)


def test_a_segment_of_another_format_is_refused_by_name() -> None:
    segment = min(GOLDEN.glob("segments/*"))
    data = segment.read_bytes().replace(b'"format":1', b'"format":2', 1)

    with pytest.raises(Corrupt, match="its format is 2"):
        codec.decode_segment(data, expected_digest=codec.digest(data), key="segments/x")


def test_a_segment_without_jobs_is_damaged() -> None:
    data = b'{"format":1,"number":1,"epoch":1}\n'

    with pytest.raises(Corrupt, match="no job"):
        codec.decode_segment(data, expected_digest=codec.digest(data), key="segments/x")


@pytest.mark.parametrize("struct", [Root, SegmentHead, KeyLine, Job, LeaseLine, Holder, Counts, Record, JobError])
def test_every_field_on_disk_is_described(struct: type[msgspec.Struct]) -> None:
    described = set(re.findall(r"`(\w+)`", PAGE.read_text()))

    assert set(struct.__struct_fields__) - described == set()
