from __future__ import annotations

import json
import random
import subprocess
from pathlib import Path

import pytest

from osqueue import Broker
from tests.cli.command_line import arguments_for, document, documents, environment, osqueue, succeed


@pytest.fixture
def queue(tmp_path: Path) -> Path:
    """A directory with a queue ``jobs``: 1 succeeded, 2 dead, 3 delayed, 4 ready with bytes that are no JSON."""
    with Broker.open(tmp_path / "jobs") as broker:
        broker.push(b'{"n":1}')
        broker.push(b"2", task="resize")
        done, failed = broker.claim("worker-1"), broker.claim("worker-1", tasks=("resize",))
        assert done is not None
        assert failed is not None
        broker.complete(done, result=b'{"ok":true}')
        broker.fail(failed, "no such image\x1b[2J", retry=False)
        broker.push(b"3", delay=3600, priority=7)
        broker.push(b"\x1b[31m\xff")
    return tmp_path


def test_status_counts_jobs_by_state_and_task(queue: Path) -> None:
    status = document("status", "jobs", cwd=queue)

    assert {name: status[name] for name in ("ready", "delayed", "running", "succeeded", "dead", "cancelled")} == {
        "ready": 1,
        "delayed": 1,
        "running": 0,
        "succeeded": 1,
        "dead": 1,
        "cancelled": 0,
    }
    assert status["pushed"] == 4
    assert status["oldest_ready_s"] >= 0
    assert status["tasks"]["resize"]["dead"] == 1


def test_status_for_people_names_the_command_that_shows_dead_jobs(queue: Path) -> None:
    output = succeed("status", "jobs", cwd=queue)

    assert "osqueue list jobs --state dead" in output
    assert "resize" in output


def test_counts_by_task_stand_below_the_end_of_their_header(queue: Path) -> None:
    header, *rows = succeed("status", "jobs", cwd=queue).partition("\n\n")[2].splitlines()

    assert [row[header.index("DELAYED") :].split() for row in rows] == [list("11010003"), list("00001001")]
    assert {len(row) for row in rows} == {len(header)}


def test_list_shows_what_is_not_finished_by_id(queue: Path) -> None:
    assert [(r["id"], r["state"]) for r in documents("list", "jobs", cwd=queue)] == [
        (2, "dead"),
        (3, "delayed"),
        (4, "ready"),
    ]


def test_list_may_be_narrowed_to_a_state(queue: Path) -> None:
    (dead,) = documents("list", "--state", "dead", "jobs", cwd=queue)

    assert dead["id"] == 2
    assert dead["errors"][0]["message"].startswith("no such image")


def test_list_goes_by_id_through_jobs_of_many_segments_whose_ids_overlap(tmp_path: Path) -> None:
    dice = random.Random(3)
    with Broker.open(tmp_path / "jobs") as broker:
        for _ in range(150):
            delay_s = dice.uniform(600, dice.choice([3600, 86_400, 30 * 86_400]))
            broker.push_many([b'"%01000d"' % n for n in range(20)], delay=delay_s)
    assert len(list((tmp_path / "jobs" / "segments").iterdir())) > 8

    delayed = documents("list", "jobs", "--state", "delayed", cwd=tmp_path)

    assert [record["id"] for record in delayed] == list(range(1, 3001))


@pytest.mark.parametrize(("state", "expected"), [("succeeded", [1]), ("cancelled", [4])])
def test_list_finds_states_that_are_only_in_the_archive(queue: Path, state: str, expected: list[int]) -> None:
    with Broker.open(queue / "jobs") as broker:
        broker.cancel(4)

    found = documents("list", "jobs", "--state", state, cwd=queue)

    assert [(record["id"], record["state"]) for record in found] == [(job_id, state) for job_id in expected]
    assert state in succeed("list", "jobs", "--state", state, cwd=queue)


def test_a_directory_of_other_files_is_no_place_to_push_to(tmp_path: Path) -> None:
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "mother.txt").write_text("dear")

    done = osqueue("status", "letters", cwd=tmp_path)

    assert done.returncode == 3
    assert "no queue at letters; the directory holds other files" in done.stderr
    assert "osqueue push" not in done.stderr


