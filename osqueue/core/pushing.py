"""How jobs come in: what a push may be refused for, and what it adds."""

from __future__ import annotations

from collections.abc import Iterable

from msgspec import UNSET, Raw, structs

from osqueue.core import codec, lane_order, policy
from osqueue.core.keys import MAX_KEY_BYTES, MAX_KEYS
from osqueue.core.messages import MAX_DELAY_S, AnswerBody, Push, Pushed, Refused
from osqueue.core.model import Job
from osqueue.core.state import QueueState

MAX_TASK_BYTES = 64
MAX_PRIORITY = 1000


class Pushing:
    """Adds jobs to the queue's state. Not thread-safe; owned by the operations."""

    def __init__(self, state: QueueState) -> None:
        self._state = state

    def push(self, session: str, push: Push, now_ms: int) -> AnswerBody:
        """Apply a client's push.

        Raises:
            NeedsObjectsError: objects of keys must be in memory first; nothing has changed.
            Corrupt: nobody can say who has the key.
        """
        if (holder := self._state.keys.holder(push.key)) is not None:
            return self._pushed(session, push, range(holder, holder + 1))
        if (refusal := self._refuse([push])) is not None:
            return refusal
        if not self._state.has_room:
            return Refused("queue_full", "the disk is nearly full: what room is left is kept for jobs to finish in")
        if (fitting := self._state.room(len(push.payloads))) < len(push.payloads):
            if not push.fitting:
                return self._refuse_above_bound(push)
            push = structs.replace(push, payloads=push.payloads[:fitting])
        return self._pushed(session, push, self._add(push, now_ms))

    def see_keys(self, pushes: Iterable[Push]) -> None:
        """Have it known who has the keys of some pushes, before anything changes.

        Raises:
            NeedsObjectsError, Corrupt: as `push`.
        """
        for push in pushes:
            self._state.keys.holder(push.key)

    def refuse_all(self, pushes: Iterable[Push], parent: Job) -> Refused | None:
        """Why a job's follow-ups cannot be pushed, all but those whose key another job has. `see_keys` comes first.

        Neither ``max_queued`` nor a disk that is nearly full is a bound for them: a job that could not end for it would
        never make room.
        """
        return self._refuse([push for push in pushes if self._state.keys.holder(push.key) in (None, parent.id)])

    def push_all(self, pushes: Iterable[Push], now_ms: int) -> None:
        """Push what `refuse_all` did not refuse, but for those whose key is held: two of them may have the same."""
        for push in pushes:
            if self._state.keys.holder(push.key) is None:
                self._add(push, now_ms)

    def _pushed(self, session: str, push: Push, ids: range) -> Pushed:
        if push.watch:
            self._state.watchers.watch(ids, session)
        return Pushed([(ids[0], ids[-1])] if ids else [])

    def _add(self, push: Push, now_ms: int) -> range:
        """Add the jobs of a push that may be added; their ids."""
        state = self._state
        due_ms = policy.due_ms(now_ms, push.delay_s)
        ids = range(state.frame.next_id, state.frame.next_id + len(push.payloads))
        jobs = [
            Job(
                id=job_id,
                pushed_ms=now_ms,
                payload=Raw(payload) if clean else UNSET,
                payload_base64=UNSET if clean else payload,
                task=push.task,
                priority=push.priority,
                timeout_s=push.timeout_s,
                max_attempts=push.max_attempts,
                due_ms=due_ms if push.delay_s > 0 else 0,
                key=push.key,
            )
            for job_id, payload, clean in zip(ids, push.payloads, codec.clean(push.payloads), strict=True)
        ]
        state.frame.next_id += len(jobs)
        if jobs and push.delay_s > 0:
            state.backlog.defer(jobs, now_ms)
        elif jobs:
            state.backlog.push(jobs)
        if push.key and jobs:
            state.keys.take(jobs[0])
        state.counts.move(push.task, None, "delayed" if due_ms > now_ms else "ready", len(jobs))
        state.counts[push.task].pushed += len(jobs)
        return ids

    def _refuse(self, pushes: list[Push]) -> Refused | None:
        """Why these cannot be added, all of them together."""
        refusal = next((refusal for push in pushes if (refusal := self._refuse_one(push)) is not None), None)
        if refusal is not None:
            return refusal
        state = self._state
        if not state.counts.can_add({push.task for push in pushes}):
            why = "jobs of too many tasks are unfinished or dead; use fewer task names, or wait"
            return Refused("queue_full", f"{why} limit=4 KiB of counts by task")
        if not state.backlog.lanes.can_add({(-push.priority, push.task) for push in pushes}):
            return Refused("queue_full", lane_order.TOO_MANY)
        keys = {push.key for push in pushes if push.key}
        if keys and not state.keys.have_room(len(keys)):
            return Refused("queue_full", f"too many unfinished jobs have keys; wait until some end limit={MAX_KEYS}")
        return None

    def _refuse_one(self, push: Push) -> Refused | None:
        """What is wrong with a push by itself."""
        if not push.task or len(push.task.encode()) > MAX_TASK_BYTES:
            return Refused("rejected", f"a task's name has 1 to {MAX_TASK_BYTES} bytes task={push.task!r}")
        if abs(push.priority) > MAX_PRIORITY:
            limit = f"priority must be between -{MAX_PRIORITY} and {MAX_PRIORITY}"
            return Refused("rejected", f"{limit} priority={push.priority}")
        if not 0 <= push.delay_s <= MAX_DELAY_S:
            return Refused("rejected", f"delay must be between 0 and {MAX_DELAY_S} seconds delay={push.delay_s}")
        if push.key and len(push.payloads) != 1:
            return Refused("rejected", f"a key is for one job key={push.key!r} jobs={len(push.payloads)}")
        if len(push.key) > MAX_KEY_BYTES or len(push.key.encode()) > MAX_KEY_BYTES:
            return Refused("rejected", f"a key has at most {MAX_KEY_BYTES} bytes key={push.key[:40]!r}")
        limit_bytes = self._state.settings.max_payload_bytes
        for payload in push.payloads:
            if len(payload) > limit_bytes:
                why = "the payload is larger than max_payload; store it elsewhere and push a reference"
                return Refused("payload_too_large", f"{why} bytes={len(payload)} max_payload={limit_bytes}")
        return None

    def _refuse_above_bound(self, push: Push) -> Refused:
        waiting, limit = self._state.waiting(), self._state.settings.max_queued
        way_out = "push again when some have begun, use push_many or map, which wait, or open with a larger max_queued"
        counted = f"waiting={waiting} pushing={len(push.payloads)} max_queued={limit}"
        return Refused("queue_full", f"as many jobs as may wait are waiting; {way_out} {counted}")
