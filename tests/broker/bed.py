"""A commit loop on a bench: the test is the store, the network and the clock."""

from __future__ import annotations

import itertools
from typing import Any

from msgspec import structs

from osqueue.broker.archive import Archive
from osqueue.broker.effects import CloseConnection, Create, Delete, Effect, Load, Lookup, Send, Swap
from osqueue.broker.loop import CommitLoop
from osqueue.core import codec
from osqueue.core.commit import Commit
from osqueue.core.machine import QueueMachine
from osqueue.core.messages import Claim, Hello, Numbered, Operation, Outcome, Push, Report, ToBroker
from osqueue.core.model import Root
from osqueue.core.settings import QueueSettings
from osqueue.storage import MemoryStorage

START_MS = 1_700_000_000_000


class Bed:
    """Drives a `CommitLoop`; effects wait in ``pending`` until the test carries them out."""

    def __init__(
        self, root: bytes | None = None, store: dict[str, bytes] | None = None, now_ms: int = START_MS
    ) -> None:
        self.now_ms = now_ms
        self.store = {} if store is None else store
        self.nonces = map(str, itertools.count(1))
        machine = QueueMachine(
            Root() if root is None else codec.decode_root(root), QueueSettings(), now_ms=self.now_ms, seed="bed"
        )
        commit = machine.take_over(f"owner-{next(self.nonces)}", now_ms=self.now_ms, nonce=next(self.nonces))
        self.root = commit.root
        machine.landed(commit, self.now_ms)
        self.loop = CommitLoop(machine, structs.replace(machine.state.frame), lambda: next(self.nonces))
        self.pending: list[Effect] = []
        self.sent: list[tuple[int, Any]] = []
        self.order: list[str] = []
        self._numbers: dict[int, int] = {}

    def connect(self, connection: int, session: str, **fields: Any) -> None:
        self.loop.connected(connection)
        self._numbers.setdefault(connection, 0)
        self.say(connection, Hello(session, **fields))

    def say(self, connection: int, message: ToBroker) -> None:
        self.loop.received(connection, message)
        self.turn()

    def operate(self, connection: int, operation: Operation) -> int:
        """Say the next numbered operation; its number."""
        number = self._numbers[connection] = self._numbers[connection] + 1
        self.say(connection, Numbered(number, number - 1, operation))
        return number

    def push(self, connection: int, *payloads: bytes) -> int:
        return self.operate(connection, Push(list(payloads)))

    def claim(self, connection: int, jobs: int = 1) -> None:
        self.say(connection, Claim(1, ["default"], jobs, standing=True))

    def complete(self, connection: int, lease: int, *jobs: Any) -> int:
        return self.operate(connection, Report(lease, [Outcome(job.id, job.attempt, "succeeded") for job in jobs]))

    def turn(self) -> None:
        """One turn: messages are noted as sent, the rest waits."""
        for effect in self.loop.turn(self.now_ms):
            match effect:
                case Send():
                    self.sent.append((effect.connection, effect.message))
                    self.order.append("send")
                case _:
                    self.pending.append(effect)

    def wait(self, ms: int) -> None:
        self.now_ms += ms
        self.turn()

    def waiting(self, kind: type) -> list[Any]:
        return [effect for effect in self.pending if isinstance(effect, kind)]

    def create(self) -> None:
        """Carry out the first creation."""
        [effect] = self.waiting(Create)[:1]
        self.pending.remove(effect)
        self.store.update(effect.commit.objects)
        self.order.append("create")
        self.loop.created(effect.commit)
        self.turn()

    def land(self) -> Commit:
        """Carry out the one swap in flight."""
        [effect] = self.waiting(Swap)
        self.pending.remove(effect)
        self.root = effect.commit.root
        self.order.append("swap")
        self.loop.landed(effect.commit, self.now_ms)
        self.turn()
        return effect.commit  # type: ignore[no-any-return]

    def load(self) -> list[str]:
        """Carry out every read."""
        keys = [key for effect in self.waiting(Load) for key in effect.keys]
        self.pending = [effect for effect in self.pending if not isinstance(effect, Load)]
        for key in keys:
            self.loop.loaded(key, self.store[key])
        self.turn()
        return keys

    def settle(self) -> None:
        """Carry out everything until nothing is left."""
        for _ in range(200):
            if self.waiting(Create):
                self.create()
            elif self.waiting(Swap):
                self.land()
            elif self.waiting(Load):
                self.load()
            elif self.waiting(Delete):
                self.delete()
            else:
                return
        raise AssertionError("the loop does not come to rest")

    def delete(self) -> None:
        [effect] = self.waiting(Delete)[:1]
        self.pending.remove(effect)
        for key in effect.keys:
            self.store.pop(key, None)
        self.order.append("delete")
        self.loop.deleted(effect.keys)

    def to(self, connection: int, kind: type) -> list[Any]:
        return [message for number, message in self.sent if number == connection and isinstance(message, kind)]

    def closed(self) -> list[int]:
        return [effect.connection for effect in self.waiting(CloseConnection)]

    def archive(self) -> Archive:
        """The archive as it is now."""
        storage = MemoryStorage()
        for key, data in self.store.items():
            storage.create(key, data)
        return Archive(storage)

    def lookups(self) -> list[Lookup]:
        return self.waiting(Lookup)