def test_bytes_that_are_no_json_are_printed_as_base64(queue: Path) -> None:
    record = documents("list", "jobs", "--state", "ready", cwd=queue)[0]

    assert "payload" not in record
    assert record["payload_base64"] == "G1szMW3/"


def test_no_stored_byte_controls_the_terminal(queue: Path) -> None:
    output = succeed("list", "jobs", cwd=queue) + succeed("show", "jobs", "2", cwd=queue)

    assert "\x1b" not in output
    assert "no such image\\x1b[2J" in output


def test_show_prints_a_finished_job_with_its_result(queue: Path) -> None:
    record = document("show", "jobs", "1", cwd=queue)

    assert (record["state"], record["payload"], record["result"]) == ("succeeded", {"n": 1}, {"ok": True})
    assert record["finished_at"].endswith("Z")


def test_show_for_people_has_the_error_of_each_attempt(queue: Path) -> None:
    output = succeed("show", "jobs", "2", cwd=queue)

    assert "state     dead" in output
    assert "attempt 1" in output


def test_an_unknown_id_ends_with_status_1(queue: Path) -> None:
    done = osqueue("show", "jobs", "99", cwd=queue)

    assert done.returncode == 1
    assert "99" in done.stderr


def test_an_id_that_is_no_number_is_wrong_usage(queue: Path) -> None:
    assert osqueue("show", "jobs", "first", cwd=queue).returncode == 2


def test_history_has_finished_jobs_alone(queue: Path) -> None:
    assert [record["id"] for record in documents("history", "jobs", cwd=queue)] == [1]
    assert [record["id"] for record in documents("history", "jobs", "--since", "1h", cwd=queue)] == [1]
    assert documents("history", "jobs", "--since", "2999-01-01", cwd=queue) == []
    assert documents("history", "jobs", "--since", "2999-01-01 12:00:00Z", cwd=queue) == []


def test_a_time_that_is_none_is_wrong_usage_that_names_both_forms(queue: Path) -> None:
    done = osqueue("history", "jobs", "--since", "yesterday", cwd=queue)

    assert done.returncode == 2
    assert "'yesterday' is no time; write 1h or 7d for so long ago, or an ISO 8601 UTC time like" in done.stderr


def test_history_for_people_is_a_table(queue: Path) -> None:
    header, row = succeed("history", "jobs", cwd=queue).splitlines()

    assert header.split() == ["ID", "STATE", "TASK", "ATTEMPTS", "FINISHED", "RESULT"]
    assert row.split()[:4] == ["1", "succeeded", "default", "1"]
    assert row.endswith('Z  {"ok":true}')


def test_an_empty_queue_lists_nothing(tmp_path: Path) -> None:
    Broker.open(tmp_path / "jobs").close()

    assert succeed("list", "jobs", cwd=tmp_path) == ""


@pytest.mark.parametrize("command", [["status"], ["list"], ["history"], ["verify"], ["show"]])
@pytest.mark.parametrize("target", ["nowhere", "empty", "file", "s3://bucket/jobs", "localhost:9090"])
def test_what_is_no_queue_cannot_be_opened_and_none_is_made(command: list[str], target: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    operands = [target, "1"] if command == ["show"] else [target]

    done = osqueue(*command, *operands, cwd=tmp_path)

    assert done.returncode == 3
    assert target in done.stderr
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["empty", "file"]


def test_a_damaged_root_cannot_be_opened(queue: Path) -> None:
    root = queue / "jobs" / "queue.json"
    root.write_bytes(root.read_bytes().replace(b'"n":1', b'"n":2').replace(b'"version":', b'"version": '))

    done = osqueue("status", "jobs", cwd=queue)

    assert done.returncode == 3
    assert "queue.json" in done.stderr


def test_a_reader_that_goes_away_ends_the_output_quietly(tmp_path: Path) -> None:
    with Broker.open(tmp_path / "jobs") as broker:
        broker.push_many(json.dumps("x" * 50).encode() for _ in range(5000))
    listing = subprocess.Popen(
        arguments_for("list", "jobs", "--json"),
        cwd=tmp_path,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert listing.stdout is not None
    listing.stdout.readline()

    listing.stdout.close()

    assert listing.stderr is not None
    with listing.stderr:
        assert listing.stderr.read() == b""
    assert listing.wait(30) == 141
