"""Clients' connections as the commit loop sees them: who serves which session, and what has not been applied yet.

Rules:
* A connection serves at most one session, a session has at most one connection: the last one that said hello.
* Messages of one connection are applied in order; one that needs objects holds up those behind it, and nobody else.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from osqueue.core.messages import ToBroker


class Connection:
    """A client's connection, and its messages that have not been applied, in order."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.session = ""
        self.birth = 0
        self.waiting: deque[ToBroker] = deque()
        self.needs: set[str] = set()
        """Objects that its first message needs, all together."""
        self.lacks: set[str] = set()
        """Those of them that are not in memory yet."""

    def set_aside(self, keys: set[str], *, together: bool) -> None:
        """Its first message can be applied when these objects have been read.

        Args:
            keys: the objects.
            together: whether it needs those with them that it needed before.
        """
        self.lacks = set(keys)
        self.needs = self.needs | keys if together else set(keys)

    def applied(self) -> None:
        """Its first message is done with."""
        self.needs.clear()
        if self.waiting:
            self.waiting.popleft()


class Connections:
    """All connections. Not thread-safe."""

    def __init__(self) -> None:
        self._connections: dict[int, Connection] = {}
        self._by_session: dict[str, Connection] = {}

    def __iter__(self) -> Iterator[Connection]:
        return iter(list(self._connections.values()))

    def add(self, number: int) -> None:
        """A client has connected."""
        self._connections[number] = Connection(number)

    def get(self, number: int) -> Connection | None:
        return self._connections.get(number)

    def remove(self, number: int) -> str | None:
        """A connection has ended; returns the session that it served till now."""
        connection = self._connections.pop(number, None)
        if connection is None or self._by_session.get(connection.session) is not connection:
            return None
        del self._by_session[connection.session]
        return connection.session

    def serving(self, session: str) -> Connection | None:
        """The connection that serves a session now."""
        return self._by_session.get(session)

    def serve(self, connection: Connection, session: str, birth: int) -> Connection | None:
        """A session has come in on this connection; returns the one that served it before."""
        older = self._by_session.get(session)
        if older is not None:
            older.session = ""
        connection.session = session
        connection.birth = birth
        self._by_session[session] = connection
        return older

    def arrived(self, key: str) -> None:
        """An object has been read, or cannot be."""
        for connection in self._connections.values():
            connection.lacks.discard(key)

    def needed(self) -> set[str]:
        """Objects that must stay in memory, since somebody waits to use them all together."""
        return set().union(*(connection.needs for connection in self._connections.values()))
