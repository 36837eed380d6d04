"""Handlers and their names: what a program hands in, and what a worker makes of it.

    LocalPool(resize)   ->  {"default": "shop.images:resize"}   ->  worker: import shop.images, take resize

Rules:
* A handler crosses to the workers as the text ``module:name``, never as a pickle.
* So it is refused, where the pool is made, if a worker could not find the very same function by that name.
* Handlers of the program's own main module are found in the worker's copy of it, which multiprocessing imports.
* A text is imported by workers only.
"""

from __future__ import annotations

import importlib
import inspect
import re
import sys
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import msgspec

from osqueue.values import Codec, CodecValues, JsonValues, Values

DEFAULT_TASK = "default"
MAX_TASK_BYTES = 64

HandlerSpec = Callable[..., Any] | str
"""A function of one payload, or "package.module:function"."""

_TEXT = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*")
_WAY_OUT = "write it as a function with def, at the top level of a module that can be imported, and pass that"
FILE_WAY_OUT = "put it into a file (a module, or a script with an if __name__ == '__main__': guard) and run that"
_GENERATORS = (inspect.isgeneratorfunction, inspect.isasyncgenfunction)


class Handlers:
    """The handlers of one pool, on the side of the program that made it. Any thread may use it.

    Args:
        handler: a function of one payload, a ``"module:function"`` text, or a dict of those by task name.
        payload_type: declared for all tasks; None to take each function's annotation, else any JSON value.
        result_type: likewise.
        codec: in place of JSON and of both types.

    Raises:
        TypeError: a handler or type cannot be used; the message says what to do instead.
        ValueError: a task name is empty or too long, there is no handler, or a type was given beside a codec.
    """

    def __init__(
        self,
        handler: HandlerSpec | Mapping[str, HandlerSpec],
        *,
        payload_type: Any = None,
        result_type: Any = None,
        codec: Codec | None = None,
    ) -> None:
        by_task = dict(handler) if isinstance(handler, Mapping) else {DEFAULT_TASK: handler}
        if not by_task:
            raise ValueError("handler: the dict of handlers is empty")
        for task in by_task:
            check_task_name(task)
        self.names: dict[str, str] = {task: handler_name(spec) for task, spec in by_task.items()}
        if codec is not None and not (payload_type is None and result_type is None):
            raise ValueError("codec: it takes the place of payload_type and result_type; leave those out")
        self.payload_type = checked_type(payload_type, "payload_type")
        self.result_type = checked_type(result_type, "result_type")
        self._values = {
            task: task_values(spec, payload_type, result_type, codec=codec) for task, spec in by_task.items()
        }

    @property
    def tasks(self) -> list[str]:
        """The tasks that these handlers are for."""
        return list(self.names)

    def payloads(self, task: str) -> Values[Any]:
        """How the task's payloads cross; `KeyError` if there is no such task here."""
        return self._values[task][0]

    def results(self, task: str) -> Values[Any]:
        """How the task's results cross; `KeyError` if there is no such task here."""
        return self._values[task][1]


def check_task_name(task: object) -> None:
    """Raises `TypeError` or `ValueError`: this is no name of a task."""
    if not isinstance(task, str):
        raise TypeError(f"handler: a task's name is a text, got {type(task).__qualname__}")
    try:
        size = len(task.encode())
    except UnicodeEncodeError as error:
        raise ValueError("handler: a task's name holds a lone surrogate") from error
    if not 1 <= size <= MAX_TASK_BYTES:
        raise ValueError(f"handler: a task's name has 1 to {MAX_TASK_BYTES} bytes, got {size}")


def handler_name(spec: HandlerSpec) -> str:
    """The ``module:name`` under which a worker finds this handler.

    Raises:
        TypeError: it would not; the message says what to do instead.
    """
    return function_name("handler", spec, (None,), called_with="a payload alone")


