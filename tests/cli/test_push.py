from __future__ import annotations

import json
from pathlib import Path

import pytest

from osqueue import Broker
from tests.cli.command_line import document, documents, osqueue, succeed


def payloads(directory: Path) -> list[object]:
    return [record["payload"] for record in documents("list", "jobs", cwd=directory)]


def test_a_pushed_payload_is_printed_as_its_id_and_waits(tmp_path: Path) -> None:
    assert succeed("push", "jobs", '{"image": "a.png"}', cwd=tmp_path) == "1\n"
    assert succeed("push", "jobs", "[1, 2.50]", cwd=tmp_path) == "2\n"

    assert payloads(tmp_path) == [{"image": "a.png"}, [1, 2.5]]
    assert document("status", "jobs", cwd=tmp_path)["ready"] == 2


def test_what_was_pushed_is_claimed_as_compact_json_with_its_numbers_as_written(tmp_path: Path) -> None:
    succeed("push", "jobs", '{\n "a": 2.50,\n "b": 123456789012345678901234567890 }', cwd=tmp_path)

    with Broker.open(tmp_path / "jobs") as broker:
        job = broker.claim()

    assert job is not None
    assert job.payload == b'{"a":2.50,"b":123456789012345678901234567890}'


def test_options_and_operands_mix_freely(tmp_path: Path) -> None:
    succeed("push", "--task", "resize", "jobs", "--priority", "3", "{}", "--delay", "1h", cwd=tmp_path)

    (record,) = documents("list", "jobs", cwd=tmp_path)
    assert (record["task"], record["priority"], record["state"]) == ("resize", 3, "delayed")


def test_a_negative_number_is_a_payload(tmp_path: Path) -> None:
    succeed("push", "jobs", "-5", "--priority", "-2", cwd=tmp_path)

    assert payloads(tmp_path) == [-5]


def test_each_line_of_a_file_is_a_payload_and_empty_ones_are_passed_over(tmp_path: Path) -> None:
    (tmp_path / "items.jsonl").write_bytes(b'\xef\xbb\xbf{"a": 1}\r\n\n"b"\n  \n3')

    assert succeed("push", "jobs", "--file", "items.jsonl", cwd=tmp_path) == "pushed 3 jobs: 1 to 3\n"
    assert payloads(tmp_path) == [{"a": 1}, "b", 3]


def test_a_dash_is_standard_input_and_lines_takes_strings(tmp_path: Path) -> None:
    succeed("push", "jobs", "--file", "-", "--lines", cwd=tmp_path, stdin='a "b"\n{}\n\nlast')

    assert payloads(tmp_path) == ['a "b"', "{}", "", "last"]


def test_pushing_says_in_json_what_was_pushed(tmp_path: Path) -> None:
    (tmp_path / "items").write_text("1\n2\n")

    assert document("push", "jobs", "--file", "items", cwd=tmp_path) == {"pushed": 2, "first_id": 1, "last_id": 2}


@pytest.mark.parametrize(
    ("line", "why"),
    [(b'{"a": ', "not JSON"), (b"NaN", "not JSON"), (b'"\\ud800"', "not JSON"), (b'"\xff"', "not UTF-8")],
)
def test_a_broken_line_is_named_and_what_came_before_stays_pushed(line: bytes, why: str, tmp_path: Path) -> None:
    (tmp_path / "items.jsonl").write_bytes(b"1\n2\n" + line + b"\n4\n")

    done = osqueue("push", "jobs", "--file", "items.jsonl", cwd=tmp_path)

    assert done.returncode == 2
    assert f"items.jsonl:3: {why}" in done.stderr
    assert "2 jobs were pushed before it" in done.stderr
    assert payloads(tmp_path) == [1, 2]


@pytest.mark.parametrize(
    "arguments",
    [
        ["push", "jobs"],
        ["push", "jobs", "{}", "--file", "items"],
        ["push", "jobs", "{"],
        ["push", "jobs", "NaN"],
        ["push", "jobs", "[" * 50_000 + "]" * 50_000],
        ["push", "jobs", "{}", "--priority", "5000"],
        ["push", "jobs", "{}", "--delay", "soon"],
        ["push", "jobs", "{}", "--max-attempts", "0"],
        ["push", "jobs", "{}", "--lines"],
        ["push", "jobs", "--file", "missing.jsonl"],
    ],
    ids=lambda arguments: " ".join(arguments)[:40],
)
def test_wrong_usage_pushes_nothing(arguments: list[str], tmp_path: Path) -> None:
    done = osqueue(*arguments, cwd=tmp_path)

    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    if (tmp_path / "jobs").exists():
        assert documents("list", "jobs", cwd=tmp_path) == []


def test_a_payload_over_the_limit_is_refused_with_its_place(tmp_path: Path) -> None:
    (tmp_path / "items.jsonl").write_text("1\n" + json.dumps("x" * 5_000_000) + "\n")

    done = osqueue("push", "jobs", "--file", "items.jsonl", cwd=tmp_path)

    assert done.returncode == 2
    assert "items.jsonl:2" in done.stderr
    assert "1 job was pushed before it" in done.stderr


def test_a_directory_with_other_files_is_not_made_a_queue(tmp_path: Path) -> None:
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "mother.txt").write_text("dear")

    done = osqueue("push", "letters", "{}", cwd=tmp_path)

    assert done.returncode == 3
    assert [path.name for path in (tmp_path / "letters").iterdir()] == ["mother.txt"]


def test_a_file_of_many_lines_is_pushed_in_order_and_counted(tmp_path: Path) -> None:
    (tmp_path / "items").write_text("".join(f"{number}\n" for number in range(20_000)))

    assert succeed("push", "jobs", "--file", "items", cwd=tmp_path) == "pushed 20000 jobs: 1 to 20000\n"
    assert document("status", "jobs", cwd=tmp_path)["ready"] == 20_000


@pytest.mark.parametrize(
    ("payload", "why"),
    [
        ('"\\ud800"', "half of a surrogate pair"),
        ('"\\ud83dx"', "half of a surrogate pair"),
        ('{"a": ["\\udc00"]}', "half of a surrogate pair"),
        ("", "there is nothing"),
        ("  ", "there is nothing"),
        ('{"a":', "truncated"),
        ("[" * 100_000, "nested too deeply"),
    ],
    ids=lambda value: value[:20],
)
def test_what_is_wrong_with_a_payload_is_said(payload: str, why: str, tmp_path: Path) -> None:
    done = osqueue("push", "jobs", payload, cwd=tmp_path)

    assert done.returncode == 2
    assert why in done.stderr
    assert not (tmp_path / "jobs").exists()


def test_a_whole_surrogate_pair_is_text(tmp_path: Path) -> None:
    succeed("push", "jobs", '"\\ud83d\\ude00"', cwd=tmp_path)

    assert payloads(tmp_path) == ["\N{GRINNING FACE}"]


def test_a_duration_beyond_the_limit_names_it(tmp_path: Path) -> None:
    done = osqueue("push", "jobs", "1", "--delay", "1000000d", cwd=tmp_path)

    assert done.returncode == 2
    assert "at most 3,162,240,000 seconds, 100 years" in done.stderr
