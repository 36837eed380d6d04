"""What a worker does before its first job and after its last: a pool's initializer and finalizer.

    LocalPool(initializer=load, initargs=("model.bin",), finalizer=free)
        ──▶ worker: state = load("model.bin"), jobs with current_job().worker_state, free(state)

Rules:
* Both functions cross as ``module:name``, like handlers; the initializer's arguments as multiprocessing pickles them.
* What cannot be pickled is refused where the pool is made. What may be sent only while a process is being started, such
  as multiprocessing's locks, may be sent here.
* The worker unpickles the arguments itself, so that an error there is told like one of the initializer.
"""

from __future__ import annotations

from collections.abc import Callable
from multiprocessing.context import get_spawning_popen, set_spawning_popen
from multiprocessing.reduction import ForkingPickler
from typing import Any

from msgspec import Struct

from osqueue.jobs import HandlerSpec, find_function, function_name


class _Arrived:
    """The arguments in the worker, still pickled."""

    def __init__(self, pickled: bytes) -> None:
        self._pickled = pickled

    def unpack(self) -> tuple[Any, ...]:
        """The arguments; raises whatever their classes do."""
        values: tuple[Any, ...] = ForkingPickler.loads(self._pickled)
        return values


class Arguments:
    """The arguments in the program, pickled whenever a process is started with them."""

    def __init__(self, values: tuple[Any, ...]) -> None:
        self._values = values

    def unpack(self) -> tuple[Any, ...]:
        """The arguments."""
        return self._values

    def __reduce__(self) -> tuple[Any, ...]:
        return (_Arrived, (bytes(ForkingPickler.dumps(self._values)),))


class Lifecycle(Struct, frozen=True, kw_only=True):
    """``initializer``, ``finalizer``: ``module:name``, or None for nothing to do."""

    initializer: str | None = None
    initargs: Any = Arguments(())
    finalizer: str | None = None

    def load(self, wrap: Callable[[Callable[..., Any]], Callable[..., Any]]) -> Course:
        """In a worker: import both functions; ``wrap`` makes plain ones of those that are ``async def``.

        Raises:
            ImportError, TypeError: there is no such function; other errors come from the modules.
        """
        return Course(
            None if self.initializer is None else wrap(find_function(self.initializer, "initializer")),
            self.initargs,
            None if self.finalizer is None else wrap(find_function(self.finalizer, "finalizer")),
        )


class Course:
    """The beginning and the end of one worker. Belongs to its main thread."""

    def __init__(
        self,
        initializer: Callable[..., Any] | None,
        initargs: Arguments | _Arrived,
        finalizer: Callable[[Any], Any] | None,
    ) -> None:
        self._initializer = initializer
        self._initargs = initargs
        self._finalizer = finalizer

    def begin(self) -> Any:
        """Call the initializer; what it returns is the worker's state. Raises whatever it does."""
        return None if self._initializer is None else self._initializer(*self._initargs.unpack())

    def end(self, state: Any) -> None:
        """Call the finalizer with the worker's state. Raises whatever it does."""
        if self._finalizer is not None:
            self._finalizer(state)


def lifecycle(
    initializer: HandlerSpec | None, initargs: tuple[Any, ...] | list[Any], finalizer: HandlerSpec | None
) -> Lifecycle:
    """The checked arguments of a pool.

    Raises:
        TypeError: a function that workers could not find or call, or arguments that cannot be sent to them.
        ValueError: arguments for no initializer.
    """
    if not isinstance(initargs, tuple | list):
        raise TypeError(f"initargs is a tuple of the initializer's arguments, not {type(initargs).__name__}")
    if initargs and initializer is None:
        raise ValueError("initargs are given, and no initializer to call with them")
    _refuse_unpicklable(initargs)
    return Lifecycle(
        initializer=None
        if initializer is None
        else function_name("initializer", initializer, initargs, called_with="initargs"),
        initargs=Arguments(tuple(initargs)),
        finalizer=None
        if finalizer is None
        else function_name("finalizer", finalizer, (None,), called_with="the worker's state alone"),
    )


class _Trial:
    """Stands for a process that is being started: what multiprocessing passes only then can be tried."""

    @staticmethod
    def DupFd(fd: int) -> int:  # noqa: N802 (multiprocessing's name)
        return fd

    @staticmethod
    def duplicate_for_child(fd: int) -> int:
        return fd


class _Nowhere:
    """A file that keeps nothing."""

    def write(self, data: Any) -> int:
        return len(data)


def _refuse_unpicklable(initargs: tuple[Any, ...] | list[Any]) -> None:
    before = get_spawning_popen()
    set_spawning_popen(_Trial())  # type: ignore[arg-type]
    try:
        for number, value in enumerate(initargs):
            try:
                ForkingPickler(_Nowhere()).dump(value)
            except Exception as error:
                # Pickling runs the classes' own code, which may raise anything.
                what = f"item {number}, of type {type(value).__qualname__}, cannot be sent to workers"
                raise TypeError(f"initargs: {what}: {error}") from error
    finally:
        set_spawning_popen(before)