def function_name(field: str, spec: HandlerSpec, arguments: Sequence[Any], *, called_with: str) -> str:
    """The ``module:name`` under which a worker finds this function.

    Args:
        field: the argument that it is given as, for messages.
        spec: the function, or its name.
        arguments: such as it will be called with.
        called_with: what those are, in words.

    Raises:
        TypeError: it would not; the message says what to do instead.
    """
    if isinstance(spec, str):
        if not _TEXT.fullmatch(spec):
            raise TypeError(f"{field}: a text names a function as 'package.module:function', got {spec!r}")
        refuse_skipped_main(field, spec)
        return spec
    try:
        name = _function_name(spec, arguments, called_with)
    except TypeError as error:
        raise TypeError(f"{field}: {error}") from error.__cause__
    refuse_skipped_main(field, name)
    return name


def class_name(kind: object) -> str:
    """The ``module:name`` under which a worker finds this exception class.

    Raises:
        TypeError: it is no exception class, or a worker would not find it.
    """
    if not (isinstance(kind, type) and issubclass(kind, BaseException)):
        raise TypeError(f"retry_on, no_retry_on: exception classes are wanted, got {kind!r}")
    if looked_up(kind.__module__, kind.__qualname__) is not kind:
        message = f"retry_on, no_retry_on: workers cannot import {kind.__module__}.{kind.__qualname__}"
        raise TypeError(f"{message}: define it at the top level of a module")
    name = f"{kind.__module__}:{kind.__qualname__}"
    refuse_skipped_main("retry_on, no_retry_on", name)
    return name


def find(name: str) -> Any:
    """In a worker: import the module and take what ``module:name`` says; the module itself if it says no name.

    Raises:
        ImportError: there is none; other errors come from the module itself.
    """
    module_name, _, qualname = name.partition(":")
    found: Any = importlib.import_module(module_name)
    for part in qualname.split(".") if qualname else ():
        try:
            found = getattr(found, part)
        except AttributeError as error:
            raise ImportError(_missing(module_name, qualname)) from error
    return found


def find_function(name: str, field: str = "handler") -> Callable[..., Any]:
    """In a worker: the function that ``module:name`` says; ``field``: the argument that it was given as.

    Raises:
        ImportError: there is none. TypeError: it is nothing that can be called.
    """
    found = find(name)
    if not callable(found):
        raise TypeError(f"{field}: {name} is no function, it is of type {type(found).__qualname__}")
    function: Callable[..., Any] = found
    return function


def task_values(
    spec: HandlerSpec, payload_type: Any = None, result_type: Any = None, *, codec: Codec | None = None
) -> tuple[Values[Any], Values[Any]]:
    """How a handler's payloads and its results cross."""
    if codec is not None:
        return CodecValues(codec, "payload"), CodecValues(codec, "result")
    payloads, results = handler_types(spec, payload_type, result_type)
    return JsonValues(payloads, "payload"), JsonValues(results, "result")


def handler_types(spec: HandlerSpec, payload_type: Any = None, result_type: Any = None) -> tuple[Any, Any]:
    """The types of a handler's payload and result: those declared, else its annotations, else any JSON value."""
    declared = (payload_type, result_type)
    noted = (Any, Any) if isinstance(spec, str) or None not in declared else _annotations(spec)
    return (
        noted[0] if payload_type is None else payload_type,
        noted[1] if result_type is None else result_type,
    )


def _function_name(function: object, arguments: Sequence[Any], called_with: str) -> str:
    if not isinstance(function, types.FunctionType):
        raise TypeError(f"{_described(function)} is no function that a worker could find: {_WAY_OUT}")
    module, qualname = function.__module__, function.__qualname__
    if "<lambda>" in qualname or "<locals>" in qualname or "." in qualname:
        raise TypeError(f"{_described(function)} cannot be found by a worker: {_WAY_OUT}")
    if function.__code__.co_filename.startswith("<") and module == "__main__":
        raise TypeError(f"{qualname} was typed in, workers cannot import it: {FILE_WAY_OUT}")
    if module == "__main__" and not main_has_file():
        raise TypeError(f"this program has no file that workers could import {qualname} from: {FILE_WAY_OUT}")
    if looked_up(module, qualname) is not function:
        message = f"the name {module}.{qualname} leads to something else than this function"
        raise TypeError(f"{message} (a decorator or a later definition hides it): {_WAY_OUT}")
    if any(is_generator(function) for is_generator in _GENERATORS):
        raise TypeError(f"{qualname} yields; it has to return its one result")
    _check_takes(function, arguments, called_with)
    return f"{module}:{qualname}"


