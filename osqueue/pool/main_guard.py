"""The ``if __name__ == "__main__":`` that a program with a pool needs, since its workers import its main module."""

from __future__ import annotations

import multiprocessing
import os

from osqueue.worker_process import NO_MAIN_GUARD


def refuse_without_main_guard() -> None:
    """End a process that is only importing the main module, to become somebody's child, before anything starts.

    Raises:
        RuntimeError: it is such a process, and none of a pool's workers.
    """
    process = multiprocessing.current_process()
    if not getattr(process, "_inheriting", False):
        return
    if process.name.startswith("osqueue-worker"):
        # The pool that started this worker sees the status, and says what is wrong; once, not in every worker.
        os._exit(NO_MAIN_GUARD)
    raise RuntimeError(
        "a pool was made while the main module was being imported by a child process: "
        "put the code that makes it below  if __name__ == '__main__':"
    )
