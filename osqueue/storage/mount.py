"""What kind of file system a directory is on, and what that means for a queue.

    network   refused: locks and renames there do not hold what a queue promises
    memory    announced: atomic, but gone after a power cut
    durable   where a written and synced file stays
    unknown   announced: nobody has tried

The kind's name alone decides.
"""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path
from typing import Literal

Durability = Literal["network", "memory", "durable", "unknown"]

_NETWORK = frozenset({"nfs", "nfs4", "cifs", "smb2", "smb3", "smbfs", "sshfs", "fuse.sshfs", "9p", "afpfs", "webdav"})
_MEMORY = frozenset({"tmpfs", "ramfs"})
_DURABLE = frozenset({"ext3", "ext4", "xfs", "btrfs", "zfs", "f2fs", "overlay", "apfs", "hfs"})


def durability_of(kind: str) -> Durability:
    """What may be expected of a kind of file system."""
    if kind in _NETWORK:
        return "network"
    if kind in _MEMORY:
        return "memory"
    return "durable" if kind in _DURABLE else "unknown"


def kind_of_mount(descriptor: int) -> str:
    """The name of the file system's kind, such as ``ext4`` or ``fuse.sshfs``; empty if it cannot be learnt."""
    if sys.platform == "darwin":
        return _kind_by_statfs(descriptor)
    return _kind_by_proc(descriptor)


def _kind_by_proc(descriptor: int) -> str:
    """By the number of the mount that the descriptor was opened through.

    Device numbers would not do (btrfs has one per subvolume), nor would statfs, which says FUSE for all of its kinds.
    """
    try:
        described = Path(f"/proc/self/fdinfo/{descriptor}").read_text(encoding="ascii")
        mounts = os.fsdecode(Path("/proc/self/mountinfo").read_bytes())
    except OSError:
        return ""  # no /proc here: the kind stays unknown, which is announced
    number = next((line.split()[1] for line in described.splitlines() if line.startswith("mnt_id:")), None)
    for line in mounts.splitlines():
        before, _, after = line.partition(" - ")
        if before.split(" ", 1)[0] == number:
            return after.split(" ", 1)[0]
    return ""


def _kind_by_statfs(descriptor: int) -> str:
    """By ``fstatfs`` of macOS, whose answer has the name as 16 characters after 72 bytes of numbers."""
    answer = ctypes.create_string_buffer(4096)
    library = ctypes.CDLL(None, use_errno=True)
    call = getattr(library, "fstatfs$INODE64", None) or library.fstatfs
    if call(descriptor, answer) != 0:
        return ""
    return answer.raw[72:88].split(b"\0", 1)[0].decode("ascii", "replace")
