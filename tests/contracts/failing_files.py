"""The operating system's files, but for one call that fails."""

from __future__ import annotations

import os
from typing import Any

from osqueue.storage.files import OsFiles


class FailingFiles:
    """`osqueue.storage.files.Files` in which calls of one name raise, from `fail` on, so many times."""

    def __init__(self) -> None:
        self._real = OsFiles()
        self._name = ""
        self._number = 0
        self._times = 0
        self.calls: list[str] = []

    def fail(self, name: str, number: int, *, times: int = 1) -> None:
        """Have the next calls of ``name`` fail with the error ``number``, and count calls from here."""
        self._name, self._number, self._times = name, number, times
        self.calls.clear()

    def __getattr__(self, name: str) -> Any:
        real = getattr(self._real, name)

        def call(*arguments: Any, **named: Any) -> Any:
            self.calls.append(name)
            if name == self._name and self._times > 0:
                self._times -= 1
                if name == "close":
                    real(*arguments, **named)  # as Linux does: an error of close says something, but closes
                raise OSError(self._number, os.strerror(self._number))
            return real(*arguments, **named)

        return call
