"""Handlers, types and exceptions that the program's own main module defines."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

HEAD = """
from __future__ import annotations
import asyncio, dataclasses, os, pathlib, sys
sys.path[:0] = {path!r}
from osqueue.jobs import class_name
from tests.processes.yard import Yard

@dataclasses.dataclass
class Pair:
    x: int
    y: int

class Hopeless(Exception):
    pass

def add(pair: Pair) -> int:
    if pair.x < 0:
        raise Hopeless("negative")
    return pair.x + pair.y
"""

WHOLE = (
    HEAD
    + """
async def main():
    settings = dict(mp_context={method!r}, no_retry_on=(class_name(Hopeless),), max_attempts=4)
    async with Yard(add, pathlib.Path({directory!r}), workers=2, **settings) as yard:
        print(await yard.run({{"x": 1, "y": 2}}))
        [outcome] = await yard.outcomes(*yard.push({{"x": -1, "y": 2}}))
        print(outcome.verdict, outcome.error.error_type)

if __name__ == "__main__":
    asyncio.run(main())
"""
)

GUARDED = (
    HEAD
    + """
if __name__ == "__main__":
    def late(payload):
        return payload

    async def main():
        async with Yard(late, pathlib.Path({directory!r}), workers=2, mp_context={method!r}) as yard:
            await yard.until(lambda: yard.broken is not None, "broken")
            print(yard.broken)

    asyncio.run(main())
"""
)


def run(tmp_path: Path, text: str, method: str) -> str:
    script = tmp_path / "script.py"
    script.write_text(text.format(path=[str(ROOT)], directory=str(tmp_path), method=method))
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=100, check=True)
    return done.stdout


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_workers_find_handlers_types_and_exceptions_of_the_main_module(tmp_path, method):
    assert run(tmp_path, WHOLE, method).splitlines() == ["[3]", "dead Hopeless"]


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_a_handler_inside_the_main_guard_is_named_with_the_way_out(tmp_path, method):
    said = run(tmp_path, GUARDED, method)

    assert "module __main__ has no late in a worker" in said
    assert "outside the if __name__ == '__main__': block" in said