def _check_takes(function: types.FunctionType, arguments: Sequence[Any], called_with: str) -> None:
    try:
        inspect.signature(function).bind(*arguments)
    except TypeError as error:
        raise TypeError(f"{function.__qualname__} cannot be called with {called_with}: {error}") from error


def _described(spec: object) -> str:
    if isinstance(spec, partial):
        return f"a partial of {getattr(spec.func, '__name__', spec.func)!r}"
    if isinstance(spec, types.MethodType):
        return f"the method {spec.__qualname__}"
    if isinstance(spec, types.FunctionType):
        if spec.__name__ == "<lambda>":
            return "a lambda"
        nested = "<locals>" in spec.__qualname__
        return f"the {'nested function' if nested else 'method'} {spec.__qualname__}"
    if isinstance(spec, types.BuiltinFunctionType):
        return f"the builtin {spec.__name__}"
    return f"an object of type {type(spec).__qualname__}"


def looked_up(module: str, qualname: str) -> object:
    """What a name leads to in an imported module; None for nothing."""
    found: object = sys.modules.get(module)
    for part in qualname.split("."):
        found = getattr(found, part, None)
    return found


def main_has_file() -> bool:
    """Whether this program's main module can be imported by its workers."""
    main = sys.modules.get("__main__")
    file = getattr(main, "__file__", None)  # "<stdin>" of a program that is piped into Python
    return (file is not None and not file.startswith("<")) or getattr(main, "__spec__", None) is not None


def refuse_skipped_main(field: str, name: str) -> None:
    """Refuse what ``module:name`` leads to in a ``__main__.py``, which workers do not import.

    Such files run their program whatever they are imported as, so multiprocessing leaves them out: see
    ``_fixup_main_from_name`` in `multiprocessing.spawn`.

    Raises:
        TypeError: this program is a package's, a directory's or a zip file's, and the name is its main module's.
    """
    module, _, qualname = name.partition(":")
    main = getattr(getattr(sys.modules.get("__main__"), "__spec__", None), "name", "")
    if module == "__main__" and (main == "__main__" or main.endswith(".__main__")):
        raise TypeError(
            f"{field}: workers do not import the __main__.py of a package, a directory or a zip file: move "
            f"{qualname or 'it'} out of __main__.py into a module of its own"
        )


def _missing(module_name: str, qualname: str) -> str:
    message = f"module {module_name} has no {qualname}"
    if module_name != "__main__":
        return message
    return f"{message} in a worker: define it at the top level, outside the if __name__ == '__main__': block"


def _annotations(function: Callable[..., Any]) -> tuple[Any, Any]:
    """The annotations of the first parameter and of the result, where they are types that JSON can be read as."""
    try:
        hints = typing.get_type_hints(function, include_extras=True)
        parameters: Sequence[str] = list(inspect.signature(function).parameters)
    except Exception:  # noqa: BLE001
        # Annotations are code: names under TYPE_CHECKING, newer syntax. Without them any JSON value will do.
        return Any, Any
    payload_type = hints.get(parameters[0], Any) if parameters else Any
    return _readable(payload_type), _readable(hints.get("return", Any))


def _readable(value_type: Any) -> Any:
    """The type itself, or `Any` for one that no JSON can be read as: its values pass as whatever JSON they make."""
    return value_type if _refusal(value_type) is None else Any


def checked_type(value_type: Any, field: str) -> Any:
    """The type, or None, as it is. Raises `TypeError`: values cannot be read as it."""
    if value_type is not None and (refusal := _refusal(value_type)) is not None:
        raise TypeError(f"{field}: msgspec cannot read JSON as {value_type!r}: {refusal}")
    return value_type


def _refusal(value_type: Any) -> str | None:
    if value_type is object:
        return "object says nothing; leave the type out for any JSON value"
    try:
        # A schema is the one thing that msgspec refuses to make of a type it only knows as "custom".
        msgspec.json.schema(value_type)
    except Exception as error:  # noqa: BLE001
        # RecursionError, NameError, TypeError: whatever the annotation's own evaluation raises.
        return str(error)
    return None
