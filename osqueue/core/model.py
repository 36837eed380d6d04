"""What stands on disk, as structs: the root, segments, and the lines of the archive.

    queue.json (root) ──names──▶ segments/<number>-<epoch>.jsonl     waiting, deferred or dead jobs, immutable
           │                     archive/<hour>/<number>-<epoch>.…   finished jobs, immutable, found by name
           └─ inline: tail, deferred, dead, leases, sessions, finished

Rules:
* All live state is reachable from the root; only the root is ever replaced.
* A job's address is ``[object, slot]``: a segment's number and a place in it, or object 0, the root itself, where the
  slot is the job's id.
* Every struct here is described field by field in ``docs/format.md``; a change of meaning is a new format number.
"""

from __future__ import annotations

from typing import Literal

from msgspec import UNSET, Raw, Struct, UnsetType, structs

from osqueue.core.messages import Holder, JobError

FORMAT = 1
INLINE = 0
"""The object number that stands for the root itself."""


class Job(Struct, omit_defaults=True, gc=False, kw_only=True):
    """A job that is not finished, whole. Exactly one of ``payload`` and ``payload_base64`` is set."""

    id: int
    pushed_ms: int
    payload: Raw | UnsetType = UNSET
    payload_base64: bytes | UnsetType = UNSET
    task: str = "default"
    priority: int = 0
    timeout_s: float | None = None
    max_attempts: int | None = None
    attempts: int = 0
    granted: int = 0
    errors: tuple[JobError, ...] = ()
    due_ms: int = 0
    key: str = ""

    def payload_bytes(self) -> bytes:
        """The bytes that were pushed."""
        return bytes(self.payload) if self.payload is not UNSET else self.payload_base64  # type: ignore[return-value]

    def payload_size(self) -> int:
        """How many bytes were pushed; unlike ``len(payload_bytes())`` without copying them."""
        return len(self.payload if self.payload is not UNSET else self.payload_base64)  # type: ignore[arg-type]

    def apart(self) -> Job:
        """The same job for longer than its segment is in memory: a payload that was read is a view of the whole."""
        return self if self.payload is UNSET else structs.replace(self, payload=self.payload.copy())


class Span(Struct, array_like=True, gc=False):
    """One lane's slots in a segment: ``first`` … ``first + count``; what is below ``first + taken`` was handed out."""

    priority: int
    task: str
    first: int
    count: int
    taken: int


SegmentKind = Literal["ready", "deferred", "dead"]


class SegmentLine(Struct, array_like=True):
    """A segment as the root names it.

    ``ready`` ones hold what was pushed between their neighbours, so that their ids do not overlap. ``deferred`` ones
    hold jobs of one window of due time (`osqueue.core.windows`), ``dead`` ones jobs in the order of their death, a span
    for each task; both may hold any ids between the first and the last.
    """

    number: int
    epoch: int
    digest: str
    length: int
    first_id: int
    last_id: int
    pushed_ms: int
    """When its oldest job was pushed."""
    spans: list[Span]
    kind: SegmentKind = "ready"
    level: int = 0
    """Of a deferred one: the level of its window."""
    due_ms: int = 0
    """Of a deferred one: when the first of its jobs is due."""
    woken_ms: int = 0
    """Of a deferred one: jobs due up to then are ready, and counted so."""


class KeyLine(Struct, array_like=True, gc=False):
    """An entry of the log of keys: the hash of a key, and the job that took it; minus the job that let it go."""

    hash: str
    id: int


class KeyObject(Struct, array_like=True):
    """Older entries of the log of keys, as the root names them; ``count`` of them."""

    number: int
    epoch: int
    digest: str
    length: int
    count: int


class SegmentHead(Struct):
    """A segment's first line. Its jobs follow, one a line, by lane, then in the order in which they are handed out."""

    format: int
    number: int
    epoch: int


class Takeover(Struct, array_like=True, frozen=True):
    """A broker's beginning: its epoch, and the first root version and object number that were its own."""

    epoch: int
    first_version: int
    first_number: int
    owner: str


class RunLine(Struct, array_like=True, gc=False):
    """Slots of one object, ``first`` … ``last``; all of them, or those whose bit is set in ``mask``.

    ``mask`` is base64 of a bitmap whose lowest bit is slot ``first``. ``alone`` marks jobs whose holder was lost.
    """

    object: int
    first: int
    last: int
    attempt: int = 0
    alone: bool = False
    mask: str = ""


class LeaseLine(Struct, omit_defaults=True):
    """What one holder has taken. ``standing``: a supervisor's only lease, kept while empty."""

    number: int
    session: str
    runs: list[RunLine]
    worker: str = ""
    standing: bool = False
    holder: Holder | None = None


class SessionLine(Struct, array_like=True):
    """A client's numbered operations: the last one applied, and the encoded answers that it may not have seen."""

    id: str
    birth: int
    last: int = 0
    used: int = 0
    """Root version of its last operation."""
    answers: list[Raw] = []


class Counts(Struct, array_like=True):
    """Jobs of one task, by state. ``leased`` ones are ready or running: only their holders know."""

    pushed: int = 0
    ready: int = 0
    delayed: int = 0
    leased: int = 0
    succeeded: int = 0
    dead: int = 0
    discarded: int = 0
    cancelled: int = 0


class Record(Struct, gc=False, kw_only=True):
    """A finished job: one line of the archive."""

    id: int
    task: str
    payload: Raw | UnsetType = UNSET
    payload_base64: bytes | UnsetType = UNSET
    state: Literal["succeeded", "dead", "cancelled"]
    attempts: int
    errors: tuple[JobError, ...]
    result: Raw | UnsetType = UNSET
    result_base64: bytes | UnsetType = UNSET
    pushed_at: str
    started_at: str | None
    finished_at: str
    worker: str | None
    priority: int | UnsetType = UNSET
    key: str | UnsetType = UNSET


class Frame(Struct, kw_only=True):
    """The root's counters and what decides which objects are real."""

    format: int = FORMAT
    version: int = 0
    epoch: int = 0
    owner: str | None = None
    nonce: str = ""
    now_ms: int = 0
    next_id: int = 1
    next_object: int = 1
    next_lease: int = 1
    forgotten: int = 0
    swept: int = 0
    pruned: int | UnsetType = UNSET
    """Jobs that have neither a place nor a record any more; left out while there are none."""
    keys_since: int | UnsetType = UNSET
    """Keys of jobs below this id are forgotten; left out while none are."""
    takeovers: list[Takeover] = []
    trash: list[str] = []


class Root(Frame, kw_only=True):
    """``queue.json``: the frame and, section by section, everything that lives."""

    tasks: dict[str, Counts] = {}
    segments: list[SegmentLine] = []
    holes: list[RunLine] = []
    tail: list[Job] = []
    deferred: list[Job] = []
    dead: list[Job] = []
    keys: list[KeyLine] = []
    key_objects: list[KeyObject] = []
    leases: list[LeaseLine] = []
    returned: list[RunLine] = []
    sessions: list[SessionLine] = []
    finished: list[Raw] = []
    digest: str = ""
