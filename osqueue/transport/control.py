"""What a pool and its broker process say to each other beside the queue's own connections.

One socket pair, inherited as ``--control FD``. The pool writes `Start`; the broker answers `Started` or `Failed`
(and exits). Afterwards `Ping` is answered by `Pong`, `Stop` by an orderly end. End-of-file means that the pool is
gone: the broker ends as after `Stop`, without telling anybody.
"""

from __future__ import annotations

from msgspec import Struct

from osqueue.core.settings import QueueSettings


class Start(Struct, tag="start"):
    """Open the queue and serve the connections.

    ``where``: absolute path of a directory. ``durable``: False for a private temporary directory, which is not
    fsynced. ``connections``: inherited socket descriptors, one per client, each of which begins with its hello.
    """

    where: str
    settings: QueueSettings
    connections: list[int]
    durable: bool = True


class Started(Struct, tag="started"):
    epoch: int


class Failed(Struct, tag="failed"):
    """``code`` is the snake-case name of the error class; the rest are its attributes."""

    code: str
    message: str
    pid: int | None = None
    host: str | None = None
    key: str | None = None
    errno: int | None = None


class Ping(Struct, tag="ping"):
    number: int


class Pong(Struct, tag="pong"):
    number: int


class Stop(Struct, tag="stop"):
    pass


ToBrokerProcess = Start | Ping | Stop
FromBrokerProcess = Started | Failed | Pong
