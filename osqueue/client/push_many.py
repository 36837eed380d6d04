"""Pushing any iterable: lazily, in batches that grow, with few in flight, in constant memory.

Rules:
* A batch starts small, so that the first jobs run early, and doubles up to what one operation may carry.
* A slow iterable's jobs do not wait for a batch to fill: one that is older than `BATCH_AGE_MS` leaves with the next
  item.
* While ``max_queued`` jobs wait, so does it, and pushes what fits whenever there is room. Then one batch is in flight
  at a time, since none may overtake the rest of the one before, and batches are about as large as what fits.
* An error ends it: what came before is pushed, and the error's ``pushed`` says how many. If it came from the iterable,
  a note says at which item.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator

from osqueue import clock
from osqueue.client.exchange import Operating
from osqueue.client.runs import Ids
from osqueue.core.messages import IdRun
from osqueue.core.settings import MIB
from osqueue.errors import OsqueueError

FIRST_BATCH_JOBS = 64
BATCH_JOBS = 10_000
BATCH_BYTES = MIB
BATCH_AGE_MS = 50
IN_FLIGHT = 4
_LEAST_OFFER = 16

Start = Callable[[list[bytes]], Operating[list[IdRun]]]


class PushMany:
    """One call of ``push_many``, in the caller's thread.

    Args:
        start: begins the push of one batch, of which as many are pushed as fit.
        wait_room: waits until something fits.
        many_in_flight: whether the queue is known to have no bound.
    """

    def __init__(self, start: Start, *, wait_room: Callable[[], None], many_in_flight: Callable[[], bool]) -> None:
        self._start = start
        self._wait_room = wait_room
        self._many_in_flight = many_in_flight
        self._limit = FIRST_BATCH_JOBS
        """Jobs of the next batch."""
        self._in_flight: deque[tuple[list[bytes], Operating[list[IdRun]]]] = deque()
        self._ids = Ids()
        self._source_error: Exception | None = None

    def run(self, payloads: Iterable[bytes]) -> Ids:
        """Push them all; the ids, in order.

        Raises:
            Exception: whatever the iterable raised, or an error of the push, with ``pushed`` set.
        """
        try:
            for batch in self._batches(payloads):
                self._settle(IN_FLIGHT - 1 if self._many_in_flight() else 0)
                self._in_flight.append((batch, self._start(batch)))
            self._settle(0)
            if self._source_error is not None:
                raise self._source_error
        except Exception as error:
            self._count_the_rest()
            self._say_where(error)
            raise
        return self._ids

    def _batches(self, payloads: Iterable[bytes]) -> Iterator[list[bytes]]:
        """The payloads in batches; an error of the iterable ends them and is kept for later."""
        batch: list[bytes] = []
        size = since_ms = 0
        for payload in self._until_error(payloads):
            if batch and size + len(payload) > BATCH_BYTES:
                yield batch
                batch, size = [], 0
            if not batch:
                since_ms = clock.boot_ms()
            batch.append(payload)
            size += len(payload)
            if len(batch) >= self._limit or clock.boot_ms() - since_ms >= BATCH_AGE_MS:
                yield batch
                batch, size = [], 0
                self._limit = min(2 * self._limit, BATCH_JOBS)
        if batch:
            yield batch

    def _until_error(self, payloads: Iterable[bytes]) -> Iterator[bytes]:
        try:
            yield from payloads
        except Exception as error:  # noqa: BLE001  kept, and raised when what came before it is pushed
            self._source_error = error

    def _settle(self, in_flight: int) -> None:
        """Wait until no more than so many batches are unanswered."""
        while len(self._in_flight) > in_flight:
            batch, operating = self._in_flight.popleft()
            fitted = self._count(operating)
            if fitted < len(batch):
                self._push_rest(batch[fitted:], fitted)

    def _count(self, operating: Operating[list[IdRun]]) -> int:
        before = len(self._ids)
        self._ids.extend(operating.result())
        return len(self._ids) - before

    def _push_rest(self, rest: list[bytes], fitted: int) -> None:
        """Push what did not fit, as there is room."""
        self._limit = _about(fitted)
        self._wait_room()
        while rest:
            part = rest[: self._limit]
            fitted = self._count(self._start(part))
            rest = rest[fitted:]
            if fitted == len(part):
                self._limit = min(2 * self._limit, BATCH_JOBS)
            elif rest:
                self._limit = _about(fitted)
                self._wait_room()

    def _count_the_rest(self) -> None:
        """After an error: wait for what is on its way, since the error's ``pushed`` counts it."""
        while self._in_flight:
            with contextlib.suppress(OsqueueError):  # the first error is the one to tell
                self._count(self._in_flight.popleft()[1])

    def _say_where(self, error: Exception) -> None:
        pushed = len(self._ids)
        with contextlib.suppress(AttributeError):  # an exception with slots cannot say it
            error.pushed = pushed  # type: ignore[attr-defined]
        if error is self._source_error:
            # All that came before it is pushed, so their number is its index.
            were = "job was" if pushed == 1 else "jobs were"
            error.add_note(f"item {pushed} of the iterable; {pushed} {were} pushed before it")


def _about(fitted: int) -> int:
    """How many to offer when so many have fitted: what does not fit is sent in vain."""
    return min(max(_LEAST_OFFER, 2 * fitted), BATCH_JOBS)
