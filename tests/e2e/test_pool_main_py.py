"""Programs whose main module is a ``__main__.py``, which multiprocessing does not import in workers."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.e2e.program import environment

MAIN = """
from osqueue import LocalPool
import work

def f(value):
    return value

class Wrong(Exception):
    pass

if __name__ == "__main__":
    for wrong in ({"handler": f}, {"handler": "__main__:f"}, {"initializer": f, "initargs": (1,)}, {"retry_on": Wrong}):
        try:
            LocalPool(**{"handler": work.double, **wrong})
        except TypeError as error:
            print(error)
    with LocalPool(work.double, workers=1) as pool:
        print(pool.submit(21).result(60))
"""
WORK = "def double(value):\n    return 2 * value\n"


def run_as(way: str, directory: Path) -> subprocess.CompletedProcess[str]:
    """Run the program as ``python -m app``, ``python app`` or ``python app.zip``."""
    app = directory / "app"
    app.mkdir()
    (app / "__main__.py").write_text(MAIN)
    (app / "work.py").write_text(WORK)
    if way == "-m":
        (app / "work.py").rename(directory / "work.py")
    if way == "zip":
        with zipfile.ZipFile(directory / "app.zip", "w") as archive:
            for name in ("__main__.py", "work.py"):
                archive.write(app / name, name)
    arguments = {"-m": ["-m", "app"], "directory": ["app"], "zip": ["app.zip"]}[way]
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=directory,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )


@pytest.mark.parametrize("way", ["-m", "directory", "zip"])
def test_what_is_in_a_main_py_is_refused_when_the_pool_is_made_and_other_modules_work(tmp_path, way):
    done = run_as(way, tmp_path)

    out = done.stdout.splitlines()
    assert done.returncode == 0, done.stderr
    assert [line.split(":")[0] for line in out[:-1]] == ["handler", "handler", "initializer", "retry_on, no_retry_on"]
    assert all("move f out of __main__.py into a module of its own" in line for line in out[:3])
    assert "move Wrong out of __main__.py" in out[3]
    assert out[-1] == "42"
