"""The one event loop of a worker, for everything of its program that is ``async def``: one at a time."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Coroutine
from typing import Any


class Coroutines:
    """Runs what ``async def`` functions return. Belongs to the worker's main thread."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None

    def wrap(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function as a plain one; itself if it is one."""
        if not inspect.iscoroutinefunction(function):
            return function
        return lambda *args: self._run(function(*args))

    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop; made when it is first needed."""
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
            asyncio.set_event_loop(self._loop)
        return self._loop

    def _run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return self.loop().run_until_complete(coroutine)
