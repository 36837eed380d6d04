"""What a running handler says of its progress, and who sees it."""

from __future__ import annotations

import json

import pytest

from osqueue import Client, LocalPool
from tests.cli.command_line import osqueue
from tests.e2e import paced_handlers
from tests.e2e.waiting import wait_for

pytestmark = pytest.mark.usefixtures("nothing_is_left")


def say(place, text):
    """Have the handler say this; true when it has."""
    (place / "said").unlink(missing_ok=True)
    (place / "new").write_text(text)
    (place / "new").rename(place / "say")
    wait_for((place / "said").exists)


def told(record):
    return record.progress, record.progress_message


def test_progress_of_a_running_job_is_seen_by_everybody_who_looks(tmp_path):
    path = tmp_path / "queue"
    with LocalPool(paced_handlers.say_progress, workers=1, path=path) as pool:
        future = pool.submit(str(tmp_path))
        wait_for(lambda: pool.stats().running == 1)
        assert told(pool.get(1)) == (None, "")

        say(tmp_path, "0.25 a quarter")
        wait_for(lambda: told(pool.get(1)) == (0.25, "a quarter"))
        with Client.connect(path) as client:
            assert told(client.get(1)) == (0.25, "a quarter")
            assert [told(record) for record in client.list("running")] == [(0.25, "a quarter")]
        shown = osqueue("show", path, "1", cwd=tmp_path).stdout
        assert "progress" in shown
        assert "25% a quarter" in shown
        document = json.loads(osqueue("show", path, "1", "--json", cwd=tmp_path).stdout)
        assert (document["progress"], document["progress_message"]) == (0.25, "a quarter")

        say(tmp_path, "0.5")
        wait_for(lambda: told(pool.get(1)) == (0.5, ""))
        (tmp_path / "go").touch()
        assert future.result(30) == "went"
        assert told(pool.get(1)) == (None, "")


def test_a_heartbeat_tells_it_to_whoever_asks_the_broker_alone(tmp_path):
    path = tmp_path / "queue"
    with LocalPool(paced_handlers.say_progress, workers=1, path=path) as pool, Client.connect(path) as client:
        pool.push(str(tmp_path))
        wait_for(lambda: client.get(1).state == "running")
        say(tmp_path, "0.125 alone")
        wait_for(lambda: told(client.get(1)) == (0.125, "alone"))
        (tmp_path / "go").touch()


def test_of_many_words_the_last_one_is_told(tmp_path):
    with LocalPool(paced_handlers.say_many, workers=1) as pool:
        pool.push(str(tmp_path))
        wait_for((tmp_path / "said").exists)
        wait_for(lambda: told(pool.get(1)) == (0.75, "the last word"))
        (tmp_path / "go").touch()


def test_progress_makes_no_commit(tmp_path):
    path = tmp_path / "queue"
    with LocalPool(paced_handlers.say_progress, workers=1, path=path) as pool:
        pool.push(str(tmp_path))
        wait_for(lambda: pool.stats().running == 1)
        before = (path / "queue.json").read_bytes()
        for fraction in (0.1, 0.2, 0.3):
            say(tmp_path, f"{fraction} so far")
            wait_for(lambda fraction=fraction: told(pool.get(1)) == (fraction, "so far"))
        assert (path / "queue.json").read_bytes() == before
        (tmp_path / "go").touch()


def test_a_message_is_clipped_to_200_characters_whatever_they_are(tmp_path):
    with LocalPool(paced_handlers.say_progress, workers=1) as pool:
        pool.push(str(tmp_path))
        say(tmp_path, "1 " + "ü€" * 150)
        wait_for(lambda: told(pool.get(1)) == (1.0, "ü€" * 100))
        (tmp_path / "go").touch()


def test_a_thread_that_outlives_its_job_tells_nothing_of_the_next(tmp_path):
    handlers = {"stray": paced_handlers.leave_a_stray_thread, "next": paced_handlers.say_progress}
    with LocalPool(handlers, workers=1) as pool:
        pool.submit(str(tmp_path), task="stray").result(30)
        pool.push(str(tmp_path), task="next")
        say(tmp_path, "0.25 mine")
        wait_for(lambda: told(pool.get(2)) == (0.25, "mine"))
        for _ in range(20):
            assert told(pool.get(2)) == (0.25, "mine")
        (tmp_path / "stop").touch()
        (tmp_path / "go").touch()


def test_a_forked_child_tells_nothing_and_harms_nothing(tmp_path):
    with LocalPool(paced_handlers.say_in_a_fork, workers=1) as pool:
        future = pool.submit(str(tmp_path))
        wait_for((tmp_path / "said").exists)
        wait_for(lambda: told(pool.get(1)) == (0.25, "before"))
        (tmp_path / "go").touch()
        assert future.result(30) == "went"


def test_what_is_no_progress_is_refused_in_the_handler_by_name():
    wrong = ["text", "none", "bool", "message", "above", "below", "nan", "huge"]
    with LocalPool(paced_handlers.misuse_progress, workers=1) as pool:
        raised = dict(zip(wrong, pool.map(wrong), strict=True))

    assert {name for name, (kind, _) in raised.items() if kind == "TypeError"} == set(wrong[:4])
    assert {name for name, (kind, _) in raised.items() if kind == "ValueError"} == set(wrong[4:])
    assert "fraction is a number from 0 to 1, not str" in raised["text"][1]
    assert "fraction is a number from 0 to 1 fraction=1.01" in raised["above"][1]
    assert "message is a text, not bytes" in raised["message"][1]
