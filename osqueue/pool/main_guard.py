"""What a program with a pool needs since its workers import its main module: the ``if __name__ == "__main__":``.

A script that is read from standard input has no file that could be imported, only the name ``<stdin>`` for one. Workers
go without its main module then, as with ``python -c``; handlers of other modules work.
"""

from __future__ import annotations

import multiprocessing
import os
import sys

from osqueue.worker_process import NO_MAIN_GUARD

_STDIN = "<stdin>"


def refuse_without_main_guard() -> None:
    """End a process that is only importing the main module, to become somebody's child, before anything starts.

    Raises:
        RuntimeError: it is such a process, and none of a pool's workers.
    """
    _forget_stdin_as_main()
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


def _forget_stdin_as_main() -> None:
    main = sys.modules.get("__main__")
    name = getattr(main, "__file__", None)
    if main is not None and name == _STDIN and main.__spec__ is None and not os.path.exists(name):
        del main.__file__  # multiprocessing would have every worker run a file of that name
