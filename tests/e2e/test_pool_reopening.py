"""A queue that is stopped and opened again, by the same process: nothing may wait for that process to end."""

from __future__ import annotations

import json
from pathlib import Path

from osqueue import LocalPool
from tests.e2e import handlers
from tests.e2e.program import Program, processes_of
from tests.e2e.waiting import wait_for


def test_what_a_stop_returns_is_free_at_once_and_was_returned_once(tmp_path):
    queue = tmp_path / "queue"
    for turn in range(6):
        waiting = {"started": str(tmp_path / f"started {turn}"), "go": str(tmp_path / f"go {turn}")}
        pool = LocalPool(handlers.wait_for_file, workers=1, path=queue)
        pool.push_many([waiting] * 4)
        wait_for(Path(waiting["started"]).exists)
        before = _root(queue)["version"]
        pool.stop(grace=0.2)

        root = _root(queue)
        assert root["leases"] == []
        assert root["version"] - before < 10, "what was returned was handed out and returned again and again"
        Path(waiting["go"]).touch()
        with LocalPool(handlers.wait_for_file, workers=1, path=queue) as pool:
            assert pool.join(30).succeeded == 4 * (turn + 1)
            assert pool.get(4 * turn + 1).attempts == 1


def test_the_sessions_of_pools_that_were_closed_are_forgotten(tmp_path):
    queue = tmp_path / "queue"
    for _ in range(3):
        with LocalPool(handlers.double, workers=1, path=queue) as pool:
            pool.push_many(range(10))

    assert _root(queue)["sessions"] == []


def _root(queue: Path) -> dict:
    return json.loads((queue / "queue.json").read_bytes())


def test_the_blame_file_of_a_pool_that_was_killed_while_idle_goes_with_the_next_opening(tmp_path):
    program = Program(
        tmp_path,
        """
        import time
        from pathlib import Path
        from osqueue import LocalPool
        from tests.e2e import handlers

        if __name__ == "__main__":
            with LocalPool(handlers.double, workers=1, path="queue"):
                Path("open").touch()
                time.sleep(600)
        """,
    )
    program.wait_for("open")
    blame = tmp_path / "queue" / "blame"
    [left] = blame.iterdir()
    program.process.kill()
    program.end()
    wait_for(lambda: processes_of(tmp_path) == [])
    assert left.exists()

    with LocalPool(handlers.double, workers=1, path=tmp_path / "queue") as pool:
        wait_for(lambda: not left.exists())
        assert [path.name for path in blame.iterdir()] == [Path(pool._engine._plan.directory.blame).name]
