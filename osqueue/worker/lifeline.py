"""A worker and the children of its handlers end with their supervisor, whatever they are doing.

First line, Linux: the worker leads a process group, and the kernel sends SIGKILL to all of it when the life pipe, which
nobody ever writes to, loses its last writer; C code that holds the interpreter's lock is no obstacle.
Second line: the reader thread watches the supervisor's pidfd, since a process that the user forked may hold the pipe's
other end. Other systems have end-of-file on the life pipe alone.

(`PR_SET_PDEATHSIG` does nothing under ``forkserver``: there the parent is the fork server, which lives on.)
"""

from __future__ import annotations

import os
import select
import signal
import sys
from typing import NoReturn

from osqueue import host

if sys.platform == "linux":
    import fcntl

ON_LINUX = sys.platform == "linux"
CANNOT_SPEAK = 74
"""Exit status of a worker whose socket is closed though its supervisor lives."""


def lead_group() -> None:
    """Make this process the leader of a process group of its own."""
    if os.getpgrp() != os.getpid():
        os.setpgid(0, 0)


def die_with_pipe(life: int) -> None:
    """Have the kernel kill this process group when the pipe's last writer is gone."""
    if sys.platform == "linux":
        # The owner belongs to the open pipe end, so each worker needs a pipe of its own.
        fcntl.fcntl(life, fcntl.F_SETOWN, -os.getpid())
        fcntl.fcntl(life, fcntl.F_SETSIG, signal.SIGKILL)
        fcntl.fcntl(life, fcntl.F_SETFL, fcntl.fcntl(life, fcntl.F_GETFL) | os.O_ASYNC)
    watch = select.poll()
    watch.register(life, 0)
    if watch.poll(0):
        die()  # it was gone before the kernel could be asked to tell


def watch_supervisor(pid: int, started: int) -> int | None:
    """A descriptor that turns readable when the supervisor's process has ended; None where there are none such.

    Does not return if it has ended already.
    """
    descriptor = host.open_pidfd(pid)
    now_started = host.start_time(pid)
    if now_started is None or (started and now_started != started):
        die()
    return descriptor


def die() -> NoReturn:
    """End this process and its handlers' children at once; nobody is left to tell."""
    if os.getpgrp() == os.getpid():
        os.killpg(os.getpid(), signal.SIGKILL)
    os.kill(os.getpid(), signal.SIGKILL)
    os._exit(1)
