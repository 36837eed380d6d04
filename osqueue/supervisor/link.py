"""What a supervisor knows of its broker: the same beside the broker and on another host."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from osqueue.core.messages import Outcome, Progress


class Link(Protocol):
    """A supervisor's way to its broker. Called on the loop's thread; nothing here may wait."""

    def claim(self, jobs: int) -> None:
        """Ask for so many more jobs; these credits add up. They arrive through `Supervisor.granted`."""

    def report(self, outcomes: list[Outcome], on_answer: Callable[[list[int]], None]) -> None:
        """Report outcomes; ``on_answer`` is called, with the ids that were refused as lost, once that is durable."""

    def withdraw(self) -> None:
        """Take back what was asked for and not granted."""

    @property
    def bounded(self) -> bool:
        """Whether the queue is to know soon which jobs have begun, since the others count against its bound."""

    def heartbeat(self, running: list[int], progress: list[Progress]) -> None:
        """Say which jobs have begun, and how far some of them are."""

    def now_ms(self) -> int:
        """The broker's time, in milliseconds since 1970."""
