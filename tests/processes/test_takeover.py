"""What a takeover finds out about the processes of a dead holder."""

from __future__ import annotations

import subprocess
import sys
import time
from contextlib import ExitStack

import pytest
from msgspec import structs

from osqueue import host
from osqueue.blame import Blame, Slot
from osqueue.broker import takeover

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux")


def test_all_workers_of_a_dead_holder_are_waited_for_together(tmp_path, monkeypatch):
    monkeypatch.setattr(takeover, "WORKERS_END_S", 1.0)
    Blame.create(tmp_path / "blame", 12, owner=host.this_process())
    with ExitStack() as stack:
        children = [
            stack.enter_context(subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE))
            for _ in range(12)
        ]
        for index, child in enumerate(children):
            Slot(tmp_path / "blame", index, pid=child.pid, process_started=host.start_time(child.pid) or 0)
        holder = structs.replace(host.this_process("blame"), started=1)
        began = time.monotonic()

        ended = takeover.look_at(holder, str(tmp_path))

        took_s = time.monotonic() - began
        for child in children:
            child.kill()
    assert ended.known
    assert 1.0 <= took_s < 6.0
