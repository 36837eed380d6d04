"""What a directory must be to hold a queue: ours alone, writable, on this machine's disk, and a queue or empty."""

from __future__ import annotations

from osqueue.errors import AccessDenied
from osqueue.storage.creation import MARKER_KEY, OBJECT_DIRECTORIES, ROOT_KEY
from osqueue.storage.files import Entry, Files
from osqueue.storage.mount import durability_of
from osqueue.storage.publishing import TEMPORARY_PREFIX
from osqueue.storage.tree import RESERVED_NAMES, open_below

_OTHERS_WRITE = 0o022
_OWNER_ALL = 0o700
_SUPERUSER = 0


def check_admission(files: Files, root: int, where: str) -> None:
    """Refuse a directory that cannot become a queue or should not, without changing anything.

    Args:
        files: the system calls.
        root: the open directory.
        where: its path, for messages.

    Raises:
        AccessDenied: it is another user's, others can write to it, or we cannot.
        ValueError: it holds something else, or is on a network file system.
    """
    _check_ours(files, root, where)
    if files.space(root).read_only:
        raise AccessDenied(f"the file system is mounted read-only; mount it for writing: path={where}")
    kind = files.kind(root)
    if durability_of(kind) == "network":
        raise ValueError(
            "a queue cannot be on a network file system, whose locks do not hold; choose a local directory, or serve "
            f"the queue from the machine that has the disk: path={where} {kind=!s}"
        )
    _check_content(files, root, where)


def _check_ours(files: Files, root: int, where: str) -> None:
    status = files.status(root)
    if status.owner != files.user():
        raise AccessDenied(
            "the directory belongs to another user; run as that user, or choose a directory of your own: "
            f"path={where} owner={status.owner} user={files.user()}"
        )
    mode = f"{status.permissions:04o}"
    if status.permissions & _OTHERS_WRITE:
        raise AccessDenied(f"others can write to the directory; take that away with chmod go-w: path={where} {mode=!s}")
    if status.permissions & _OWNER_ALL != _OWNER_ALL and files.user() != _SUPERUSER:
        raise AccessDenied(f"the directory is not writable; allow it with chmod u+rwx: path={where} {mode=!s}")


def _check_content(files: Files, root: int, where: str) -> None:
    entries = files.entries(root)
    if any(entry.name in (ROOT_KEY, MARKER_KEY) for entry in entries):
        return
    foreign = sorted(entry.name for entry in entries if not _may_precede_a_queue(files, root, entry))
    if foreign:
        raise ValueError(
            "the directory is not empty and holds no queue; choose an empty or a new one: "
            f"path={where} found={foreign[0]!r} entries={len(foreign)}"
        )


def _may_precede_a_queue(files: Files, root: int, entry: Entry) -> bool:
    """Whether it may stand in a directory whose first root was never written."""
    if entry.name in RESERVED_NAMES or entry.name in OBJECT_DIRECTORIES or entry.name.startswith(TEMPORARY_PREFIX):
        return True
    if not entry.is_directory:
        return False
    with open_below(files, root, [entry.name]) as inside:
        return not files.entries(inside)
