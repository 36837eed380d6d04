"""The numbered operations, in the order of a job's life: push, report, cancel, requeue, discard.

Each checks first and changes last: it returns `Refused`, or raises `NeedsObjectsError`, before anything has changed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import assert_never

from msgspec import UNSET, Raw, structs

from osqueue.core import codec, policy
from osqueue.core.backlog import Place
from osqueue.core.messages import (
    MAX_DELAY_S,
    MAX_IDS,
    AnswerBody,
    Cancel,
    Cancelled,
    Changed,
    Discard,
    Operation,
    Outcome,
    Push,
    Pushed,
    Refused,
    Report,
    Reported,
    Requeue,
)
from osqueue.core.model import INLINE, Job
from osqueue.core.runs import to_runs
from osqueue.core.state import QueueState

MAX_TASK_BYTES = 64
MAX_PRIORITY = 1000


class Operations:
    """Applies operations of a session to the queue's state."""

    def __init__(self, state: QueueState, seed: str) -> None:
        self._state = state
        self._seed = seed

    def apply(self, session: str, operation: Operation, now_ms: int) -> AnswerBody:
        """Apply one operation.

        Raises:
            NeedsObjectsError: segments must be in memory first; nothing has changed.
        """
        if isinstance(operation, Cancel | Requeue | Discard) and len(operation.ids) > MAX_IDS:
            return Refused("rejected", f"too many ids in one operation ids={len(operation.ids)} limit={MAX_IDS}")
        match operation:
            case Push():
                return self._push(session, operation, now_ms)
            case Report():
                return self._report(session, operation, now_ms)
            case Cancel():
                return self._cancel(operation, now_ms)
            case Requeue():
                return self._requeue(operation, now_ms)
            case Discard():
                return self._discard(operation, now_ms)
            case _:
                assert_never(operation)

    # --------------------------------------------------------------------------------------------------------- push

    def _push(self, session: str, push: Push, now_ms: int) -> AnswerBody:
        if (refusal := self._refuse_push(push)) is not None:
            return refusal
        state = self._state
        due_ms = policy.due_ms(now_ms, push.delay_s)
        first = state.frame.next_id
        count = len(push.payloads)
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
            )
            for job_id, payload, clean in zip(
                range(first, first + count), push.payloads, codec.clean(push.payloads), strict=True
            )
        ]
        state.frame.next_id += count
        if push.delay_s > 0:
            for job in jobs:
                state.backlog.defer(job, now_ms)
        elif jobs:
            state.backlog.push(jobs)
        if push.watch:
            state.watchers.watch((job.id for job in jobs), session)
        state.counts.move(push.task, None, "delayed" if due_ms > now_ms else "ready", count)
        state.counts[push.task].pushed += count
        return Pushed([(first, first + count - 1)] if count else [])

    def _refuse_push(self, push: Push) -> Refused | None:
        state = self._state
        if not push.task or len(push.task.encode()) > MAX_TASK_BYTES:
            return Refused("rejected", f"a task's name has 1 to {MAX_TASK_BYTES} bytes task={push.task!r}")
        if abs(push.priority) > MAX_PRIORITY:
            limit = f"priority must be between -{MAX_PRIORITY} and {MAX_PRIORITY}"
            return Refused("rejected", f"{limit} priority={push.priority}")
        if not 0 <= push.delay_s <= MAX_DELAY_S:
            return Refused("rejected", f"delay must be between 0 and {MAX_DELAY_S} seconds delay={push.delay_s}")
        limit_bytes = state.settings.max_payload_bytes
        for payload in push.payloads:
            if len(payload) > limit_bytes:
                why = "the payload is larger than max_payload; store it elsewhere and push a reference"
                return Refused("payload_too_large", f"{why} bytes={len(payload)} max_payload={limit_bytes}")
        if not state.has_room:
            return Refused("queue_full", "the disk is nearly full; completions still fit, new jobs do not")
        if not state.counts.can_add(push.task):
            why = "jobs of too many tasks are unfinished or dead; use fewer task names, or wait"
            return Refused("queue_full", f"{why} limit=4 KiB of counts by task")
        if not state.backlog.can_add_lane(push.priority, push.task):
            return Refused("queue_full", "too many lanes (pairs of priority and task) have waiting jobs limit=256")
        return None

    # ------------------------------------------------------------------------------------------------------- report

    def _report(self, session: str, report: Report, now_ms: int) -> AnswerBody:
        lease = self._state.leases.get(report.lease)
        if lease is None or lease.session != session:
            return Reported(to_runs(sorted(outcome.id for outcome in report.outcomes)))
        if wrong := [outcome.id for outcome in report.outcomes if not _is_sayable(outcome)]:
            return Refused("rejected", f"an outcome's times or delay are out of range id={wrong[0]}")
        places = self._state.backlog.locate([outcome.id for outcome in report.outcomes])
        clean = codec.clean([o.result if o.verdict == "succeeded" else b"0" for o in report.outcomes])
        lost = []
        succeeded: list[Place] = []
        for outcome, place, is_clean in zip(report.outcomes, places, clean, strict=True):
            if place is None or (run := lease.release(place, outcome.attempt)) is None:
                lost.append(outcome.id)
                continue
            outcome.worker = policy.clip(outcome.worker) or lease.worker
            if outcome.verdict == "succeeded":
                succeeded.append(place)
                self._state.finish(place.job, "succeeded", now_ms=now_ms, outcome=outcome, clean=is_clean)
            else:
                self._settle(place, outcome, now_ms, alone=run[3])
        self._remove(succeeded)
        if not lease.standing and not lease.runs:
            self._state.leases.end(lease)
        return Reported(to_runs(sorted(lost)))

    def _remove(self, succeeded: list[Place]) -> None:
        """Jobs that have just succeeded leave their places."""
        for task, count in Counter([place.job.task for place in succeeded]).items():
            self._state.counts.move(task, "leased", "succeeded", count)
        self._state.backlog.remove_leased(succeeded)

    def _settle(self, place: Place, outcome: Outcome, now_ms: int, *, alone: bool) -> None:
        """An attempt that its lease has just let go and that has not succeeded."""
        state = self._state
        match outcome.verdict:
            case "failed" | "dead":
                state.charge(place, outcome, now_ms=now_ms, seed=self._seed)
            case "returned":
                state.give_back([(place.object, place.slot, place.slot, outcome.attempt, alone)])
            case "cancelled":
                self._end(place, outcome, now_ms)
            case "succeeded":
                raise AssertionError("a success is not settled here")
            case _:
                assert_never(outcome.verdict)

    # --------------------------------------------------------------------------------------- cancel, requeue, discard

    def _cancel(self, cancel: Cancel, now_ms: int) -> AnswerBody:
        state = self._state
        places = state.backlog.locate(cancel.ids)
        changed: set[int] = set()
        notices: dict[str, list[int]] = {}
        for job_id, place in zip(cancel.ids, places, strict=True):
            if place is None or job_id in state.backlog.dead or job_id in changed:
                continue
            if state.backlog.is_waiting(place):
                source = "delayed" if place.object == INLINE and state.backlog.is_delayed(place.slot) else "ready"
                state.backlog.remove_waiting(place)
                state.counts.move(place.job.task, source, "cancelled")
                state.finish(place.job, "cancelled", now_ms=now_ms)
            elif cancel.running and (lease := state.lease_of(place)) is not None:
                released = lease.release(place, place.job.attempts + 1)
                assert released is not None, "the lease that holds it lets it go"
                notices.setdefault(lease.session, []).append(job_id)
                self._end(place, None, now_ms)
                if not lease.standing and not lease.runs:
                    state.leases.end(lease)
            else:
                continue
            changed.add(job_id)
        state.outbox.extend((session, Cancelled(ids)) for session, ids in notices.items())
        if not changed:
            self._see_damage(job_id for job_id in cancel.ids if state.finished.get(job_id) is None)
        return Changed(to_runs(sorted(changed)), self._unknown(cancel.ids))

    def _see_damage(self, ids: Iterable[int]) -> None:
        """That a job "had ended" is more than anybody knows while its segment is damaged.

        Raises:
            Corrupt: one of these jobs may be there.
        """
        for damage in self._state.backlog.damage(ids).values():
            raise damage

    def _end(self, place: Place, outcome: Outcome | None, now_ms: int) -> None:
        """A leased job that is cancelled."""
        self._state.backlog.remove_leased([place])
        self._state.counts.move(place.job.task, "leased", "cancelled")
        self._state.finish(place.job, "cancelled", now_ms=now_ms, outcome=outcome)

    def _requeue(self, requeue: Requeue, now_ms: int) -> AnswerBody:
        state = self._state
        changed = [job_id for job_id in dict.fromkeys(requeue.ids) if job_id in state.backlog.dead]
        for job_id in changed:
            job = state.backlog.inline[job_id]
            state.backlog.forget_inline(job)
            state.backlog.defer(structs.replace(job, granted=job.attempts, due_ms=now_ms), now_ms)
            state.counts.move(job.task, "dead", "ready")
        return Changed(to_runs(sorted(changed)), self._unknown(requeue.ids))

    def _discard(self, discard: Discard, now_ms: int) -> AnswerBody:
        state = self._state
        changed = [job_id for job_id in dict.fromkeys(discard.ids) if job_id in state.backlog.dead]
        for job_id in changed:
            job = state.backlog.inline[job_id]
            state.backlog.forget_inline(job)
            state.counts.move(job.task, "dead", "discarded")
            state.finish(job, "dead", now_ms=now_ms)
        return Changed(to_runs(sorted(changed)), self._unknown(discard.ids))

    # ------------------------------------------------------------------------------------------------------ look-ups

    def _unknown(self, ids: Iterable[int]) -> list[int]:
        return sorted({job_id for job_id in ids if not 0 < job_id < self._state.frame.next_id})


def _is_sayable(outcome: Outcome) -> bool:
    """Whether its times can be written as dates and its delay is one; what follows may then not fail half-way."""
    delay_s = outcome.retry_delay_s
    if delay_s is not None and not 0 <= delay_s <= MAX_DELAY_S:
        return False
    return 0 <= outcome.started_ms <= codec.LAST_MS and 0 <= outcome.finished_ms <= codec.LAST_MS
