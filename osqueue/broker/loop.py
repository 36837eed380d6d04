"""The commit loop, without I/O: events in, effects out.

    received ──▶ waiting ──apply──▶ open batch ──plan──▶ Create ──created──▶ Swap ──landed──▶ let out ──▶ Delete
                    ▲                                                            │
                    └── set aside while objects are read (Load ──loaded)         └── the next batch is applied meanwhile

Rules:
* One commit is in flight; at most one batch is applied ahead of it. An applied batch is never dropped or changed.
* Nothing leaves before the last batch applied before it has landed (the gate; see `osqueue.broker.effects`).
* Objects are created before the swap that names them, and deleted after the swap that drops them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import assert_never

from msgspec import structs

from osqueue.broker.chores import Chores
from osqueue.broker.connections import Connection, Connections
from osqueue.broker.effects import CloseConnection, Create, Delete, Effect, Forget, Leaving, Load, Lookup, Send, Swap
from osqueue.broker.prunes import Prunes
from osqueue.core.commit import Commit
from osqueue.core.ending import Attempt
from osqueue.core.machine import QueueMachine
from osqueue.core.messages import (
    Ask,
    Claim,
    GetJob,
    Goodbye,
    Heartbeat,
    Hello,
    History,
    Numbered,
    Prune,
    Pruned,
    Reply,
    ToBroker,
    refused_as_corrupt,
)
from osqueue.core.model import Frame
from osqueue.core.numbered import BusyError
from osqueue.core.queries import Elsewhere
from osqueue.core.segment import NeedsObjectsError
from osqueue.errors import Corrupt

EARLY_BYTES = 512 * 1024
"""A batch this large is planned while the one before it is in flight, so that its objects go up meanwhile."""
LINGER_MS = 20
LINGER_BYTES = 1024 * 1024
FAST_BYTES_PER_S = 4 * 1024 * 1024


class Batch:
    """What one commit holds back until it has landed."""

    def __init__(self, commit: Commit, leaving: list[Leaving], frame: Frame) -> None:
        self.commit = commit
        self.leaving = leaving
        self.frame = frame
        self.created = not commit.objects


class CommitLoop:
    """Group commit around one machine. Not thread-safe.

    Args:
        machine: the queue, just taken over.
        frame: the root's frame as it stands in the store.
        nonce: makes a random text for each commit.
    """

    def __init__(self, machine: QueueMachine, frame: Frame, nonce: Callable[[], str]) -> None:
        self.machine = machine
        self.landed_frame = frame
        self._nonce = nonce
        self._effects: list[Effect] = []
        self._connections = Connections()
        self._prunes = Prunes()
        self._chores = Chores()
        self._loading: set[str] = set()
        self._leaving: list[Leaving] = []
        self._flying: Batch | None = None
        self._ahead: Batch | None = None
        self._closing = False
        self._closed = False
        self._planned_ms = 0
        self._fast = False

    # --------------------------------------------------------------------------------------------------------- events

    def connected(self, connection: int) -> None:
        """A client has connected; its first message must be its hello."""
        self._connections.add(connection)

    def received(self, connection: int, message: ToBroker) -> None:
        """A message has come in; `turn` applies it."""
        entry = self._connections.get(connection)
        if entry is None:
            return
        if isinstance(message, Numbered) and entry.session:
            # At once, not in its turn: the operation before it may wait for just this room.
            self.machine.acknowledge(entry.session, message.acked)
        entry.waiting.append(message)

    def serves(self, session: str) -> bool:
        """Whether a connection serves this session now."""
        return self._connections.serving(session) is not None

    def waiting(self, connection: int) -> int:
        """How many of a connection's messages have not been applied."""
        entry = self._connections.get(connection)
        return len(entry.waiting) if entry is not None else 0

    def disconnected(self, connection: int) -> None:
        """A connection has ended; what it had said and was not applied is forgotten."""
        self._prunes.forget(connection)
        if (session := self._connections.remove(connection)) is not None:
            self.machine.disconnected(session)

    def lease_ended(self, number: int, charged: Iterable[Attempt], *, marks: bool, blame_path: str = "") -> None:
        """The holder of a lease is gone for certain; see `QueueMachine.end_lease`."""
        attempts = list(charged)

        def end(now_ms: int) -> None:
            self.machine.end_lease(number, attempts, now_ms, marks=marks)
            if blame_path:
                self._leaving.append(Forget(blame_path))

        self._chores.add(end)

    def prune(self, connection: int, ticket: int, keys: list[str], pruned: Pruned) -> None:
        """Have objects of the archive deleted that a connection asked to prune, and tell it when that has landed."""

        def prune(_: int) -> None:
            self._prunes.ended()
            if keys:
                self.machine.prune(keys, pruned.jobs)
            self._leaving.append(Send(connection, Reply(ticket, pruned)))

        self._chores.add(prune)

    def prune_failed(self) -> None:
        """What could be pruned could not be looked up; whoever asked has been told."""
        self._prunes.ended()

    @property
    def prunes_wait(self) -> bool:
        """Whether somebody waits to prune; it may be their turn after `deleted` and `not_deleted`."""
        return bool(self._prunes)

    def created(self, commit: Commit) -> None:
        """A commit's objects are durable."""
        for batch in (self._flying, self._ahead):
            if batch is not None and batch.commit is commit:
                batch.created = True
        if self._flying is not None and self._flying.commit is commit:
            self._effects.append(Swap(commit))

    def landed(self, commit: Commit, now_ms: int) -> None:
        """A commit's root is durable: what it held back leaves."""
        batch = self._flying
        assert batch is not None
        assert batch.commit is commit, "one commit is in flight"
        self._flying = None
        self.landed_frame = batch.frame
        self.machine.landed(commit, now_ms)
        self._effects.extend(batch.leaving)
        if commit.trash:
            self._effects.append(Delete(commit.trash))
        if self._ahead is not None:
            ahead, self._ahead = self._ahead, None
            self._fly(ahead)

    def loaded(self, key: str, data: bytes) -> None:
        """An object has been read.

        Raises:
            Corrupt: it is damaged: its own jobs are blocked, the others go on.
        """
        self._arrived(key)
        self.machine.objects.load(key, data)

    def not_loaded(self, key: str) -> bool:
        """An object is not there; says whether that is damage."""
        self._arrived(key)
        return self.machine.objects.missing(key)

    def _arrived(self, key: str) -> None:
        self._loading.discard(key)
        self._connections.arrived(key)

    def unreadable(self, key: str) -> bool:
        """An object could not be read for too long: its jobs are passed over till it is; False if they are already."""
        self._arrived(key)
        return self.machine.objects.unreadable(key)

    def deleted(self, keys: Iterable[str]) -> None:
        """Objects of the trash are gone."""
        gone = set(keys)
        self._prunes.deleted(gone)
        self.machine.deleted(gone)

    def not_deleted(self, keys: Iterable[str]) -> None:
        """Objects of the trash could not be deleted."""
        self._prunes.not_deleted(keys)

    def close(self) -> None:
        """Apply nothing more; land what is applied, then one last commit with the archive sealed and no owner."""
        self._closing = True
        for connection in self._connections:
            connection.waiting.clear()

    @property
    def closed(self) -> bool:
        """Whether the last commit has landed."""
        return self._closed and self._flying is None

    # ---------------------------------------------------------------------------------------------------------- turns

    def turn(self, now_ms: int) -> list[Effect]:
        """Apply what can be applied, commit what can be committed; returns what is to be done, in order."""
        if self._ahead is None and not self._closed:
            self._apply_all(now_ms)
            self.machine.settle(now_ms)
            self._collect()
            self._leaving += self._prunes.next(len(self.machine.state.frame.trash))
            self._commit(now_ms)
        if wanted := self.machine.objects.take_wanted() - self._loading:
            self._loading |= wanted
            self._effects.append(Load(sorted(wanted)))
        self.machine.objects.trim(self._loading | self._chores.needed() | self._connections.needed())
        effects, self._effects = self._effects, []
        return effects

    def next_alarm_ms(self) -> int | None:
        """When `turn` must be called, if nothing happens before."""
        if self._ahead is not None:
            return None  # nothing more is applied until the commit in flight has landed
        alarm = self.machine.next_alarm_ms()
        if self._flying is None and self._fast and self._has_work():
            linger = self._planned_ms + LINGER_MS
            alarm = linger if alarm is None else min(alarm, linger)
        return alarm

    def _has_work(self) -> bool:
        return self.machine.changed or bool(self._leaving)

    def _commit(self, now_ms: int) -> None:
        if self._flying is not None:
            if self.machine.changed and self.machine.weight_bytes > EARLY_BYTES:
                self._ahead = self._plan(now_ms)
                self._create(self._ahead)
            return
        if self._closing:
            self._commit_last(now_ms)
        elif self.machine.changed:
            if not self._lingers(now_ms):
                batch = self._plan(now_ms)
                self._create(batch)
                self._fly(batch)
        elif self._leaving:
            self._effects.extend(self._leaving)
            self._leaving = []

    def _commit_last(self, now_ms: int) -> None:
        self._closed = True
        commit = self.machine.close(now_ms=now_ms, nonce=self._nonce())
        batch = self._batch(commit)
        self._create(batch)
        self._fly(batch)

    def _lingers(self, now_ms: int) -> bool:
        """While records come fast, a commit waits a little, so that archive objects are large and few."""
        held_ms = now_ms - self._planned_ms
        return self._fast and held_ms < LINGER_MS and self.machine.weight_bytes < LINGER_BYTES

    def _plan(self, now_ms: int) -> Batch:
        commit = self.machine.plan(now_ms=now_ms, nonce=self._nonce())
        since_ms = max(1, now_ms - self._planned_ms)
        archived = sum(len(data) for key, data in commit.objects.items() if key.startswith("archive/"))
        self._fast = archived * 1000 > FAST_BYTES_PER_S * since_ms
        self._planned_ms = now_ms
        return self._batch(commit)

    def _batch(self, commit: Commit) -> Batch:
        leaving, self._leaving = self._leaving, []
        return Batch(commit, leaving, structs.replace(self.machine.state.frame))

    def _create(self, batch: Batch) -> None:
        if not batch.created:
            self._effects.append(Create(batch.commit))

    def _fly(self, batch: Batch) -> None:
        self._flying = batch
        if batch.created:
            self._effects.append(Swap(batch.commit))

    # ------------------------------------------------------------------------------------------------------- applying

    def _apply_all(self, now_ms: int) -> None:
        if wanted := self._chores.apply(now_ms):
            self.machine.objects.want(wanted)
        for connection in self._connections:
            self._apply_waiting(connection, now_ms)

    def _apply_waiting(self, connection: Connection, now_ms: int) -> None:
        while connection.waiting and not connection.lacks and not self._closing:
            try:
                self._apply(connection, connection.waiting[0], now_ms)
            except NeedsObjectsError as error:
                connection.set_aside(set(error.keys), together=error.together)
                self.machine.objects.want(error.keys)
                return
            except BusyError:
                return
            connection.applied()
            self._collect()

    def _apply(self, connection: Connection, message: ToBroker, now_ms: int) -> None:
        if not connection.session and not isinstance(message, Hello):
            self._refuse(connection)
            return
        match message:
            case Hello():
                self._hello(connection, message, now_ms)
            case Numbered():
                elsewhere = self.machine.numbered(connection.session, connection.birth, message, now_ms)
                self._look_elsewhere(connection, elsewhere)
            case Claim():
                self.machine.claim(connection.session, connection.birth, message, now_ms)
            case Heartbeat():
                self.machine.heartbeat(connection.session, message, now_ms)
            case Ask():
                self._ask(connection, message, now_ms)
            case Goodbye():
                self.machine.goodbye(connection.session, now_ms)
            case _:
                assert_never(message)

    def _refuse(self, connection: Connection) -> None:
        connection.waiting.clear()
        self._effects.append(CloseConnection(connection.number))

    def _hello(self, connection: Connection, hello: Hello, now_ms: int) -> None:
        if connection.session:
            self._refuse(connection)
            return
        elsewhere = self.machine.hello(hello, now_ms)
        birth = hello.birth or self.machine.state.frame.version
        if (older := self._connections.serve(connection, hello.session, birth)) is not None:
            self._refuse(older)
        self._look_elsewhere(connection, elsewhere)

    def _look_elsewhere(self, connection: Connection, elsewhere: list[int]) -> None:
        """Have the archive asked for jobs whose end is awaited, after what has been said so far."""
        if elsewhere:
            self._collect()
            self._leaving.append(Lookup(connection.number, 0, elsewhere, damage=self.machine.objects.damage(elsewhere)))

    def _ask(self, connection: Connection, ask: Ask, now_ms: int) -> None:
        try:
            self.machine.ask(connection.session, ask, now_ms)
        except Elsewhere as elsewhere:
            self._look_up(connection.number, ask.ticket, elsewhere.query)
        except Corrupt as error:
            self._leaving.append(Send(connection.number, Reply(ask.ticket, refused_as_corrupt(error))))

    def _look_up(self, connection: int, ticket: int, query: GetJob | History | Prune) -> None:
        match query:
            case Prune():
                self._prunes.ask(Lookup(connection, ticket, query))
            case History():
                inline = self.machine.finished_records()
                self._leaving.append(Lookup(connection, ticket, query, inline=inline))
            case GetJob():
                damage = self.machine.objects.damage([query.id])
                self._leaving.append(Lookup(connection, ticket, query, damage=damage))
            case _:
                assert_never(query)

    def _collect(self) -> None:
        """Address what the machine has to say to the connections that serve its sessions now."""
        for session, message in self.machine.take_outbox():
            if (connection := self._connections.serving(session)) is not None:
                self._leaving.append(Send(connection.number, message))
