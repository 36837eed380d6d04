"""Who runs on this host, and whether they still do.

A lease of a local process names its boot, pid namespace, pid and start time: together they name one process for ever,
since a pid alone is used again. Linux answers from ``/proc``; other systems from ``ps`` and ``sysctl``, to the second.

Every function may be called from any thread and from a process that has forked.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

from osqueue.core.messages import Holder
from osqueue.errors import Rejected

_PROC = Path("/proc")
_ON_LINUX = sys.platform == "linux"
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 0
_RESIDENT = 1
"""Which number of ``/proc/PID/statm`` it is, in pages."""
_GONE_STATES = frozenset("ZXx")
"""A zombie runs nothing more: its leases have ended, though nobody has reaped it yet."""


def refuse_windows() -> None:
    """Refuse to open a queue, or to start workers, on a system that has no way to do it.

    Raises:
        Rejected: this is Windows.
    """
    if sys.platform == "win32":
        raise Rejected("osqueue needs Linux or macOS; on Windows run the program inside WSL")


def this_process(blame: str = "") -> Holder:
    """The calling process, as the holder of a lease.

    Args:
        blame: path of its blame file below the queue directory; empty for none.
    """
    pid = os.getpid()
    return Holder(
        boot=boot_id(),
        pid_namespace=_pid_namespace(),
        pid=pid,
        started=start_time(pid) or 0,
        blame=blame,
    )


def is_running(holder: Holder) -> bool | None:
    """Whether that very process still runs.

    Returns:
        True: it runs (or is stopped). False: it has ended, or the host has rebooted since. None: it cannot be known
        from here, because it lives in another pid namespace or is hidden; treat it as a remote holder.
    """
    boot = boot_id()
    if holder.boot and boot and holder.boot != boot:
        return False
    if holder.pid_namespace != _pid_namespace():
        return None
    if _ON_LINUX:
        return _runs_by_proc(holder)
    if not _exists(holder.pid):
        return False
    started = start_time(holder.pid)
    if started is None:
        return False
    return holder.started in (0, started)


def open_pidfd(pid: int) -> int | None:
    """A descriptor that becomes readable when the process ends; the caller closes it.

    Open it first and ask `is_running` afterwards: a pid may have been used again before the descriptor was opened.

    Returns:
        None: the process is gone, or this system has no such descriptors. Ask `is_running` from time to time instead.
    """
    opener = getattr(os, "pidfd_open", None)
    if opener is None:
        return None
    try:
        descriptor: int = opener(pid)
    except OSError:
        return None  # ESRCH: gone; ENOSYS, EPERM: an old kernel or a seccomp filter. `is_running` tells them apart.
    return descriptor


def boot_id() -> str:
    """What changes with each start of the system; empty where it cannot be learnt."""
    if _ON_LINUX:
        return _read_text(_PROC / "sys/kernel/random/boot_id")
    return _output_of("sysctl", "-n", "kern.bootsessionuuid")


def start_time(pid: int) -> int | None:
    """When a process started: clock ticks since boot on Linux, seconds since 1970 elsewhere; None if it is gone."""
    if _ON_LINUX:
        fields = _stat_fields(pid)
        return None if fields is None else int(fields[19])
    return start_time_by_ps(pid)


def start_time_by_ps(pid: int) -> int | None:
    """When a process started, in seconds since 1970, by the ``ps`` of any POSIX system; None if it is gone."""
    text = _output_of("ps", "-o", "lstart=", "-p", str(pid))
    if not text:
        return None
    return round(datetime.strptime(text, "%a %b %d %H:%M:%S %Y").replace(tzinfo=UTC).timestamp())


def resident_bytes(pid: int) -> int | None:
    """How much memory a process has resident; None if it is gone, or there is no ``/proc``."""
    try:
        with open(_PROC / str(pid) / "statm", "rb") as statm:
            return int(statm.read().split()[_RESIDENT]) * _PAGE_BYTES or None
    except (OSError, IndexError):
        return None


def own_resident_bytes() -> int:
    """How much memory this process has resident; where there is no ``/proc``, the most that it ever had."""
    now = resident_bytes(os.getpid())
    if now is not None:
        return now
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _runs_by_proc(holder: Holder) -> bool | None:
    fields = _stat_fields(holder.pid)
    if fields is None:
        # ``hidepid`` hides the processes of other users; a signal of number 0 still finds them.
        return None if _exists(holder.pid) else False
    if fields[0] in _GONE_STATES:
        return False
    return holder.started in (0, int(fields[19]))


def _stat_fields(pid: int) -> list[str] | None:
    """``/proc/PID/stat`` from its third field on: the second is a command name that may hold blanks and brackets."""
    text = _read_text(_PROC / str(pid) / "stat")
    if not text:
        return None
    return text[text.rindex(")") + 2 :].split()


def _pid_namespace() -> str:
    try:
        return os.readlink(_PROC / "self/ns/pid")
    except OSError:
        return ""  # not Linux, or no /proc: one namespace for all


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""  # the process is gone (ENOENT, ESRCH), or there is no /proc


def _output_of(*command: str) -> str:
    environment = {**os.environ, "LC_ALL": "C", "TZ": "UTC"}
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""  # no such program here: the answer stays unknown, and callers treat it so
    return done.stdout.strip() if done.returncode == 0 else ""
