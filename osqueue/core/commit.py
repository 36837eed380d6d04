"""What the next commit writes: objects to create, the root's bytes, objects that nobody needs afterwards.

Rules:
* Every section of the root has a budget; at a plan, what is over it is sealed into objects.
* A section's bytes are kept and made again only when it has changed.
* The takeover's own commit creates no object.
"""

from __future__ import annotations

from msgspec import Struct, json, structs

from osqueue.core import codec
from osqueue.core.finished import INLINE_BYTES
from osqueue.core.sealing import Sealing, worth_rewriting
from osqueue.core.state import QueueState

TAIL_BYTES = 22 * 1024


class Commit(Struct, frozen=True):
    """One commit: create ``objects``, then swap the root, then let out, then delete ``trash``."""

    version: int
    root: bytes
    objects: dict[str, bytes]
    trash: list[str]


class CommitPlanner:
    """Makes commits from the state. Not thread-safe; owned by the machine."""

    def __init__(self, state: QueueState) -> None:
        self._state = state
        self._sections: dict[str, bytes] = {}
        self._sealed_lately = True

    def plan(self, *, now_ms: int, nonce: str, creates: bool = True, closing: bool = False) -> Commit:
        """Everything that has been applied, as one commit.

        Args:
            now_ms: the time, which stands in the root.
            nonce: random, so that no two roots have the same bytes.
            creates: False for a takeover, which makes no objects.
            closing: seal the finished jobs too, however few.
        """
        state = self._state
        objects = self._seal(now_ms, closing=closing) if creates else {}
        trash = self._collect_trash()
        frame = state.frame
        frame.version += 1
        frame.nonce = nonce
        frame.now_ms = max(frame.now_ms, now_ms)
        frame.forgotten = state.sessions.forgotten
        state.changed = state.sessions.changed = False
        return Commit(frame.version, codec.encode_root(frame, self._encoded()), objects, trash)

    # -------------------------------------------------------------------------------------------------------- sealing

    def _seal(self, now_ms: int, *, closing: bool) -> dict[str, bytes]:
        state = self._state
        objects: dict[str, bytes] = {}
        if state.backlog.tail_bytes > TAIL_BYTES or len(self._section("tail")) > TAIL_BYTES:
            self._write(objects)
        self._rewrite(objects)
        while state.finished.size > INLINE_BYTES or (closing and len(state.finished)):
            number, epoch = self._allocate()
            key, data = state.finished.seal(number, epoch, codec.hour(now_ms))
            objects[key] = data
        return objects

    def _write(self, objects: dict[str, bytes]) -> None:
        sealing = Sealing(self._state.backlog, self._allocate)
        sealing.seal_tail()
        self._follow(sealing, objects)

    def _rewrite(self, objects: dict[str, bytes]) -> None:
        """Write segments anew that are worth it, once they are in memory."""
        backlog = self._state.backlog
        if not self._sealed_lately and "holes" not in backlog.dirty:
            return
        segments = worth_rewriting(backlog)
        missing = {segment.key for segment in segments if segment.jobs is None}
        self._state.wanted |= missing
        if missing:
            return
        self._sealed_lately = False
        if segments:
            sealing = Sealing(backlog, self._allocate)
            sealing.rewrite(segments, self._state.leases.held())
            self._follow(sealing, objects)

    def _follow(self, sealing: Sealing, objects: dict[str, bytes]) -> None:
        for lease in self._state.leases.all():
            lease.runs.move(sealing.moves)
        sealing.count_leased(self._state.leases.held())
        objects.update(sealing.objects)
        self._sealed_lately = True

    def _allocate(self) -> tuple[int, int]:
        number = self._state.frame.next_object
        self._state.frame.next_object += 1
        return number, self._state.frame.epoch

    def _collect_trash(self) -> list[str]:
        trash = list(self._state.backlog.trash)
        self._state.backlog.trash.clear()
        self._state.frame.trash = self._state.frame.trash + trash
        return trash

    # ------------------------------------------------------------------------------------------------------- encoding

    def _encoded(self) -> list[tuple[str, bytes]]:
        state = self._state
        names = ("segments", "holes", "tail", "deferred", "dead")
        return [
            ("tasks", state.counts.encoded()),
            *((name, self._section(name)) for name in names),
            ("leases", state.leases.encoded()),
            ("returned", json.encode(state.backlog.returned().lines())),
            ("sessions", state.sessions.encoded()),
            ("finished", state.finished.encoded()),
        ]

    def _section(self, name: str) -> bytes:
        dirty = self._state.backlog.dirty
        if name in dirty or name not in self._sections:
            self._sections[name] = json.encode(self._lines(name))
            dirty.discard(name)
        return self._sections[name]

    def _lines(self, name: str) -> list[object]:
        backlog = self._state.backlog
        match name:
            case "segments":
                return [segment.line for segment in backlog.in_order()]
            case "holes":
                return list(backlog.holes.lines())
            case "tail":
                return [backlog.inline[job_id] for job_id in backlog.tail]
            case "deferred":
                return [backlog.inline[job_id] for job_id in backlog.deferred]
            case _:
                return [backlog.inline[job_id] for job_id in backlog.dead]


def without(root: bytes, *sections: str) -> dict[str, object]:
    """A root's sections as plain values, without some of them and without what differs in every commit; for tests."""
    values = structs.asdict(codec.decode_root(root))
    for name in (*sections, "version", "nonce", "now_ms", "digest"):
        values.pop(name, None)
    return {name: json.encode(value) for name, value in values.items()}
