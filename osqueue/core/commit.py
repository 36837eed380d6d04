"""What the next commit writes: objects to create, the root's bytes, objects that nobody needs afterwards.

Rules:
* Every section of the root has a budget; at a plan, what is over it is sealed into objects.
* A section's bytes are kept and made again only when it has changed.
* The takeover's own commit creates no object.
"""

from __future__ import annotations

from typing import Literal

from msgspec import Struct, json

from osqueue.core import codec
from osqueue.core.finished import INLINE_BYTES
from osqueue.core.inline import InlineList
from osqueue.core.sealing import Sealing, worth_rewriting
from osqueue.core.segment import Segment
from osqueue.core.state import QueueState

TAIL_BYTES = 22 * 1024
DEFERRED_BYTES = 5 * 1024
DEAD_BYTES = 4 * 1024
Section = Literal["segments", "holes"] | InlineList
"""Those of the root's sections that are large, and mostly as they were."""


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
        sealing = Sealing(state.backlog, self._allocate, now_ms)
        if self._is_over("tail", TAIL_BYTES):
            sealing.seal_tail()
        if self._is_over("deferred", DEFERRED_BYTES):
            sealing.spill_deferred()
        if self._is_over("dead", DEAD_BYTES):
            sealing.spill_dead()
        objects = self._followed(sealing)
        objects.update(state.keys.seal(self._allocate))
        state.wanted.update(state.keys.crowded)
        self._split(objects, now_ms)
        self._rewrite(objects, now_ms)
        while state.finished.size >= INLINE_BYTES or (closing and len(state.finished)):
            number, epoch = self._allocate()
            key, data = state.finished.seal(number, epoch, codec.hour(now_ms))
            objects[key] = data
        return objects

    def _is_over(self, name: InlineList, budget: int) -> bool:
        return self._state.backlog.inline.size_bytes[name] > budget or len(self._section(name)) > budget

    def _split(self, objects: dict[str, bytes], now_ms: int) -> None:
        """Write segments whose window of due time has opened anew, each job into its finer window."""
        for segment in self._in_memory(self._state.backlog.deferred.to_split()):
            self._write_anew([segment], objects, now_ms)

    def _rewrite(self, objects: dict[str, bytes], now_ms: int) -> None:
        """Write segments anew that are worth it, once they are in memory."""
        backlog = self._state.backlog
        while self._sealed_lately or "holes" in backlog.dirty:
            segments = worth_rewriting(backlog, now_ms)
            if len(self._in_memory(segments)) < len(segments):
                return
            self._sealed_lately = False
            if not segments:
                return
            self._write_anew(segments, objects, now_ms)

    def _in_memory(self, segments: list[Segment]) -> list[Segment]:
        """Those that are in memory; the others are read for the next commit."""
        self._state.wanted |= {segment.key for segment in segments if segment.jobs is None}
        return [segment for segment in segments if segment.jobs is not None]

    def _write_anew(self, segments: list[Segment], objects: dict[str, bytes], now_ms: int) -> None:
        sealing = Sealing(self._state.backlog, self._allocate, now_ms)
        sealing.rewrite(segments, self._state.leases.held())
        for segment in segments:
            if objects.pop(segment.key, None) is not None:
                self._state.backlog.trash.remove(segment.key)  # of this very commit: it has never been anywhere
        objects.update(self._followed(sealing))

    def _followed(self, sealing: Sealing) -> dict[str, bytes]:
        """The new segments' bytes, after the leases have followed the jobs that they hold."""
        if sealing.objects:
            for lease in self._state.leases.all():
                lease.runs.move(sealing.moves)
            sealing.count_leased(self._state.leases.held())
            self._sealed_lately = True
        return sealing.objects

    def _allocate(self) -> tuple[int, int]:
        number = self._state.frame.next_object
        self._state.frame.next_object += 1
        return number, self._state.frame.epoch

    def _collect_trash(self) -> list[str]:
        trash = self._state.backlog.trash + self._state.keys.take_trash()
        self._state.backlog.trash.clear()
        self._state.frame.trash = self._state.frame.trash + trash
        return trash

    # ------------------------------------------------------------------------------------------------------- encoding

    def _encoded(self) -> list[tuple[str, bytes]]:
        state = self._state
        names: tuple[Section, ...] = ("segments", "holes", "tail", "deferred", "dead")
        return [
            ("tasks", state.counts.encoded()),
            *((name, self._section(name)) for name in names),
            ("keys", json.encode(state.keys.lines())),
            ("key_objects", json.encode(state.keys.objects())),
            ("leases", state.leases.encoded()),
            ("returned", json.encode(state.backlog.lanes.returned().lines())),
            ("sessions", state.sessions.encoded()),
            ("finished", state.finished.encoded()),
        ]

    def _section(self, name: Section) -> bytes:
        dirty = self._state.backlog.dirty
        if name in dirty or name not in self._sections:
            self._sections[name] = json.encode(self._lines(name))
            dirty.discard(name)
        return self._sections[name]

    def _lines(self, name: Section) -> list[object]:
        backlog = self._state.backlog
        match name:
            case "segments":
                return [segment.line for segment in (*backlog.located.ready(), *backlog.located.spilled())]
            case "holes":
                return list(backlog.holes.lines())
            case _:
                return list(backlog.inline.listed(name))
