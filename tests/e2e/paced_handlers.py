"""Handlers that begin, wait and say how far they are, as the tests want it."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

from osqueue import current_job


def gated(paths):
    """Note that the job has begun, and wait until its gate is open."""
    place = Path(paths["place"])
    (place / f"begun-{paths['name']}").touch()
    while not (place / f"go-{paths['name']}").exists() and not (place / "go").exists():
        time.sleep(0.005)
    return paths["name"]


def short(value):
    time.sleep(0.002)
    return value


def say_progress(paths):
    """Say what a file holds, whenever there is one, until there is another."""
    place = Path(paths)
    while not (place / "go").exists():
        if (place / "say").exists():
            fraction, _, message = (place / "say").read_text().partition(" ")
            (place / "say").unlink()
            current_job().progress(float(fraction), message)
            (place / "said").touch()
        time.sleep(0.005)
    return "went"


def say_many(paths):
    """Many words in a row, from several threads, the last of them last."""
    job = current_job()
    threads = [threading.Thread(target=lambda: [job.progress(n / 20_000) for n in range(10_000)]) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    job.progress(0.75, "the last word")
    Path(paths, "said").touch()
    while not Path(paths, "go").exists():
        time.sleep(0.005)


def leave_a_stray_thread(place):
    """Return, and leave a thread that goes on telling of the job."""
    job = current_job()

    def tell():
        while not Path(place, "stop").exists():
            job.progress(0.5, "stray")
            time.sleep(0.001)

    threading.Thread(target=tell, daemon=True).start()


def say_in_a_fork(place):
    """A forked child says something, and ends; the worker goes on."""
    job = current_job()
    job.progress(0.25, "before")
    child = os.fork()
    if child == 0:
        job.progress(0.9, "from the child")
        os._exit(0)
    os.waitpid(child, 0)
    Path(place, "said").touch()
    while not Path(place, "go").exists():
        time.sleep(0.005)
    return "went"


def misuse_progress(value):
    """What a wrong word raises, by name."""
    fraction, message = {
        "text": ("x", ""),
        "none": (None, ""),
        "bool": (True, ""),
        "above": (1.01, ""),
        "below": (-0.01, ""),
        "nan": (float("nan"), ""),
        "huge": (10**400, ""),
        "message": (0.5, b"bytes"),
    }[value]
    try:
        current_job().progress(fraction, message)
    except Exception as error:  # noqa: BLE001
        return [type(error).__name__, str(error)]
    return None
